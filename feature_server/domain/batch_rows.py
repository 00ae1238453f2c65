"""Rows of computed views that a batch has made from the offline store, put in the place of what is stored."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core_ext.computed import MergedRow
from core_ext.hashing import SLOT_COUNT
from core_ext.row_codec import CorruptRowError, check_row
from core_ext.windows import CorruptMapError
from feature_server.domain.computed_layouts import ComputedLayout
from feature_server.domain.layouts import ViewLayout
from feature_server.domain.shard import Position
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.shard_writes import Deltas, Durability
from feature_server.domain.write_columns import encoded_keys
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.types import ValueType

ROW: Final = "_row"
ROWS_MAX: Final = 256  # of windows, handed to a shard at once


class BatchWrite:
    """One request under way: what was reached, and the rows that were left as they are."""

    def __init__(
        self, shards: ShardSet, target: ViewLayout, covered: Sequence[Position], durability: Durability
    ) -> None:
        assert target.computed is not None, "the caller has looked"
        if durability is Durability.MEMORY:
            raise InvalidArgument(
                "rows of a batch are compared when they are committed; ask for LOG or FSYNC",
                reason="DURABILITY_TOO_LOW",
                field="durability",
            )
        self._shards = shards
        self._target = target
        self._layout: ComputedLayout = target.computed
        self._covered = {one.shard: one for one in covered}
        self._durability = durability
        self.positions: list[Position] = []
        self.deferred: list[int] = []
        self.row_count = 0
        self.stale_count = 0

    def write(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Join keys and the column `_row`. Nothing is written where a row or a position fails a check."""
        checked, first = [], 0
        for batch in batches:
            slots, keys = self._keys(batch, first)
            shards = slots.astype(np.int64) * len(self._shards) // SLOT_COUNT
            checked.append((shards, keys, self._rows(batch, first)))
            first += batch.num_rows
        covered = {shard: self._offset(shard) for shards, *_ in checked for shard in np.unique(shards).tolist()}
        for shards, keys, rows in checked:
            for shard in np.unique(shards).tolist():
                chosen = np.flatnonzero(shards == shard)
                for start in range(0, len(chosen), ROWS_MAX):
                    self._append(shard, chosen[start : start + ROWS_MAX], keys, rows, covered[shard])
            self.row_count += len(rows)

    def _keys(self, batch: pa.RecordBatch, first: int) -> tuple[NDArray[np.uint16], list[bytes]]:
        entity = self._target.entity
        wanted = {name: ValueType(kind).arrow for name, kind in zip(entity.key_names, entity.key_scalars, strict=True)}
        for name, kind in {**wanted, ROW: pa.binary()}.items():
            index = batch.schema.get_field_index(name)
            if index < 0 or batch.schema.field(index).type != kind or batch.column(index).null_count:
                raise InvalidArgument(
                    f"column {name!r} is missing, has nulls or is not {kind}; send join keys and rows of the batch",
                    reason="BAD_BATCH_COLUMN",
                    field=name,
                    metadata={"column": name},
                )
        encoded = encoded_keys(self._target, [batch.column(name) for name in wanted], first)
        every = np.arange(batch.num_rows)
        return encoded.slots, encoded.storage_keys(entity.entity_id, self._target.view_id, every)

    def _rows(self, batch: pa.RecordBatch, first: int) -> list[bytes]:
        rows: list[bytes] = batch.column(ROW).to_pylist()
        for place, row in enumerate(rows):
            try:
                check_row(row, self._target.stored_schema)
                self._layout.view.check(row)
            except (CorruptRowError, CorruptMapError) as error:
                raise InvalidArgument(
                    f"row {first + place} is none of {self._target.ref}: {error}", reason="BAD_ROW", field=ROW
                ) from error
        return rows

    def _offset(self, shard: int) -> int:
        covered = self._covered.get(shard)
        if covered is None:
            raise InvalidArgument(
                f"covered names no position of shard {shard}: say up to where the rows have seen its log",
                reason="NO_POSITION",
                field="covered",
                metadata={"shard": str(shard)},
            )
        status = self._shards[shard].status()
        if covered.epoch != status.epoch or covered.offset > status.offset:
            raise FailedPrecondition(
                f"shard {shard} is in epoch {status.epoch} at {status.offset}, and the rows are said to cover epoch "
                f"{covered.epoch} up to {covered.offset}: it has restarted, so make them again",
                reason="EPOCH_MISMATCH",
                field="covered",
                metadata={"shard": str(shard), "shard_epoch": str(status.epoch)},
            )
        return covered.offset

    def _append(
        self, shard: int, chosen: NDArray[np.int64], keys: Sequence[bytes], rows: Sequence[bytes], covered: int
    ) -> None:
        own_keys = [keys[place] for place in chosen.tolist()]
        own_rows = [rows[place] for place in chosen.tolist()]
        places = {id(row): place for place, row in zip(chosen.tolist(), own_rows, strict=True)}
        deferred: set[int] = set()  # a commit that is tried again compares again

        def merge(stored: bytes | None, row: bytes, _offset: int) -> MergedRow:
            found = self._layout.view.replace(stored, row, covered)
            if found.is_deferred:
                deferred.add(places[id(row)])
            return MergedRow(found.row, 0, found.is_stale or found.is_deferred)

        deltas = Deltas(merge, len(own_keys), lambda *_: ((), ()))
        position, stale = self._shards[shard].append(
            own_keys, lambda *_: own_rows, self._durability, is_logged=False, deltas=deltas
        )
        self.positions.append(position)
        self.stale_count += stale - len(deferred)
        self.deferred += [self.row_count + place for place in sorted(deferred)]
