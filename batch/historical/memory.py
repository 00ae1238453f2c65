"""How a join keeps its memory limit: rows of the spine held at once, parts on disk, bytes of a row group."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from batch.historical.inputs import HistoryInput
from headrace.errors import ResourceExhausted
from headrace.types import Scalar, ValueType

# Growth per spine row: hash slots (32 bytes at a load of at most a half: up to 128), keys and their ends (64), times,
# rows and entities (24), queries (32), sweeps of an ordered history (84) or matches of one that is not (176 in all),
# indexes and their order (48).
SPINE_ROW_BYTES: Final = 480
VARIABLE_BYTES: Final = 128  # what a value of variable size is taken to need, twice: gathered and ordered
CELL_BYTES: Final = 6  # null, status and slot of a value, and their Arrow form
FIXED_BYTES: Final = 96 << 20  # batches in flight of two workers, the writer's row group, Arrow's pool
ROWS_MIN: Final = 1_000  # fewer rows a part would read its history too often
WRITE_ROWS_MAX: Final = 1 << 17  # of one row group of the result
WRITE_BYTES_MAX: Final = 40 << 20  # of one as well: one is encoded while the one before it is written
PARTITIONS_MAX: Final = 128  # open files, twice
# Per event of a computed view: entity, group, times and order (60), joined from the parts of batches, so twice; sorted
# (24), and again for the states of one entity at a time (16). Its inputs are held twice as well.
EVENT_BYTES: Final = 160


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """`rows` of the spine are held at once; where they are not all, `partitions` lie on disk.

    `event_bytes` is what the events of a computed view may take beside them.
    """

    fits: bool
    rows: int
    partitions: int
    group_bytes: int
    write_rows: int
    peak_bytes: int
    event_bytes: int = 0


def plan(
    row_count: int, views: Sequence[HistoryInput], limit_bytes: int, event_counts: Sequence[int] = ()
) -> MemoryPlan:
    """Splits the limit. Raises ResourceExhausted naming the least that would do.

    `event_counts` are the rows of the histories, in the order of the views, once they are known.
    """
    widths = [_row_bytes(view) for view in views]
    events = max((width_of_event(view) * count for view, count in zip(views, event_counts, strict=False)), default=0)
    whole_row, split_row = SPINE_ROW_BYTES + sum(widths), SPINE_ROW_BYTES + max(widths)
    least = FIXED_BYTES + ROWS_MIN * (whole_row + split_row + 4 * max(map(width_of_event, views)))
    if limit_bytes < least:
        message = f"a memory limit of {limit_bytes} bytes is too small for these views: give at least {least}"
        raise ResourceExhausted(message, reason="MEMORY_LIMIT_TOO_SMALL", metadata={"least_bytes": str(least)})
    budget = limit_bytes - FIXED_BYTES
    write_rows = min(WRITE_ROWS_MAX, max(ROWS_MIN, WRITE_BYTES_MAX // max(1, sum(widths))))
    if row_count * whole_row + events <= budget:
        peak = FIXED_BYTES + row_count * whole_row + events
        return MemoryPlan(True, max(row_count, 1), 1, 16 << 20, write_rows, peak, events)
    event_bytes = budget // 4 if any(map(width_of_event, views)) else 0
    rows = max(ROWS_MIN, (budget // 2 - event_bytes) // split_row)
    partitions = 2
    while partitions < PARTITIONS_MAX and (partitions * rows < 2 * row_count or partitions * event_bytes < 2 * events):
        partitions *= 2
    group_bytes = min(16 << 20, budget // 4 // partitions // len(views))  # a result file of each is open at the end
    write_rows = min(write_rows, max(ROWS_MIN, budget // 6 // whole_row))  # three pieces are under way
    return MemoryPlan(False, int(rows), partitions, int(group_bytes), int(write_rows), limit_bytes, int(event_bytes))


def width_of_event(view: HistoryInput) -> int:
    """Bytes that one event of a view takes while its windows are computed; 0 where there are none."""
    if view.computation is None or view.computation.windows is None:
        return 0
    inputs = [one.program.result_type for one in view.computation.inputs]
    return EVENT_BYTES + sum(2 * (ValueType(Scalar(kind)).slot_bytes or VARIABLE_BYTES) for kind in inputs)


def _row_bytes(view: HistoryInput) -> int:
    """Bytes of a spine row for its values; computed ones are held once more before they are settled."""
    held = sum(_cell(column.type.slot_bytes) for column in view.columns)
    if view.computation is None:
        return held
    kinds = [kind for _, kind in view.computation.latest] + view.computation.window_types
    kinds += [ValueType(Scalar(one.program.result_type)) for one in view.computation.programs]
    return held + sum(_cell(kind.slot_bytes) for kind in kinds)


def _cell(slot_bytes: int) -> int:
    return (slot_bytes or 2 * VARIABLE_BYTES) + CELL_BYTES
