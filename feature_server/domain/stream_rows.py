"""Events of a stream, put into a shard with the mark of how far the stream was taken."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_server.domain.layouts import ViewLayout
from feature_server.domain.shard import Shard
from feature_server.domain.shard_writes import Deltas, Durability
from feature_server.domain.write_columns import ENCODE_ROWS, EncodedRows, encode_batch
from feature_server.domain.write_events import DeltaRows, EncodedEvents, encode_events, stamped_rows
from headrace.definitions.lookups import Lookup

EVENTS_MAX: Final = ENCODE_ROWS


class Taken(NamedTuple):
    """What events of a stream bring along: the write time of each, their source, and records of how far it was read."""

    write_us: NDArray[np.int64]
    source_id: int
    records: Mapping[bytes, bytes]


def append_events(shard: Shard, target: ViewLayout, batch: pa.RecordBatch, taken: Taken, now_us: int) -> int:
    """Commits events of one shard and records in one batch; gives how many events were older than what is stored.

    The batch has the columns of a write of the view, at most EVENTS_MAX rows, all with keys of this shard. Rows carry
    the write times of their events, so that the same log leaves the same values whenever it is read; shard and offset
    in their order are those of the shard's own log, which feeds the offline store. Nothing is committed, the records
    neither, where the filter leaves no event.

    Raises InvalidArgument for an event that is none of the view, ResourceExhausted with ROW_TOO_LARGE where an entity
    outgrows its row, and what a shard raises that takes no writes.
    """
    assert batch.num_rows <= EVENTS_MAX, "one slice"
    if target.computed is None:
        (rows,) = encode_batch(batch, target, now_us)
        return _append_rows(shard, target, rows, taken)
    (events,) = encode_events(batch, target, target.computed, now_us, _no_lookup)
    return _append_deltas(shard, target, events, taken)


def _no_lookup(lookup: Lookup, *_: object) -> Mapping[str, pa.Array]:
    raise AssertionError(f"views of streams look nothing up, and one asks for {lookup.entry.feature_view}")


def _append_rows(shard: Shard, target: ViewLayout, part: EncodedRows, taken: Taken) -> int:
    count = part.row_count
    every = np.arange(count)
    keys = part.keys.storage_keys(target.entity.entity_id, target.view_id, every)

    def stamp(_: int, first_offset: int) -> list[bytes]:
        offsets = np.arange(first_offset, first_offset + count)
        return stamped_rows(part.rows, every, taken.write_us, taken.source_id, shard.number, offsets)

    is_logged = target.definition.offline
    return shard.append(keys, stamp, Durability.LOG, is_logged=is_logged, records=taken.records)[1]


def _append_deltas(shard: Shard, target: ViewLayout, part: EncodedEvents, taken: Taken) -> int:
    every = np.arange(len(part.places))
    if not len(every):
        return 0
    keys = part.keys.storage_keys(target.entity.entity_id, target.view_id, every)
    rows = DeltaRows(part, every, keys, taken.write_us[part.places])

    def stamp(write_time_us: int, first_offset: int) -> list[bytes]:
        return rows.stamped(write_time_us, taken.source_id, shard.number, first_offset)

    def logged(write_time_us: int, first_offset: int) -> tuple[Sequence[bytes], Sequence[bytes]]:
        return rows.logged(write_time_us, taken.source_id, shard.number, first_offset)

    deltas = Deltas(rows.merge, rows.event_count, logged)
    is_logged = target.definition.offline
    return shard.append(rows.keys, stamp, Durability.LOG, is_logged=is_logged, deltas=deltas, records=taken.records)[1]
