"""The join of a computed view with a spine in memory: windows of its events, latest columns, and expressions."""

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.historical.computation import Computation, From
from batch.historical.events import EventReader, Wanted, groups_of
from batch.historical.gathered import Gathered, Looked
from batch.historical.inputs import FeatureColumn, HistoryInput
from batch.historical.memory import width_of_event
from batch.historical.parallel import WORKERS, Advance
from batch.historical.tables import Rows
from batch.historical.view_join import gather_rows, match
from core_ext import rules
from core_ext.arrow import arrow_column
from core_ext.asof import Spine
from headrace.arrays import array_of
from headrace.computed import evaluated
from headrace.errors import ResourceExhausted
from headrace.types import Scalar, ValueType

EVENT_BYTES_AT_ONCE_MAX: Final = 1 << 30  # so that the texts of one column stay below what Arrow's offsets reach


def join_computed(
    spine: Spine, rows: Rows, view: HistoryInput, cutoff_us: int, advance: Advance, *, event_bytes_max: int
) -> list[Looked]:
    """Every feature of the view for every spine row, with about `event_bytes_max` of its events in memory at once."""
    computation = view.computation
    assert computation is not None, "the caller knows the view"
    indexes, row_statuses = match(spine, rows, view, cutoff_us, advance)
    arrays: dict[tuple[From, int], pa.Array] = {}
    columns = [FeatureColumn(name, kind) for name, kind in computation.latest]
    if columns:
        latest = Gathered(columns, indexes >= 0)
        gather_rows(rows, indexes, latest, advance)
        arrays |= {(From.LATEST, place): latest.array(place) for place in range(len(columns))}
    if computation.windows is not None:
        limit = min(event_bytes_max, EVENT_BYTES_AT_ONCE_MAX) // width_of_event(view)
        reader = EventReader(spine, rows, view, cutoff_us, advance)
        found = window_columns(spine, reader, computation, max(1, limit))
        arrays |= {(From.WINDOW, place): array for place, array in enumerate(found)}
    _derive(computation, arrays, len(spine))
    return _settled(view, computation, arrays, row_statuses)


def window_columns(spine: Spine, reader: EventReader, computation: Computation, event_count_max: int) -> list[pa.Array]:
    """The windows of the computation for every spine row."""
    entities, times_us = spine.entities()
    parts = reader.parts(event_count_max)
    order, found = [], []
    for wanted in parts:
        reads = np.flatnonzero((entities >= wanted.first) & (entities < wanted.end))
        order.append(reads)
        found.append(_history(reader, computation, wanted, reads, (entities[reads], times_us[reads])))
    if len(parts) == 1:
        return found[0]
    places = np.empty(len(entities), np.int64)
    places[np.concatenate([np.empty(0, np.int64), *order])] = np.arange(len(entities))
    kinds = [kind.arrow for kind in computation.window_types]
    return [
        pa.concat_arrays([pa.array([], kind), *(part[i] for part in found)]).take(pa.array(places))
        for i, kind in enumerate(kinds)
    ]


def _history(
    reader: EventReader,
    computation: Computation,
    wanted: Wanted,
    reads: NDArray[np.int64],
    asked: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> list[pa.Array]:
    assert computation.windows is not None, "the caller has looked"
    entities, times_us = asked
    events, erasures = reader.read(wanted)
    groups = groups_of(events, erasures, wanted, reads, entities)
    given = groups.events
    try:
        history = computation.windows.history(
            [arrow_column(column) for column in given.inputs],
            given.event_us,
            given.entities,
            times_us,
            groups.read_groups,
            groups.count,
            threads=WORKERS,
            **{name: column for name, column in given.order.items() if name != "tombstones"},
        )
    except OverflowError as error:
        raise ResourceExhausted(f"{error}; join fewer entity rows at once", reason="RESULT_TOO_LARGE") from error
    return [
        array_of(column, kind.arrow) for column, kind in zip(history.columns, computation.window_types, strict=True)
    ]


def _derive(computation: Computation, arrays: dict[tuple[From, int], pa.Array], row_count: int) -> None:
    for place, one in enumerate(computation.programs):
        read = {name: arrays[computation.places[name]] for name in one.columns}
        kind = ValueType(Scalar(one.program.result_type)).arrow
        arrays[From.DERIVED, place] = array_of(evaluated(one, read, row_count, "features"), kind)


def _settled(
    view: HistoryInput,
    computation: Computation,
    arrays: dict[tuple[From, int], pa.Array],
    row_statuses: NDArray[np.uint8],
) -> list[Looked]:
    # Windows have values although no row is stored, as the request core has it (hr_settle_value).
    is_missing = row_statuses & rules.STATE_MASK == rules.MISSING
    own = np.where(is_missing, np.uint8(rules.PRESENT), row_statuses)
    places = np.arange(len(row_statuses))
    gathered = Gathered(view.columns, np.ones(len(row_statuses), np.bool_))
    out = []
    for at, column in enumerate(view.columns):
        gathered.put(at, arrays[computation.places[column.name]], places, places)
        statuses = own if computation.is_computed(column.name) else row_statuses
        out.append(gathered.settled(at, statuses, view.fallback, view.include_expired))
    return out
