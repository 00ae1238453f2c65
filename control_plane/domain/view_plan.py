"""Plans feature views."""

from collections.abc import Sequence
from dataclasses import replace

from control_plane.domain.differences import (
    counted,
    function_text,
    lookup_text,
    view_frozen_differences,
    view_mutable_differences,
)
from control_plane.domain.draft import Draft
from control_plane.domain.lookup_plan import enriched_source, resolved_view
from control_plane.domain.pinned import unknown
from control_plane.domain.verdicts import Problem, Verdict, created, incompatible, refused, renewed, unchanged, updated
from core_ext.window_plan import PlanError, expected_bytes, plan_windows
from headrace.definitions.checks import suggestion
from headrace.definitions.entities import Entity
from headrace.definitions.layout import ROW_BYTES_MAX
from headrace.definitions.plans import ViewPlan, compile_plan
from headrace.definitions.registered import RegisteredView, State, select
from headrace.definitions.sources import Source, SourceKind
from headrace.definitions.transform import view_digest
from headrace.definitions.transforms import Latest
from headrace.definitions.views import Fallback, Feature, FeatureView
from headrace.errors import InvalidArgument


def plan_view(draft: Draft, wanted: FeatureView) -> Verdict:
    """Decides about one view: a compatible change of frozen parts makes the next version beside those before."""
    versions = draft.views(wanted.name)
    wanted, problems = resolved_view(draft, wanted)
    problems = [*(problems or _reference_problems(draft, wanted)), *_incompatibilities(versions, wanted)]
    if problems:
        return refused(len(versions), problems)
    if not versions:
        stamp = draft.first_stamp(wanted.name)
        _put_version(draft, RegisteredView(wanted, stamp, 1, State.ACTIVE, 0, 0, b""))
        return created(1, _summary(wanted), *_function_notes(wanted), *_warnings(wanted))
    newest = select(versions, 0)
    frozen = view_frozen_differences(newest.definition, wanted) if newest else ["every earlier version is retired"]
    if newest and not frozen and _digest(draft, wanted) != newest.transform_digest:
        frozen = ["the kernel or the time-zone data computes it otherwise than when it was registered"]
    mutable = view_mutable_differences([view.definition for view in versions], wanted)
    if mutable:
        versions = _touch(draft, versions, wanted)
    if frozen:
        number = versions[-1].version + 1
        stamp = draft.next_stamp(versions[-1].stamp)
        _put_version(draft, RegisteredView(wanted, stamp, number, State.ACTIVE, 0, 0, b""))
        return renewed(number, [*frozen, *mutable, *_warnings(wanted)])
    return updated(versions[-1].version, mutable) if mutable else unchanged(newest.version if newest else 0)


def _summary(view: FeatureView) -> str:
    looked = f", looking up {', '.join(map(lookup_text, view.lookups))}" if view.lookups else ""
    return f"{counted(len(view.features), 'feature')} of {view.entity} from {view.source}{looked}"


def _function_notes(view: FeatureView) -> list[str]:
    return [f"function {function_text(function)}" for function in view.functions]


def _warnings(view: FeatureView) -> list[str]:
    has_default = any(feature.default is not None for feature in view.features)
    if has_default and view.fallback is Fallback.NONE:
        return ["defaults are given and fallback is none, so no default is served"]
    return []


def _put_version(draft: Draft, view: RegisteredView) -> None:
    digest = _digest(draft, view.definition)
    view_id = draft.take_id()
    draft.put(replace(view, view_id=view_id, schema_id=draft.take_id(), transform_digest=digest))


def _digest(draft: Draft, view: FeatureView) -> bytes:
    entity, source = draft.entity(view.entity), draft.source(view.source)
    assert entity and source, "references were checked"
    return view_digest(view, entity.definition, enriched_source(draft, view, entity.definition, source.definition))


def _touch(draft: Draft, versions: Sequence[RegisteredView], wanted: FeatureView) -> list[RegisteredView]:
    """Gives every version the mutable parts: they belong to the name."""
    touched = []
    for view in versions:
        definition = replace(
            view.definition,
            owner=wanted.owner,
            description=wanted.description,
            tags=wanted.tags,
            freshness_sla=wanted.freshness_sla,
            features=[_described(feature, wanted.feature(feature.name)) for feature in view.definition.features],
        )
        stamp = draft.touched_stamp(wanted.name, view.stamp)
        touched.append(replace(view, definition=definition, stamp=stamp))
        draft.put(touched[-1])
    return touched


def _described(feature: Feature, wanted: Feature | None) -> Feature:
    return feature if wanted is None else replace(feature, description=wanted.description)


def _incompatibilities(versions: Sequence[RegisteredView], wanted: FeatureView) -> list[Problem]:
    if not versions:
        return []
    old = (select(versions, 0) or versions[-1]).definition
    problems = []
    if old.entity != wanted.entity:
        problems.append(incompatible("entity", f"entity changes from {old.entity!r} to {wanted.entity!r}"))
    for feature in old.features:
        if wanted.feature(feature.name) is None:
            problems.append(incompatible("features", f"feature {feature.name!r} is removed"))
    types = {feature.name: (feature.type, view) for view in versions for feature in view.definition.features}
    for index, feature in enumerate(wanted.features):
        before, view = types.get(feature.name, (feature.type, versions[-1]))
        if before != feature.type:
            what = f"type of feature {feature.name!r} changes from {before} in {view.ref} to {feature.type}"
            problems.append(incompatible(f"features[{index}].type", what))
    return problems


def _reference_problems(draft: Draft, wanted: FeatureView) -> list[Problem]:
    entity, source = draft.entity(wanted.entity), draft.source(wanted.source)
    problems = []
    if entity is None:
        problems.append(unknown(draft, "entity", wanted.entity, "entity"))
    else:
        problems.extend(_key_problems(entity.definition, wanted))
    if source is None:
        problems.append(_unknown_source(draft, wanted))
    elif wanted.functions and source.definition.kind is SourceKind.STREAM:
        message = (
            f"source {source.definition.name!r} is a stream, whose events no Python function is run over yet; "
            "write them to a push source, or compute the column by an expression"
        )
        problems.append(Problem("FUNCTIONS_OF_STREAM", "functions", message))
    elif wanted.lookups and source.definition.kind is SourceKind.STREAM:
        message = (
            f"source {source.definition.name!r} is a stream, whose events look nothing up yet; "
            "write them to a push source, or compute the view without lookups"
        )
        problems.append(Problem("LOOKUPS_OF_STREAM", "lookups", message))
    if entity and source:
        problems.extend(_plan_problems(draft, wanted, entity.definition, source.definition, is_whole=not problems))
    return problems


def _unknown_source(draft: Draft, wanted: FeatureView) -> Problem:
    problem = unknown(draft, "source", wanted.source, "source")
    below = draft.views(wanted.source)
    if not below:
        return problem
    remedy = f"name its source {below[-1].definition.source!r} and look the features of the view up, by lookups"
    return replace(problem, message=f"{problem.message}: {remedy}")


def _plan_problems(
    draft: Draft, wanted: FeatureView, entity: Entity, registered: Source, *, is_whole: bool
) -> list[Problem]:
    """What keeps the view from being compiled over its source and what it looks up; `is_whole`: all else is well."""
    try:
        source = enriched_source(draft, wanted, entity, registered)
        problems = _column_problems(source, wanted)
        if problems or not is_whole:
            return problems
        return _window_problems(wanted, compile_plan(wanted, entity, source))
    except InvalidArgument as error:
        return [Problem(error.reason, error.field, error.message)]


def _window_problems(wanted: FeatureView, plan: ViewPlan) -> list[Problem]:
    """Windows that no tiles serve, or whose tiles would outgrow a row of a busy entity."""
    if not plan.windows:
        return []
    try:
        tiles = plan_windows(plan.windows, [int(one.type.scalar) for one in plan.inputs])
    except PlanError as error:
        names = [feature.name for feature in wanted.features]
        place = names.index(plan.window_names[error.feature]) if error.feature < len(plan.window_names) else 0
        return [Problem("WINDOWS_NOT_PLANNED", f"features[{place}].transform", f"{names[place]!r}: {error}")]
    row_bytes = expected_bytes(tiles)
    if row_bytes <= ROW_BYTES_MAX:
        return []
    message = (
        f"the windows of {wanted.name!r} need about {row_bytes:,} bytes for an entity with events in every tile, and a "
        f"row has at most {ROW_BYTES_MAX:,}: take longer hops, shorter windows, or more views"
    )
    return [Problem("ROW_TOO_LARGE", "features", message)]


def _key_problems(entity: Entity, wanted: FeatureView) -> list[Problem]:
    keys = {key.name for key in entity.join_keys}
    return [
        Problem(
            "RESERVED_NAME",
            f"features[{index}].name",
            f"feature {feature.name!r} has the name of a join key of {entity.name!r}, and a write carries both; "
            "rename the feature",
        )
        for index, feature in enumerate(wanted.features)
        if feature.name in keys
    ]


def _column_problems(source: Source, wanted: FeatureView) -> list[Problem]:
    types = {column.name: column.type for column in source.columns}
    problems = []
    for index, feature in enumerate(wanted.features):
        if not isinstance(feature.transform, Latest):
            continue
        name = feature.transform.column
        if name not in types:
            message = f"feature {feature.name!r} reads column {name!r}, which source {source.name!r} does not have"
            problems.append(
                Problem("UNKNOWN_COLUMN", f"features[{index}].transform", message + suggestion(name, types))
            )
        elif types[name] != feature.type:
            message = f"feature {feature.name!r} is {feature.type}, and its column {name!r} is {types[name]}"
            problems.append(Problem("WRONG_TYPE", f"features[{index}].type", f"{message}; a type is never cast"))
    return problems
