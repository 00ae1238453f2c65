"""Plans entities."""

from dataclasses import replace

from control_plane.domain.differences import common_differences
from control_plane.domain.draft import Draft
from control_plane.domain.verdicts import Verdict, created, incompatible, refused, unchanged, updated
from headrace.definitions.entities import Entity
from headrace.definitions.registered import RegisteredEntity


def plan_entity(draft: Draft, wanted: Entity) -> Verdict:
    """Decides about one entity. It has no versions, and its keys never change."""
    current = draft.entity(wanted.name)
    if current is None:
        draft.put(RegisteredEntity(wanted, draft.first_stamp(wanted.name), draft.take_id()))
        return created(0, f"entity with join keys {_keys(wanted)}")
    if current.definition.join_keys != wanted.join_keys:
        what = f"join keys change from {_keys(current.definition)} to {_keys(wanted)}"
        return refused(0, [incompatible("join_keys", what)])
    details = common_differences(current.definition, wanted)
    if not details:
        return unchanged(0)
    stamp = draft.touched_stamp(wanted.name, current.stamp)
    draft.put(replace(current, definition=wanted, stamp=stamp))
    return updated(0, details)


def _keys(entity: Entity) -> str:
    return ", ".join(f"{key.name} {key.type}" for key in entity.join_keys)
