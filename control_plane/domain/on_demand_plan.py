"""Plans on-demand views."""

from dataclasses import replace

from control_plane.domain.dependencies import registered_cycle
from control_plane.domain.differences import changed, common_differences, counted, feature_differences
from control_plane.domain.draft import Draft
from control_plane.domain.pinned import active_version
from control_plane.domain.verdicts import Problem, Verdict, created, incompatible, refused, renewed, unchanged, updated
from headrace.definitions.entities import Entity
from headrace.definitions.on_demand import OnDemandSource, OnDemandView
from headrace.definitions.on_demand_plans import OnDemandPlan, OnDemandPlans
from headrace.definitions.registered import RegisteredOnDemandView, RegisteredView, State, select
from headrace.definitions.services import ServiceEntry
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.names import VersionRef


def plan_on_demand_view(draft: Draft, wanted: OnDemandView) -> Verdict:
    """Decides about one on-demand view: its sources are resolved now and stored pinned."""
    versions = draft.on_demand_views(wanted.name)
    problems: list[Problem] = []
    pinned = replace(wanted, sources=[_pinned(draft, wanted, index, problems) for index in range(len(wanted.sources))])
    if not problems:
        problems = [*registered_cycle(pinned, lambda ref: _read_by(draft, ref)), *_incompatibilities(versions, wanted)]
    if problems:
        return refused(len(versions), problems)
    try:
        plan = on_demand_plans(draft).compile(pinned)
    except (InvalidArgument, FailedPrecondition) as error:
        return refused(len(versions), [Problem(error.reason, error.field, error.message)])
    return _decide(draft, versions, plan)


def on_demand_plans(draft: Draft) -> OnDemandPlans:
    """Compiles on-demand views over the versions of a draft."""
    return OnDemandPlans(lambda ref: _record(draft, ref), lambda name: _entity(draft, name))


def _pinned(draft: Draft, wanted: OnDemandView, index: int, problems: list[Problem]) -> OnDemandSource:
    source = wanted.sources[index]
    if not isinstance(source, ServiceEntry):
        return source
    record = active_version(draft, f"sources[{index}]", source, problems)
    return source if record is None else replace(source, feature_view=str(record.ref))


def _decide(draft: Draft, versions: list[RegisteredOnDemandView], plan: OnDemandPlan) -> Verdict:
    wanted = plan.view
    if not versions:
        stamp = draft.first_stamp(wanted.name)
        draft.put(RegisteredOnDemandView(wanted, stamp, 1, State.ACTIVE, plan.digest))
        return created(1, _summary(wanted))
    newest = select(versions, 0)
    frozen = _frozen_differences(newest.definition, wanted) if newest else ["every earlier version is retired"]
    if newest and not frozen and plan.digest != newest.transform_digest:
        frozen = ["the kernel or the time-zone data computes it otherwise than when it was registered"]
    mutable = _mutable_differences(versions, wanted)
    if mutable:
        versions = _touch(draft, versions, wanted)
    if frozen:
        number = versions[-1].version + 1
        stamp = draft.next_stamp(versions[-1].stamp)
        draft.put(RegisteredOnDemandView(wanted, stamp, number, State.ACTIVE, plan.digest))
        return renewed(number, [*frozen, *mutable])
    return updated(versions[-1].version, mutable) if mutable else unchanged(newest.version if newest else 0)


def _summary(view: OnDemandView) -> str:
    return f"{counted(len(view.features), 'feature')} over {', '.join(map(_source_text, view.sources))}"


def _source_text(source: OnDemandSource) -> str:
    if isinstance(source, ServiceEntry):
        return f"{source.feature_view} as {source.output_prefix}*" if source.output_prefix else source.feature_view
    return f"request {', '.join(f'{name} {kind}' for name, kind in source.fields.items())}"


def _frozen_differences(old: OnDemandView, new: OnDemandView) -> list[str]:
    before, after = list(map(_source_text, old.sources)), list(map(_source_text, new.sources))
    sources = [
        *(f"source {text} is added" for text in after if text not in before),
        *(f"source {text} is removed" for text in before if text not in after),
    ]
    if not sources and tuple(old.sources) != tuple(new.sources):
        sources = ["features, join keys or order of its sources change"]
    return [
        *sources,
        *changed("fallback", old.fallback.name.lower(), new.fallback.name.lower()),
        *feature_differences(old.features, new.features),
    ]


def _mutable_differences(versions: list[RegisteredOnDemandView], new: OnDemandView) -> list[str]:
    described = {item.name: item.description for view in versions for item in view.definition.features}
    return [
        *common_differences(versions[-1].definition, new),
        *(
            f"description of feature {feature.name!r} changes"
            for feature in new.features
            if feature.description != described.get(feature.name, feature.description)
        ),
    ]


def _touch(draft: Draft, versions: list[RegisteredOnDemandView], wanted: OnDemandView) -> list[RegisteredOnDemandView]:
    """Gives every version the mutable parts: they belong to the name."""
    texts = {feature.name: feature.description for feature in wanted.features}
    touched = []
    for view in versions:
        definition = replace(
            view.definition,
            owner=wanted.owner,
            description=wanted.description,
            tags=wanted.tags,
            features=[
                replace(feature, description=texts.get(feature.name, feature.description))
                for feature in view.definition.features
            ],
        )
        touched.append(replace(view, definition=definition, stamp=draft.touched_stamp(wanted.name, view.stamp)))
        draft.put(touched[-1])
    return touched


def _incompatibilities(versions: list[RegisteredOnDemandView], wanted: OnDemandView) -> list[Problem]:
    if not versions:
        return []
    old = (select(versions, 0) or versions[-1]).definition
    problems = [
        incompatible("features", f"feature {feature.name!r} is removed")
        for feature in old.features
        if wanted.feature(feature.name) is None
    ]
    types = {feature.name: (feature.type, view) for view in versions for feature in view.definition.features}
    for index, feature in enumerate(wanted.features):
        before, view = types.get(feature.name, (feature.type, versions[-1]))
        if before != feature.type:
            what = f"type of feature {feature.name!r} changes from {before} in {view.ref} to {feature.type}"
            problems.append(incompatible(f"features[{index}].type", what))
    return problems


def _record(draft: Draft, ref: VersionRef) -> RegisteredView | RegisteredOnDemandView | None:
    return select(draft.views(ref.name), ref.version) or select(draft.on_demand_views(ref.name), ref.version)


def _read_by(draft: Draft, ref: VersionRef) -> list[VersionRef]:
    record = _record(draft, ref)
    return [entry.view for entry in record.definition.entries] if isinstance(record, RegisteredOnDemandView) else []


def _entity(draft: Draft, name: str) -> Entity:
    record = draft.entity(name)
    assert record, "a registered view has a registered entity"
    return record.definition
