"""View versions of the registry by their internal ids, as log rows name them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from batch.offline.columns import ViewColumns
from core_ext.row_codec import Schema
from headrace.definitions.enrichment import source_of
from headrace.definitions.entities import Entity
from headrace.definitions.plans import compile_plan, event_columns
from headrace.definitions.registered import Registered, RegisteredView, registry_state
from headrace.definitions.sources import Source
from headrace.definitions.views import FeatureView
from headrace.errors import Unavailable
from headrace.types import ValueType


@dataclass(frozen=True, slots=True)
class LoggedView:
    """How the rows of a view version lie in a log, and in its table."""

    columns: ViewColumns
    schema: Schema


class Views:
    """Looked up anew when an id is not known. `records` gives the sources, entities and views of the registry."""

    def __init__(self, records: Callable[[], Iterable[Registered]]) -> None:
        self._records = records
        self._known: dict[int, LoggedView] = {}

    def view(self, view_id: int) -> LoggedView:
        """The view of an id; raises Unavailable where the registry does not know it yet."""
        if view_id not in self._known:
            self._known = logged_views(self._records())
        if view_id not in self._known:
            raise Unavailable(
                f"the registry has no view of id {view_id}, and rows of it wait; an older registry was restored: "
                "restore the newer one",
                reason="UNKNOWN_VIEW_ID",
                metadata={"view_id": str(view_id)},
            )
        return self._known[view_id]


def logged_views(records: Iterable[Registered]) -> dict[int, LoggedView]:
    """Every view version by its id, retired ones included: their erasures are rows as well."""
    records = list(records)
    state = registry_state(0, 0, records)
    found = {}
    for record in records:
        if isinstance(record, RegisteredView):
            entity = state.entities[record.definition.entity].definition
            source = source_of(record, state) if record.definition.source in state.sources else None
            logged = logged_columns(record.definition, entity, source)
            columns = ViewColumns(record.ref, [(key.name, key.type.scalar) for key in entity.join_keys], logged)
            types = [(int(kind.scalar), int(kind.shape), kind.list_size) for _, kind in logged]
            found[record.view_id] = LoggedView(columns, Schema(record.schema_id, types))
    return found


def logged_columns(view: FeatureView, entity: Entity, source: Source | None) -> list[tuple[str, ValueType]]:
    """What a row of the view's table holds: its features or, where they are computed, what they are computed from.

    Only computed views need their source. Raises ValueError where it is missing.
    """
    if view.is_plain:
        return [(feature.name, feature.type) for feature in view.features]
    if source is None:
        raise ValueError(f"the source of {view.name} is needed to know what it is computed from")
    types = {column.name: column.type for column in source.columns}
    return [(name, types[name]) for name in event_columns(compile_plan(view, entity, source), entity)]
