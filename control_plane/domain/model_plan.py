"""Plans models."""

from dataclasses import replace

from control_plane.domain.differences import changed, common_differences
from control_plane.domain.draft import Draft
from control_plane.domain.pinned import unknown
from control_plane.domain.verdicts import Problem, Verdict, created, refused, renewed, unchanged, updated
from headrace.definitions.models import Model
from headrace.definitions.registered import RegisteredModel, State, select


def plan_model(draft: Draft, wanted: Model) -> Verdict:
    """Decides about one model: another pinned service version is a new version of the model."""
    versions = draft.models(wanted.name)
    problems = _pin_problems(draft, wanted)
    if problems:
        return refused(len(versions), problems)
    if not versions:
        draft.put(RegisteredModel(wanted, draft.first_stamp(wanted.name), 1, State.ACTIVE))
        return created(1, f"model that reads {wanted.feature_service}")
    newest = select(versions, 0)
    frozen = (
        changed("feature service", newest.definition.feature_service, wanted.feature_service)
        if newest
        else ["every earlier version is retired"]
    )
    mutable = common_differences(versions[-1].definition, wanted)
    if mutable:
        versions = _touch(draft, versions, wanted)
    if frozen:
        number = versions[-1].version + 1
        draft.put(RegisteredModel(wanted, draft.next_stamp(versions[-1].stamp), number, State.ACTIVE))
        return renewed(number, [*frozen, *mutable])
    return updated(versions[-1].version, mutable) if mutable else unchanged(newest.version if newest else 0)


def _touch(draft: Draft, versions: list[RegisteredModel], wanted: Model) -> list[RegisteredModel]:
    touched = []
    for model in versions:
        definition = replace(model.definition, owner=wanted.owner, description=wanted.description, tags=wanted.tags)
        stamp = draft.touched_stamp(wanted.name, model.stamp)
        touched.append(replace(model, definition=definition, stamp=stamp))
        draft.put(touched[-1])
    return touched


def _pin_problems(draft: Draft, wanted: Model) -> list[Problem]:
    ref = wanted.service
    versions = draft.services(ref.name)
    if not versions or ref.name in draft.refused:
        return [unknown(draft, "feature_service", ref.name, "feature service")]
    service = select(versions, ref.version)
    if service is None:
        message = f"{ref} is not registered; its newest is v{versions[-1].version}"
        return [Problem("UNKNOWN_REFERENCE", "feature_service", message)]
    if service.state is not State.ACTIVE:
        return [Problem("RETIRED_REFERENCE", "feature_service", f"{ref} is retired; pin an active version")]
    return []
