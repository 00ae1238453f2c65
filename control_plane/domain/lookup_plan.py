"""Resolves the lookups of a view: what is registered now is pinned, and its columns stand beside the source's."""

from collections.abc import Callable
from dataclasses import replace

from control_plane.domain.dependencies import registered_cycle
from control_plane.domain.draft import Draft
from control_plane.domain.pinned import active_version
from control_plane.domain.verdicts import Problem
from headrace.definitions.enrichment import enriched, resolved
from headrace.definitions.entities import Entity
from headrace.definitions.registered import RegisteredView, select
from headrace.definitions.services import ServiceEntry
from headrace.definitions.sources import Source, SourceKind
from headrace.definitions.views import FeatureView
from headrace.errors import InvalidArgument
from headrace.names import VersionRef


def resolved_view(draft: Draft, wanted: FeatureView) -> tuple[FeatureView, list[Problem]]:
    """The view with every lookup pinned and named in full, or the view as it is and what is wrong with it."""
    problems: list[Problem] = []
    entries = [_pinned(draft, index, entry, problems) for index, entry in enumerate(wanted.lookups)]
    pinned = replace(wanted, lookups=entries)
    problems = problems or registered_cycle(pinned, lambda ref: _looked_up_by(draft, ref))
    if problems:
        return wanted, problems
    try:
        return resolved(pinned, finder(draft), lambda name: _entity(draft, name)), []
    except InvalidArgument as error:
        return wanted, [Problem(error.reason, error.field, error.message)]


def enriched_source(draft: Draft, view: FeatureView, entity: Entity, source: Source) -> Source:
    """What a resolved view computes from. Raises InvalidArgument where its columns do not fit together."""
    return enriched(view, entity, source, finder(draft), lambda name: _entity(draft, name))


def finder(draft: Draft) -> Callable[[VersionRef], RegisteredView | None]:
    """Finds view versions of a draft."""
    return lambda ref: select(draft.views(ref.name), ref.version)


def _pinned(draft: Draft, index: int, entry: ServiceEntry, problems: list[Problem]) -> ServiceEntry:
    path = f"lookups[{index}]"
    record = active_version(draft, path, entry, problems)
    if record is None:
        return entry
    if not isinstance(record, RegisteredView):
        message = f"{record.ref} is an on-demand view, which stores no rows to look up; name the views that it reads"
        problems.append(Problem("WRONG_KIND", f"{path}.feature_view", message))
    elif (source := draft.source(record.definition.source)) and source.definition.kind is SourceKind.STREAM:
        message = (
            f"{record.ref} is fed by a stream, whose rows keep the times of their events: when each became known here "
            "is not kept, which a lookup goes by; look up a view that is written"
        )
        problems.append(Problem("LOOKUP_OF_STREAM", f"{path}.feature_view", message))
    return replace(entry, feature_view=str(record.ref))


def _looked_up_by(draft: Draft, ref: VersionRef) -> list[VersionRef]:
    record = finder(draft)(ref)
    return [entry.view for entry in record.definition.lookups] if record else []


def _entity(draft: Draft, name: str) -> Entity:
    record = draft.entity(name)
    assert record, "a registered view has a registered entity"
    return record.definition
