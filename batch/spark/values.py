"""The third stage of a join: each task reads chunks of a history again, for the values of the rows that matched."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from batch.historical.gathered import Gathered
from batch.historical.inputs import HistoryInput
from batch.historical.view_join import gather_rows
from batch.spark.columns import Types
from batch.spark.computed import CarriedView
from batch.spark.matching import HITS, ORDINAL, part_of, silent
from batch.spark.pieces import Piece, PieceRows, Pieces, PieceWriter, flush_rows_of
from batch.spark.plan import Bundle, feature_bytes, rows_at_once
from batch.spark.sources import BundleRows
from batch.spark.spread import ROW


@dataclass(frozen=True, slots=True)
class Gathering:
    """What the tasks of one view share. `hits` lie by bundle."""

    carried: CarriedView
    hits: tuple[Piece, ...]
    scan: bytes
    part_rows: int
    part_count: int
    folder: str
    memory_bytes: int


def values_schema(view: HistoryInput) -> pa.Schema:
    """Ordinals and values; which column a value comes from is said by its place, as two features may share one."""
    fields = [pa.field(f"v{place}", column.type.arrow) for place, column in enumerate(view.columns)]
    return pa.schema([pa.field(ORDINAL, pa.int64()), *fields])


def gathered_values(way: Gathering, task: tuple[int, Bundle]) -> Piece:
    """Values of the matched rows of a bundle, by part of the result."""
    number, bundle = task
    view = way.carried.open()
    types: Types = tuple((name, kind.arrow) for name, kind in view.value_columns().items())
    schema = values_schema(view)
    flush_rows = flush_rows_of(way.part_count, feature_bytes(view), way.memory_bytes // 4)
    with PieceWriter(way.folder, "values", schema, way.part_count, flush_rows) as writer:
        hits = Pieces(way.hits, HITS).rows(number)
        rows = BundleRows(bundle, way.scan, types, f"history {view.name}") if hits.row_count else None
        for batch in _slices(hits, rows_at_once(view, way.memory_bytes)):
            assert rows is not None, "there are hits"
            ordinals = np.asarray(batch.column(ORDINAL))
            gathered = Gathered(view.columns, np.ones(batch.num_rows, np.bool_))
            gather_rows(rows, np.asarray(batch.column(ROW)).astype(np.int64), gathered, silent)
            arrays = [batch.column(ORDINAL), *(gathered.array(at) for at in range(gathered.column_count))]
            writer.add(pa.RecordBatch.from_arrays(arrays, schema=schema), part_of(ordinals, way.part_rows))
    return Piece(writer.uri)


def _slices(hits: PieceRows, limit: int) -> Iterator[pa.RecordBatch]:
    """The hits in as few batches as the memory lets: each reads the bundle anew."""
    held: list[pa.RecordBatch] = []
    count = 0
    for chunk in hits.chunks:
        batch = hits.batch(chunk)
        for start in range(0, batch.num_rows, limit):
            part = batch.slice(start, limit)
            if held and count + part.num_rows > limit:
                yield pa.concat_batches(held)
                held, count = [], 0
            held.append(part)
            count += part.num_rows
    if held:
        yield pa.concat_batches(held)
