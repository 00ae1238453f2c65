"""Plans over random histories: applying is idempotent, ids never repeat, frozen versions stay."""

from collections.abc import Sequence
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.plan import plan
from control_plane.domain.retire import retire
from headrace.definitions import ChangeKind, DefinitionKind, DefinitionSet, RegistryState
from headrace.definitions.registered import all_records
from headrace.errors import FailedPrecondition, NotFound
from headrace.names import VersionRef
from tests.unit.headrace.definitions.samples import MODEL, SERVICE, VIEW, sets

NOW = datetime(2026, 2, 1, tzinfo=UTC)
Step = DefinitionSet | tuple[DefinitionKind, str]


def retirements() -> st.SearchStrategy[Step]:
    kinds = {DefinitionKind.FEATURE_VIEW: VIEW, DefinitionKind.FEATURE_SERVICE: SERVICE, DefinitionKind.MODEL: MODEL}
    pairs = [(kind, f"{name}@v{version}") for kind, name in kinds.items() for version in (1, 2, 3)]
    return st.sampled_from(pairs)


def steps() -> st.SearchStrategy[Sequence[Step]]:
    return st.lists(sets() | retirements(), min_size=1, max_size=6)


def ids_of(state: RegistryState) -> dict[int, tuple[VersionRef, str]]:
    found: dict[int, tuple[VersionRef, str]] = {}
    for record in all_records(state):
        for field in ("source_id", "entity_id", "view_id", "schema_id"):
            number = getattr(record, field, None)
            if number is not None:
                assert number not in found, "an id names one thing"
                found[number] = (record.ref, field)
    return found


def step_from(state: RegistryState, step: Step) -> RegistryState:
    """State after a step; a refused one changes nothing."""
    if not isinstance(step, DefinitionSet):
        try:
            return retire(state, *step, NOW).after
        except (NotFound, FailedPrecondition):
            return state
    made = plan(state, step, NOW)
    if made.problems:
        return state
    again = plan(made.after, step, NOW)
    assert {change.change_kind for change in again.changes} <= {ChangeKind.UNCHANGED}
    assert again.after is made.after
    return made.after


@given(steps())
def test_history_keeps_ids_versions_and_idempotency(history: Sequence[Step]) -> None:
    state = RegistryState()
    for step in history:
        after = step_from(state, step)
        assert after.revision - state.revision == (after is not state)
        before_ids, after_ids = ids_of(state), ids_of(after)
        assert before_ids.items() <= after_ids.items(), "an id is never given again"
        assert after.highest_id == max(after_ids, default=0) >= state.highest_id
        for name, versions in after.views.items():
            assert [view.version for view in versions] == list(range(1, len(versions) + 1))
            for old, new in zip(state.views.get(name, ()), versions, strict=False):
                assert (old.transform_digest, old.schema_id) == (new.transform_digest, new.schema_id)
                assert old.definition.ttl == new.definition.ttl
        state = after


@given(sets(), sets())
def test_plan_does_not_depend_on_when_it_is_made(first: DefinitionSet, second: DefinitionSet) -> None:
    state = plan(RegistryState(), first, NOW).after
    early, late = plan(state, second, NOW), plan(state, second, datetime(2027, 1, 1, tzinfo=UTC))
    assert early.changes == late.changes
    assert early.problems == late.problems
