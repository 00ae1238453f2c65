"""Columns of a result under way: values in the order of the spine, then their statuses by the value rules."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.historical.checks import cast
from batch.historical.inputs import FeatureColumn, kind_of
from batch.historical.tables import Pick
from core_ext import rules
from core_ext.arrow import arrow_column
from core_ext.asof import gather, settle
from core_ext.pages import PLACES_MAX, Places
from headrace.types import Scalar, Shape, ValueType


@dataclass(frozen=True, slots=True)
class Looked:
    """One feature for every spine row."""

    values: pa.Array
    statuses: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What all columns share that have no default, and no null where a row was found.

    `withheld` are the rows that were found and whose slots are empty all the same.
    """

    statuses: NDArray[np.uint8]
    filled: NDArray[np.bool_]
    validity: pa.Buffer | None
    withheld: NDArray[np.int64]


class Gathered:
    """Values of some columns, one slot a spine row; threads write to different slots.

    `is_found` says which slots will be filled; the others stay null.
    """

    def __init__(self, columns: Sequence[FeatureColumn], is_found: NDArray[np.bool_]) -> None:
        row_count = len(is_found)
        self._columns = columns
        self.column_count = len(columns)
        self._row_count = row_count
        self._missing = (~is_found).view(np.uint8)
        nulls = np.empty((len(columns), row_count), np.uint8)
        nulls[:] = self._missing
        self._nulls = list(nulls)
        self._fixed = _zeros([row_count * column.type.slot_bytes for column in columns])
        self._parts: list[list[tuple[NDArray[np.int64], pa.Array]]] = [[] for _ in columns]

    def picks(self, row_count: int, sources: NDArray[np.int64], targets: NDArray[np.int64]) -> dict[int, Pick]:
        """What a chunk of some rows gives for the columns of fixed width, by their place."""
        if max(row_count, self._row_count) > PLACES_MAX:
            return {}
        places = Places(sources, targets, row_count, self._row_count)
        return {
            at: Pick(column.name, places, self._fixed[at], self._nulls[at])
            for at, column in enumerate(self._columns)
            if column.type.shape is Shape.SINGLE and column.type.element_bytes in (4, 8)
        }

    def names(self, places: Collection[int]) -> list[str]:
        """Columns of the history at some places, each once."""
        return list(dict.fromkeys(self._columns[at].name for at in places))

    def take(
        self, batch: pa.RecordBatch, places: Collection[int], sources: NDArray[np.int64], targets: NDArray[np.int64]
    ) -> None:
        """Values at `sources` of a batch for the spine rows `targets`, of the columns at some places."""
        for at in places:
            column = self._columns[at]
            self.put(at, cast(batch.column(column.name), column.type), sources, targets)

    def put(self, at: int, values: pa.Array, sources: NDArray[np.int64], targets: NDArray[np.int64]) -> None:
        """Values of one column, of its very type."""
        column = self._columns[at]
        if column.type.is_variable:
            part = values.take(pa.array(sources))
            self._nulls[at][targets] = np.asarray(part.is_null())
            self._parts[at].append((targets, part))
        else:
            gather(kind_of(column.type), arrow_column(values), sources, targets, self._fixed[at], self._nulls[at])

    def array(self, at: int) -> pa.Array:
        """The values of a column as they are."""
        column, nulls = self._columns[at], self._nulls[at]
        if not column.type.is_variable:
            return _fixed_array(column.type, self._fixed[at], nulls == 0, _validity(nulls == 0))
        return self._variable(at, column, None, np.where(nulls != 0, rules.SLOT_EMPTY, rules.SLOT_VALUE))

    def settlement(self, row_statuses: NDArray[np.uint8], fallback: int, include_expired: bool) -> Settlement:
        """What `settled` may be given for every column, so that the rules are applied once."""
        statuses, slots = settle(row_statuses, self._missing, fallback, None, include_expired)
        filled = slots != rules.SLOT_EMPTY
        return Settlement(statuses, filled, _validity(filled), np.flatnonzero(~filled & (self._missing == 0)))

    def settled(
        self,
        at: int,
        row_statuses: NDArray[np.uint8],
        fallback: int,
        include_expired: bool = False,
        *,
        shared: Settlement | None = None,
    ) -> Looked:
        """The column with its statuses, by the value rules; `shared` is that of these very statuses and rules."""
        column = self._columns[at]
        default = None if column.default is None else pa.array([column.default], column.type.arrow)
        nulls = self._nulls[at]
        if column.type.is_variable:
            mark = None if default is None else b""
            statuses, slots = settle(row_statuses, nulls, fallback, mark, include_expired)
            return Looked(self._variable(at, column, default, slots), statuses)
        values = self._fixed[at]
        if shared is not None and default is None and np.array_equal(nulls, self._missing):
            values.reshape(-1, column.type.slot_bytes)[shared.withheld] = 0
            return Looked(_fixed_array(column.type, values, shared.filled, shared.validity), shared.statuses)
        mark = None if default is None else _slot_of(default, column.type)
        statuses, slots = settle(row_statuses, nulls, fallback, mark, include_expired, values)
        filled = slots != rules.SLOT_EMPTY
        return Looked(_fixed_array(column.type, values, filled, _validity(filled)), statuses)

    def _variable(self, at: int, column: FeatureColumn, default: pa.Array | None, slots: NDArray[np.uint8]) -> pa.Array:
        parts = self._parts[at]
        places = np.zeros(self._row_count, np.int64)
        if parts:
            targets = np.concatenate([part[0] for part in parts])
            places[targets] = np.arange(len(targets))
        arrays = [part[1] for part in parts] + ([] if default is None else [default])
        stored = pa.concat_arrays(arrays or [pa.array([], column.type.arrow)])
        places[slots == rules.SLOT_DEFAULT] = len(stored) - 1
        return stored.take(pa.array(places, mask=slots == rules.SLOT_EMPTY))


def _zeros(sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Zeroed bytes of some sizes, in one piece: large ones get huge pages, which spare a fault each 4 KiB."""
    ends = np.cumsum([0, *(-(-size // 64) * 64 for size in sizes)])
    block = np.zeros(int(ends[-1]), np.uint8)
    return [block[at : at + size] for at, size in zip(ends[:-1], sizes, strict=True)]


def _slot_of(default: pa.Array, kind: ValueType) -> bytes:
    """Bytes of a default of fixed width."""
    values, nulls = np.zeros(kind.slot_bytes, np.uint8), np.zeros(1, np.uint8)
    gather(kind_of(kind), arrow_column(default), np.zeros(1, np.int64), np.zeros(1, np.int64), values, nulls)
    return values.tobytes()


def _validity(filled: NDArray[np.bool_]) -> pa.Buffer | None:
    """Validity bitmap of slots, None where all are filled."""
    return None if filled.all() else pa.py_buffer(np.packbits(filled, bitorder="little"))


def _fixed_array(
    kind: ValueType, values: NDArray[np.uint8], filled: NDArray[np.bool_], validity: pa.Buffer | None
) -> pa.Array:
    """Arrow array over the slots, without a copy unless they are booleans."""
    count = len(filled)
    empty_count = 0 if validity is None else -1  # counted when someone asks
    if kind.scalar is Scalar.BOOL:
        values = np.packbits(values, bitorder="little")
    data = pa.py_buffer(values)
    if kind.shape is not Shape.FIXED:
        return pa.Array.from_buffers(kind.arrow, count, [validity, data], empty_count)
    child = pa.Array.from_buffers(ValueType(kind.scalar).arrow, count * kind.list_size, [None, data], 0)
    return pa.Array.from_buffers(kind.arrow, count, [validity], empty_count, children=[child])
