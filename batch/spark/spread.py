"""The first stage of a job: each task reads some chunks of an input once, and writes its rows by slot range."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from batch.historical.checks import keys_of, match_keys, order_of, times_of
from batch.historical.chunks import ChunkReader
from batch.historical.inputs import HistoryInput, KeyColumn
from batch.spark.columns import TIME, Types, converted, history_types, match_types, row_bytes
from batch.spark.pieces import Piece, PieceWriter, flush_rows_of
from batch.spark.plan import Bundle, HistoricalPlan, History, bundles_of
from batch.spark.salt import by_product, by_slot
from batch.spark.sources import BundleRows, scan_of
from batch.spark.tasks import run_tasks
from core_ext.keys import KeyBatch
from headrace.types import ValueType

ROW: Final = "__row"  # of its bundle
_ROW_FIELD: Final = pa.field(ROW, pa.uint32(), nullable=False)


@dataclass(frozen=True, slots=True)
class Spreading:
    """What the tasks of one input share. `types` are the columns that travel, `key_names` those of the input.

    Where there is a view, what orders its rows is checked as they are read. By slot the groups are ranges of slots;
    else keys of one integer have groups of their own.
    """

    stage: str
    folder: str
    what: str
    scan: bytes
    types: Types
    keys: tuple[KeyColumn, ...]
    key_names: tuple[str, ...]
    times: tuple[str, ...]
    groups: int
    memory_bytes: int
    view: HistoryInput | None = None
    is_by_slot: bool = True

    @property
    def schema(self) -> pa.Schema:
        """Of the pieces."""
        return pa.schema([*self.types, _ROW_FIELD])


def of_history(
    history: History, folder: str, groups: int, memory_bytes: int, *, is_whole: bool, is_by_slot: bool
) -> Spreading:
    """A history by its keys; whole, or only what decides which rows match."""
    view = history.carried.open()
    types = history_types(view) if is_whole else match_types(view)
    return Spreading(
        stage="history",
        folder=folder,
        what=f"history {view.name}",
        scan=scan_of(history.rows),
        types=types,
        keys=view.keys,
        key_names=tuple(key.history for key in view.keys),
        times=tuple(view.times()),
        groups=groups,
        memory_bytes=memory_bytes,
        view=history.view,
        is_by_slot=is_by_slot,
    )


def of_spine(plan: HistoricalPlan, view: HistoryInput, folder: str) -> Spreading:
    """The keys and times of the spine by the keys of a view."""
    types = {key.spine: ValueType(key.scalar).arrow for key in view.keys} | {plan.time_column: TIME}
    return Spreading(
        stage="spine",
        folder=folder,
        what="spine",
        scan=b"",
        types=tuple(types.items()),
        keys=view.keys,
        key_names=tuple(key.spine for key in view.keys),
        times=(plan.time_column,),
        groups=plan.groups,
        memory_bytes=plan.memory_bytes,
        is_by_slot=False,
    )


def run_spread(session: SparkSession, way: Spreading, bundles: Sequence[Bundle]) -> tuple[Piece, ...]:
    """A piece for each bundle, in their order."""
    return tuple(run_tasks(session, f"reads {way.what}", partial(spread, way), bundles))


def spread_history(session: SparkSession, way: Spreading, history: History) -> tuple[Piece, ...]:
    """All rows of a history."""
    return run_spread(session, way, bundles_of(history.rows.chunks))


def spread(way: Spreading, bundle: Bundle) -> Piece:
    """Writes the rows of a bundle by slot range."""
    rows = BundleRows(bundle, way.scan, _read_types(way), way.what)
    names = [name for name, _ in way.types]
    flush_rows = flush_rows_of(way.groups, row_bytes(way.types), way.memory_bytes)
    reader = ChunkReader(reuses_memory=False)
    with PieceWriter(way.folder, way.stage, way.schema, way.groups, flush_rows) as writer:
        for chunk in rows.chunks:
            at = chunk.first_row
            for batch in rows.read(chunk, names, reader):
                _check_order(batch, way)
                arrays = [_column(batch, name, kind, way) for name, kind in way.types]
                numbers = pa.array(np.arange(at, at + batch.num_rows, dtype=np.uint32))
                part = pa.RecordBatch.from_arrays([*arrays, numbers], schema=way.schema)
                writer.add(part, _groups(batch, way))
                at += batch.num_rows
    return Piece(writer.uri, bundle.first_row)


def _groups(batch: pa.RecordBatch, way: Spreading) -> NDArray[np.uint32]:
    if way.is_by_slot:
        return by_slot(keys_of(batch, way.key_names, way.keys, way.what), way.groups)
    found = match_keys(batch, way.key_names, way.keys, way.what)
    return by_slot(found, way.groups) if isinstance(found, KeyBatch) else by_product(found, way.groups)


def _read_types(way: Spreading) -> Types:
    """Times are converted where a refusal can name them."""
    return tuple((name, kind) for name, kind in way.types if name not in way.times)


def _check_order(batch: pa.RecordBatch, way: Spreading) -> None:
    if way.view is not None and way.view.order():
        order_of(batch, way.view)


def _column(batch: pa.RecordBatch, name: str, kind: pa.DataType, way: Spreading) -> pa.Array:
    if name in way.times:
        return pa.array(times_of(batch, name, way.what)).cast(TIME)
    return converted(batch.column(name), kind)
