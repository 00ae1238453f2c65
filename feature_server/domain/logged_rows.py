"""Rows that every copy of a shard makes of one place of its log, the same wherever and whenever it is made."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core_ext.computed import MergedRow
from core_ext.keys import storage_key
from core_ext.row_codec import CorruptRowError, check_row, encode_tombstone
from core_ext.windows import CorruptMapError
from feature_server.domain.layouts import ViewLayout
from feature_server.domain.log_writes import Merge
from feature_server.domain.write_columns import encode_batch
from feature_server.domain.write_events import DeltaRows, encode_events, stamped_rows
from headrace.definitions.lookups import Lookup
from headrace.errors import FailedPrecondition

# Times were judged by the clock of who took the write: judged again, copies could differ.
ANY_TIME_US: Final = 1 << 62


class Place(NamedTuple):
    """Where rows stand in the total order: the write time of each, and the rest of it with the offset of the first."""

    write_us: NDArray[np.int64]
    source_id: int
    partition: int
    first_offset: int


class MadeRows(NamedTuple):
    """Storage keys, rows, and how one is put together with what is stored, None where the greater one stays."""

    keys: Sequence[bytes]
    rows: Sequence[bytes]
    merge: Merge | None = None


class Outgrown:
    """Counts what was left out because an entity has outgrown its row: the same events at every copy."""

    def __init__(self) -> None:
        self.count = 0


def view_rows(view: ViewLayout, batch: pa.RecordBatch, place: Place, outgrown: Outgrown) -> MadeRows:
    """Rows of a batch with the columns of a write of the view.

    Raises InvalidArgument for a batch that is none, or whose events alone are too large for a row.
    """
    if view.computed is not None:
        return _delta_rows(view, batch, place, outgrown)
    (part,) = encode_batch(batch, view, ANY_TIME_US)
    every = np.arange(part.row_count)
    offsets = np.arange(place.first_offset, place.first_offset + part.row_count)
    rows = stamped_rows(part.rows, every, place.write_us, place.source_id, place.partition, offsets)
    return MadeRows(part.keys.storage_keys(view.entity.entity_id, view.view_id, every), rows)


def check_logged(view: ViewLayout) -> None:
    """Raises where rows of a view cannot be made at every copy alike."""
    if view.computed is not None and view.computed.lookups:
        raise FailedPrecondition(
            f"feature view {view.ref} looks up other entities, whose rows lie on other servers of the ring; write its "
            "events to a server without a ring",
            reason="RING_LOOKUPS",
            field="feature_view",
            metadata={"feature_view": view.ref},
        )


def erased_rows(view: ViewLayout, keys: Sequence[bytes], place: Place) -> MadeRows:
    """Tombstones of entities by their encoded keys. They come after every row that is stored."""
    schema_id = view.schema.schema_id
    stored_keys = [storage_key(view.entity.entity_id, key, view.view_id) for key in keys]
    write_us = place.write_us.tolist()
    rows = [
        encode_tombstone(schema_id, at_us, at_us, place.source_id, place.partition, place.first_offset + number)
        for number, at_us in enumerate(write_us)
    ]

    def merge(held: bytes | None, row: bytes) -> MergedRow:
        if held is not None:
            mine, newest_us = check_row(row), check_row(held).event_time_us
            if newest_us >= mine.event_time_us:
                order = mine.write_time_us, place.source_id, place.partition, mine.offset
                row = encode_tombstone(schema_id, newest_us + 1, *order)
        return MergedRow(row, 0, False)

    return MadeRows(stored_keys, rows, merge)


def _delta_rows(view: ViewLayout, batch: pa.RecordBatch, place: Place, outgrown: Outgrown) -> MadeRows:
    assert view.computed is not None, "the caller has looked"
    (part,) = encode_events(batch, view, view.computed, ANY_TIME_US, _no_lookup)
    every = np.arange(len(part.places))
    if not len(every):
        return MadeRows((), ())
    keys = part.keys.storage_keys(view.entity.entity_id, view.view_id, every)
    deltas = DeltaRows(part, every, keys, place.write_us[part.places])
    rows = deltas.stamped(0, place.source_id, place.partition, place.first_offset)
    last_offset = place.first_offset + deltas.event_count - 1

    def merge(held: bytes | None, row: bytes) -> MergedRow:
        try:
            return deltas.merge(held, row, last_offset)
        except (CorruptRowError, CorruptMapError):
            raise
        except ValueError:  # the row would be too large; refused whole, it would hold up the log
            outgrown.count += 1
            return MergedRow(held or row, 0, True)

    return MadeRows(deltas.keys, rows, merge)


def _no_lookup(lookup: Lookup, *_: object) -> Mapping[str, pa.Array]:
    raise AssertionError(f"views that look {lookup.entry.feature_view} up are refused before they reach a log")
