"""View versions of the registry by their internal ids, as log rows name them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from batch.offline.columns import ViewColumns
from core_ext.row_codec import Schema
from headrace.definitions.registered import Registered, RegisteredEntity, RegisteredView
from headrace.errors import Unavailable


@dataclass(frozen=True, slots=True)
class LoggedView:
    """How the rows of a view version lie in a log, and in its table."""

    columns: ViewColumns
    schema: Schema


class Views:
    """Looked up anew when an id is not known. `records` gives the entities and views of the registry."""

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
    entities = {record.ref.name: record.definition for record in records if isinstance(record, RegisteredEntity)}
    found = {}
    for record in records:
        if isinstance(record, RegisteredView):
            keys = entities[record.definition.entity].join_keys
            features = record.definition.features
            columns = ViewColumns(
                record.ref, [(key.name, key.type.scalar) for key in keys], [(item.name, item.type) for item in features]
            )
            types = [(int(item.type.scalar), int(item.type.shape), item.type.list_size) for item in features]
            found[record.view_id] = LoggedView(columns, Schema(record.schema_id, types))
    return found
