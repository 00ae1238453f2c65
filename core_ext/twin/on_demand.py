"""On-demand features in plain Python: the oracle of core_ext.on_demand and of its part of the request core."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from core_ext.twin import rules
from core_ext.twin.expressions import Program
from core_ext.twin.request_data import slot_bytes, slot_value, width_of

FROM_FEATURE, FROM_REQUEST, FROM_PROGRAM = 1, 2, 3
ON_DEMAND: Final = -1
RESPONSE_BYTES_MAX: Final = 64 << 20


@dataclass(frozen=True)
class OnDemandProgram:
    """One feature; sources as (FROM_…, place)."""

    program: Program
    sources: Sequence[tuple[int, int]]
    default: bytes | None
    fallback: int


@dataclass(frozen=True)
class OnDemand:
    """The same as core_ext.on_demand.OnDemand."""

    request_fields: Sequence[tuple[str, int]]
    programs: Sequence[OnDemandProgram]


@dataclass
class Cell:
    """One value with its status and event time; None is an empty slot."""

    value: Any  # by the type of its column
    status: int = rules.PRESENT
    event_time_us: int = 0


@dataclass
class Columns:
    """Cells of all rows: features that were gathered, request data, and results so far."""

    features: Sequence[Sequence[Cell]]
    requests: Sequence[Sequence[Cell]]
    results: list[list[Cell]] = field(default_factory=list)

    def cell(self, source: tuple[int, int], row: int) -> Cell:
        """The cell that a program reads."""
        where, place = source
        return {FROM_FEATURE: self.features, FROM_REQUEST: self.requests, FROM_PROGRAM: self.results}[where][place][row]


def compute(on_demand: OnDemand, columns: Columns, row_count: int) -> list[list[Cell]]:
    """Results of every program, in their order. Raises OverflowError where their texts outgrow an answer."""
    kept = 0
    for program in on_demand.programs:
        columns.results.append([_result(program, columns, row) for row in range(row_count)])
        if not width_of(program.program.result_type):
            kept += sum(_kept_bytes(program, cell) for cell in columns.results[-1])
        if kept > RESPONSE_BYTES_MAX:
            raise OverflowError
    return columns.results


def result_slot(program: OnDemandProgram, cell: Cell) -> bytes:
    """What the answer holds of a result."""
    scalar = program.program.result_type
    return bytes(width_of(scalar)) if cell.value is None else slot_bytes(scalar, cell.value)


def _kept_bytes(program: OnDemandProgram, cell: Cell) -> int:
    return 0 if cell.status & rules.DEFAULTED else len(result_slot(program, cell))


def _result(program: OnDemandProgram, columns: Columns, row: int) -> Cell:
    inputs = [columns.cell(source, row) for source in program.sources]
    value, _ = program.program.evaluate_row([cell.value for cell in inputs])
    status = _status(inputs, value)
    if status & rules.STATE_MASK == rules.UNAVAILABLE:
        value = None
    has_default = program.default is not None
    status, slot = rules.value_status(status, value is None, program.fallback, has_default, False)
    if slot == rules.SLOT_DEFAULT and program.default is not None:
        value = slot_value(program.program.result_type, program.default)
    times = [cell.event_time_us for cell in inputs if cell.event_time_us]
    return Cell(value, status, max(times, default=0))


def _status(inputs: Sequence[Cell], value: Any) -> int:  # Any: by the type of the result
    for cell in inputs:
        if cell.status & rules.STATE_MASK == rules.UNAVAILABLE:
            return rules.UNAVAILABLE | cell.status & rules.CAUSE_MASK
    stale = rules.STALE if any(cell.status & rules.STALE for cell in inputs) else 0
    empty = [cell.status for cell in inputs if cell.value is None] if value is None else []
    if any(status & rules.STATE_MASK == rules.EXPIRED for status in empty):
        return rules.EXPIRED | stale
    missing = [status for status in empty if status & rules.STATE_MASK == rules.MISSING]
    return (rules.MISSING | missing[0] & rules.CAUSE_MASK if missing else rules.PRESENT) | stale
