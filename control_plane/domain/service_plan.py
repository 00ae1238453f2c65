"""Plans feature services."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from control_plane.domain.differences import common_differences, counted
from control_plane.domain.draft import Draft
from control_plane.domain.on_demand_plan import on_demand_plans
from control_plane.domain.pinned import active_version
from control_plane.domain.verdicts import Problem, Verdict, created, refused, renewed, unchanged, updated
from headrace.definitions.checks import suggestion
from headrace.definitions.layout import FEATURE_COUNT_MAX
from headrace.definitions.on_demand import REQUEST_FIELD_COUNT_MAX
from headrace.definitions.registered import (
    RegisteredOnDemandView,
    RegisteredService,
    RegisteredView,
    State,
    select,
)
from headrace.definitions.services import KEY_COLUMN_COUNT_MAX, FeatureService, ServiceEntry
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.names import NAME_LENGTH_MAX
from headrace.types import ValueType


@dataclass(frozen=True, slots=True)
class _Resolved:
    entry: ServiceEntry
    key_types: dict[str, ValueType]  # by request column
    fields: Mapping[str, ValueType]  # of request data


def plan_service(draft: Draft, wanted: FeatureService) -> Verdict:
    """Decides about one service: its entries are resolved now and stored pinned, so other entries are a new version."""
    versions = draft.services(wanted.name)
    problems: list[Problem] = []
    resolved = [_resolve(draft, index, entry, problems) for index, entry in enumerate(wanted.entries)]
    found = [(index, item) for index, item in enumerate(resolved) if item]
    problems.extend(_output_problems([(index, item.entry) for index, item in found]))
    problems.extend(_request_problems(found))
    if problems:
        return refused(len(versions), problems)
    pinned = replace(wanted, entries=[item.entry for _, item in found])
    return _decide(draft, versions, pinned)


def _decide(draft: Draft, versions: list[RegisteredService], pinned: FeatureService) -> Verdict:
    if not versions:
        draft.put(RegisteredService(pinned, draft.first_stamp(pinned.name), 1, State.ACTIVE))
        return created(
            1, f"{counted(_count(pinned), 'feature')} of {', '.join(entry.feature_view for entry in pinned.entries)}"
        )
    newest = select(versions, 0)
    frozen = _differences(newest.definition, pinned) if newest else ["every earlier version is retired"]
    mutable = common_differences(versions[-1].definition, pinned)
    if mutable:
        versions = _touch(draft, versions, pinned)
    if frozen:
        number = versions[-1].version + 1
        stamp = draft.next_stamp(versions[-1].stamp)
        draft.put(RegisteredService(pinned, stamp, number, State.ACTIVE))
        return renewed(number, [*frozen, *mutable])
    return updated(versions[-1].version, mutable) if mutable else unchanged(newest.version if newest else 0)


def _touch(draft: Draft, versions: list[RegisteredService], wanted: FeatureService) -> list[RegisteredService]:
    touched = []
    for service in versions:
        definition = replace(service.definition, owner=wanted.owner, description=wanted.description, tags=wanted.tags)
        stamp = draft.touched_stamp(wanted.name, service.stamp)
        touched.append(replace(service, definition=definition, stamp=stamp))
        draft.put(touched[-1])
    return touched


def _resolve(draft: Draft, index: int, entry: ServiceEntry, problems: list[Problem]) -> _Resolved | None:
    """The entry with its view pinned and its features named; adds what is wrong to the problems."""
    path = f"entries[{index}]"
    view = active_version(draft, path, entry, problems)
    if view is None:
        return None
    known = [feature.name for feature in view.definition.features]
    for position, name in enumerate(entry.features):
        if name not in known:
            message = f"view {view.ref} has no feature {name!r}{suggestion(name, known)}"
            problems.append(Problem("UNKNOWN_FEATURE", f"{path}.features[{position}]", message))
    try:
        what, keys, fields = _request_columns(draft, view)
    except (InvalidArgument, FailedPrecondition) as error:
        problems.append(Problem(error.reason, f"{path}.feature_view", error.message))
        return None
    for key in entry.join_key_mapping:
        if key not in keys:
            message = f"{what} has no join key {key!r}{suggestion(key, keys)}"
            problems.append(Problem("UNKNOWN_JOIN_KEY", f"{path}.join_key_mapping", message))
    columns = [entry.request_column(key) for key in keys]
    if len(set(columns)) < len(columns):
        message = f"two join keys of {what} are mapped to one request column"
        problems.append(Problem("DUPLICATE_NAME", f"{path}.join_key_mapping", message))
    pinned = replace(entry, feature_view=str(view.ref), features=entry.features or known)
    return _Resolved(pinned, {entry.request_column(key): key_type for key, key_type in keys.items()}, fields)


def _request_columns(
    draft: Draft, view: RegisteredView | RegisteredOnDemandView
) -> tuple[str, Mapping[str, ValueType], Mapping[str, ValueType]]:
    """What is keyed, its join keys, and the request data that it may take."""
    if isinstance(view, RegisteredView):
        entity = draft.entity(view.definition.entity)
        assert entity, "a registered view has a registered entity"
        keys = {key.name: key.type for key in entity.definition.join_keys}
        return f"entity {entity.definition.name!r}", keys, {}
    plan = on_demand_plans(draft).plan_of(view)
    return f"on-demand view {str(view.ref)!r}", plan.keys, plan.request_fields


def _output_problems(entries: list[tuple[int, ServiceEntry]]) -> list[Problem]:
    problems = []
    seen: dict[str, str] = {}
    for index, entry, name in _outputs(entries):
        path = f"entries[{index}]"
        if len(name) > NAME_LENGTH_MAX:
            message = f"output name {name!r} is longer than {NAME_LENGTH_MAX} characters; shorten its prefix"
            problems.append(Problem("TOO_LONG", f"{path}.output_prefix", message))
        elif name in seen:
            message = (
                f"output name {name!r} stands twice, from {seen[name]} and {entry.feature_view}; "
                "give one of the entries another output_prefix"
            )
            problems.append(Problem("DUPLICATE_OUTPUT", f"{path}.output_prefix", message))
        seen.setdefault(name, entry.feature_view)
    if len(seen) > FEATURE_COUNT_MAX:
        message = f"the service has {len(seen)} features; at most {FEATURE_COUNT_MAX} are allowed: split it"
        problems.append(Problem("TOO_MANY", "entries", message))
    return problems[:_PROBLEMS_MAX]


def _outputs(entries: list[tuple[int, ServiceEntry]]) -> Iterator[tuple[int, ServiceEntry, str]]:
    for index, entry in entries:
        for feature in entry.features:
            yield index, entry, entry.output_prefix + feature


def _request_problems(resolved: list[tuple[int, _Resolved]]) -> list[Problem]:
    problems = []
    types: dict[str, ValueType] = {}
    for index, item in resolved:
        for column, key_type in item.key_types.items():
            if types.setdefault(column, key_type) != key_type:
                message = (
                    f"request column {column!r} would be {types[column]} for one entry and {key_type} for another; "
                    "map one of them to another name"
                )
                problems.append(Problem("WRONG_TYPE", f"entries[{index}].join_key_mapping", message))
    if len(types) > KEY_COLUMN_COUNT_MAX:
        message = f"the service is read by {len(types)} join key columns; at most {KEY_COLUMN_COUNT_MAX} are allowed"
        problems.append(Problem("TOO_MANY", "entries", f"{message}: split it"))
    return [*problems, *_field_problems(resolved, types)]


def _field_problems(resolved: list[tuple[int, _Resolved]], key_types: Mapping[str, ValueType]) -> list[Problem]:
    problems = []
    fields: dict[str, ValueType] = {}
    for index, item in resolved:
        for name, kind in item.fields.items():
            path = f"entries[{index}].feature_view"
            if fields.setdefault(name, kind) != kind:
                message = f"request field {name!r} would be {fields[name]} for one entry and {kind} for another"
                problems.append(Problem("WRONG_TYPE", path, f"{message}; read them by two services"))
            if name in key_types:
                message = f"request field {name!r} has the name of a join key column; map that key to another name"
                problems.append(Problem("RESERVED_NAME", path, message))
    if len(fields) > REQUEST_FIELD_COUNT_MAX:
        message = f"the service takes {len(fields)} request fields; at most {REQUEST_FIELD_COUNT_MAX} are allowed"
        problems.append(Problem("TOO_MANY", "entries", f"{message}: split it"))
    return problems


def _differences(old: FeatureService, new: FeatureService) -> list[str]:
    if old.entries == new.entries:
        return []
    before = {(entry.feature_view, entry.output_prefix) for entry in old.entries}
    after = {(entry.feature_view, entry.output_prefix) for entry in new.entries}
    return [
        *(f"entry {_entry(view, prefix)} is added" for view, prefix in sorted(after - before)),
        *(f"entry {_entry(view, prefix)} is removed" for view, prefix in sorted(before - after)),
    ] or ["features, join keys or order of its entries change"]


def _entry(view: str, prefix: str) -> str:
    return f"{view} as {prefix}*" if prefix else view


def _count(service: FeatureService) -> int:
    return sum(len(entry.features) for entry in service.entries)


_PROBLEMS_MAX: Final = 20  # reasons listed for one service; the first few tell what to do
