"""Plans: what applying a set of definitions would do to a state of the registry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from control_plane.domain.dependencies import cycle_problems, dependency_order
from control_plane.domain.draft import Draft
from control_plane.domain.entity_plan import plan_entity
from control_plane.domain.model_plan import plan_model
from control_plane.domain.on_demand_plan import plan_on_demand_view
from control_plane.domain.service_plan import plan_service
from control_plane.domain.source_plan import plan_source
from control_plane.domain.verdicts import Problem, Verdict, refused
from control_plane.domain.view_plan import plan_view
from headrace.definitions.base import Definition
from headrace.definitions.changes import Change, ChangeKind, DefinitionKind
from headrace.definitions.entities import Entity
from headrace.definitions.models import Model
from headrace.definitions.on_demand import OnDemandView
from headrace.definitions.registered import Registered, RegistryState
from headrace.definitions.services import FeatureService
from headrace.definitions.sets import DefinitionSet
from headrace.definitions.sources import Source
from headrace.definitions.views import FeatureView
from headrace.errors import Aborted, FailedPrecondition

_KINDS: Final[Mapping[type[Definition], DefinitionKind]] = {
    Source: DefinitionKind.SOURCE,
    Entity: DefinitionKind.ENTITY,
    FeatureView: DefinitionKind.FEATURE_VIEW,
    OnDemandView: DefinitionKind.ON_DEMAND_VIEW,
    FeatureService: DefinitionKind.FEATURE_SERVICE,
    Model: DefinitionKind.MODEL,
}
_PLANNERS: Final[Mapping[type[Definition], Callable[[Draft, Any], Verdict]]] = {  # Any: each takes the kind of its key
    Source: plan_source,
    Entity: plan_entity,
    FeatureView: plan_view,
    OnDemandView: plan_on_demand_view,
    FeatureService: plan_service,
    Model: plan_model,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes in the order they are made, the records that they write, and the state after them."""

    changes: tuple[Change, ...]
    problems: tuple[Problem, ...]
    records: tuple[Registered, ...]
    after: RegistryState

    def require_possible(self) -> None:
        """Raises FailedPrecondition where a change is refused: a plan is made whole or not at all."""
        if not self.problems:
            return
        first = self.problems[0]
        names = [change.name for change in self.changes if change.change_kind is ChangeKind.REFUSED]
        more = f" (and {len(self.problems) - 1} more; plan lists them)" if len(self.problems) > 1 else ""
        raise FailedPrecondition(
            f"{names[0]}: {first.message}{more}",
            reason=first.reason,
            field=first.field,
            metadata={"name": names[0], "refused": ", ".join(names), "field": first.field},
        )


def plan(current: RegistryState, wanted: DefinitionSet, now: datetime) -> Plan:
    """Compares a set with a state. Pure: `plan.after` is the state that applying it makes.

    Raises Aborted where a definition carries the etag of a state that is gone.
    """
    draft = Draft(current, now)
    changes: list[Change] = []
    problems: list[Problem] = []
    cycles = cycle_problems(wanted.located())
    for path, definition in dependency_order(wanted.located()):
        kind = _KINDS[type(definition)]
        _check_etag(draft, path, definition)
        cycle = cycles.get(definition.name)
        verdict = refused(0, [cycle]) if cycle else _decide(draft, kind, definition)
        changes.append(Change(kind, definition.name, verdict.version, verdict.change_kind, verdict.details))
        if verdict.problems:
            draft.refused.add(definition.name)
            problems.extend(replace(problem, field=f"{path}.{problem.field}") for problem in verdict.problems)
    return Plan(tuple(changes), tuple(problems), draft.changed, draft.state())


def _decide(draft: Draft, kind: DefinitionKind, definition: Definition) -> Verdict:
    taken = draft.kind(definition.name)
    if taken is not None and taken is not kind:
        message = f"name {definition.name!r} belongs to a {taken.label}, and is never given to another kind; rename it"
        return refused(0, [Problem("NAME_TAKEN", "name", message)])
    return _PLANNERS[type(definition)](draft, replace(definition, etag=""))


def _check_etag(draft: Draft, path: str, definition: Definition) -> None:
    if not definition.etag:
        return
    etag = draft.etag(definition.name)
    if etag != definition.etag:
        raise Aborted(
            f"{definition.name!r} has changed since etag {definition.etag!r} was read; read it again and repeat",
            reason="STALE_ETAG",
            field=f"{path}.etag",
            metadata={"name": definition.name, "etag": definition.etag, "current_etag": etag},
        )
