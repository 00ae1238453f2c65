"""Compiled expressions over Arrow columns; programs as native/hr_expression.h draws them."""

from collections.abc import Sequence
from typing import NamedTuple, final

from core_ext.arrow import ArrowColumn

class Faults(NamedTuple):
    """How many values became NULL, by cause; those of branches that were not taken do not count."""

    overflow: int
    zero_division: int
    cast: int
    domain: int
    time: int
    too_long: int

class Evaluation(NamedTuple):
    """The result column, its nulls and the faults."""

    column: ArrowColumn
    null_count: int
    faults: Faults

class CorruptProgramError(ValueError):
    """Bytes that are no program: the message says which check failed."""

@final
class Program:
    """A checked program. Immutable; any number of threads may evaluate it at once.

    Types are the numbers of headrace.types.Scalar.
    """

    @property
    def source(self) -> bytes: ...
    @property
    def result_type(self) -> int: ...
    @property
    def input_types(self) -> tuple[int, ...]: ...
    def __init__(self, source: bytes) -> None:
        """Raises CorruptProgramError."""

    def evaluate(self, columns: Sequence[ArrowColumn], row_count: int) -> Evaluation:
        """Result for `row_count` rows; columns in the order of the inputs. Releases the GIL for long ones.

        Raises ValueError naming the column where one is not of its type, and OverflowError where the text of a result
        exceeds 2 GiB: give fewer rows.
        """

    def evaluate_row(self, values: Sequence[object]) -> tuple[object, Faults]:
        """Result for one row of plain values: int (times in us, dates in days), float, str, bytes, bool or None."""
