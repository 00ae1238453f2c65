"""Runs the Python functions of views over events, and measures what they cost."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from headrace.definitions.functions import ArrayFunction, Function
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.function_source import load_function
from headrace.types import Scalar, Shape, ValueType

MEASURED_ROWS: Final = 10_000  # of made-up values: long beside what a call costs, short beside a person's patience
MEASURED_ROUNDS: Final = 3
_NULL_SHARE: Final = 0.1
_DAYS_MAX: Final = 20_000


@dataclass(frozen=True, slots=True)
class LoadedFunction:
    """A function of a view, imported and of the source that the view pins; it takes columns of these types alone."""

    definition: Function
    call: ArrayFunction
    types: Mapping[str, ValueType]

    def column(self, events: Mapping[str, pa.Array], row_count: int, field: str = "arrow_ipc") -> pa.Array:
        """What it gives for events. Raises InvalidArgument where it fails, or gives another type or number of rows."""
        one = self.definition
        names = list(one.columns)
        # A column of times may come in any zone; a function sees UTC.
        columns = [events[name].cast(self.types[name].arrow) for name in names]
        batch = pa.RecordBatch.from_arrays(columns, names=names)
        try:
            found = self.call(batch)
        except Exception as error:  # whatever a function of a user does
            message = f"function {one.path!r} failed on these events: {type(error).__name__}: {str(error)[:200]}"
            raise self._failed(message, "FUNCTION_FAILED", field) from error
        if not isinstance(found, pa.Array):
            what = f"gave a {type(found).__name__}; it must return a pyarrow.Array"
        elif found.type != one.type.arrow:
            what = f"gave {found.type}, and {one.type} ({one.type.arrow}) is declared; cast it in the function"
        elif len(found) != row_count:
            what = f"gave {len(found)} values for {row_count} events; it must give one for each"
        else:
            try:
                found.validate(full=True)
            except pa.ArrowInvalid as error:
                message = f"function {one.path!r} gave an array that is damaged: {str(error)[:200]}"
                raise self._failed(message, "FUNCTION_RESULT", field) from error
            return found
        raise self._failed(f"function {one.path!r} {what}", "FUNCTION_RESULT", field)

    def _failed(self, message: str, reason: str, field: str) -> InvalidArgument:
        return InvalidArgument(message, reason=reason, field=field, metadata={"function": self.definition.path})


@dataclass(frozen=True, slots=True)
class Cost:
    """What a function costs on made-up values: microseconds a row, or why that is not known."""

    us_per_row: float | None
    note: str = ""


def loaded_functions(
    functions: Sequence[Function], types: Mapping[str, ValueType], allowed: Collection[str] | None
) -> tuple[LoadedFunction, ...]:
    """The functions of a view, imported from modules that may be, None for any, and tried on no events.

    Raises FailedPrecondition where one is not to be had, has another source, or gives another type.
    """
    modules = None if allowed is None else frozenset(allowed)
    found = []
    for one in functions:
        taken = {name: types[name] for name in one.columns}
        made = LoadedFunction(one, load_function(one.path, one.digest, modules), taken)
        try:
            made.column({name: pa.array([], kind.arrow) for name, kind in taken.items()}, 0, "functions")
        except InvalidArgument as error:
            raise FailedPrecondition(
                f"{error.message} (tried on 0 events)", reason=error.reason, field="functions", metadata=error.metadata
            ) from error
        found.append(made)
    return tuple(found)


def measured(function: LoadedFunction, seed: int = 0) -> Cost:
    """Cost of a function. Raises FailedPrecondition where it does not give each row its value by that row alone."""
    random = np.random.default_rng(seed)
    events = {name: made_up(kind, MEASURED_ROWS, random) for name, kind in function.types.items()}
    try:
        whole = function.column(events, MEASURED_ROWS)
        half = MEASURED_ROWS // 2 + 1
        first = function.column({name: column.slice(0, half) for name, column in events.items()}, half)
        rest = {name: column.slice(half) for name, column in events.items()}
        parts = [*first.to_pylist(), *function.column(rest, MEASURED_ROWS - half).to_pylist()]
        took_s = min(_seconds(function, events) for _ in range(MEASURED_ROUNDS))
    except InvalidArgument as error:
        return Cost(None, error.message)
    if repr(whole.to_pylist()) != repr(parts):
        path = function.definition.path
        raise FailedPrecondition(
            f"function {path!r} gives other values for the same events in one batch and in two: each value must come "
            "from its own row alone, and be the same each time",
            reason="NOT_ROW_BY_ROW",
            field="functions",
            metadata={"function": path},
        )
    return Cost(took_s / MEASURED_ROWS * 1e6)


def made_up(kind: ValueType, row_count: int, random: np.random.Generator) -> pa.Array:
    """Random values of a type, some of them null."""
    if kind.shape is Shape.SINGLE:
        return _single(kind.scalar, row_count, random)
    sizes = np.full(row_count, kind.list_size) if kind.shape is Shape.FIXED else random.integers(0, 5, row_count)
    items = _single(kind.scalar, int(sizes.sum()), random, nulls=False).to_pylist()
    ends = np.cumsum(sizes)
    return pa.array([items[end - size : end] for end, size in zip(ends, sizes, strict=True)], kind.arrow)


def _single(scalar: Scalar, count: int, random: np.random.Generator, *, nulls: bool = True) -> pa.Array:
    numbers = random.integers(-1_000, 1_000, count)
    values: dict[Scalar, Any] = {  # Any: arrays of several types
        Scalar.BOOL: lambda: numbers > 0,
        Scalar.F32: lambda: numbers / 8,
        Scalar.F64: lambda: numbers / 8,
        Scalar.STRING: lambda: [f"text {number}" for number in numbers],
        Scalar.BYTES: lambda: [f"bytes {number}".encode() for number in numbers],
        Scalar.DATE: lambda: random.integers(0, _DAYS_MAX, count).astype(np.int32),
        Scalar.TIMESTAMP_US: lambda: random.integers(0, _DAYS_MAX * 86_400_000_000, count),
    }
    kind = ValueType(scalar).arrow
    made = pa.array(values.get(scalar, lambda: numbers)())
    mask = random.random(count) < _NULL_SHARE if nulls else np.zeros(count, np.bool_)
    return made.cast(kind).take(pa.array(np.arange(count), mask=mask))


def _seconds(function: LoadedFunction, events: Mapping[str, pa.Array]) -> float:
    began = time.perf_counter()
    function.column(events, MEASURED_ROWS)
    return time.perf_counter() - began
