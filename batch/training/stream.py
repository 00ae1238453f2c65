"""A training set as a stream of Arrow batches: sharded, shuffled by a seed, resumable, in bounded memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from batch.historical.failures import refused
from batch.historical.tables import Chunk, ParquetRows

BATCH_ROWS: Final = 1_024
WINDOW_GROUPS: Final = 4  # row groups that are held and shuffled together
SHARDS_MAX: Final = 65_536


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How a set is gone through. `seed` None keeps the order of the rows; shard `shard` of `shard_count` is read."""

    batch_rows: int = BATCH_ROWS
    seed: int | None = None
    shard: int = 0
    shard_count: int = 1
    window_groups: int = WINDOW_GROUPS

    def __post_init__(self) -> None:
        if self.batch_rows < 1 or self.window_groups < 1:
            raise refused("OUT_OF_RANGE", "batch_rows", "and window_groups are 1 or more")
        if not 0 <= self.shard < self.shard_count <= SHARDS_MAX:
            raise refused("OUT_OF_RANGE", "shard", f"{self.shard} is none of {self.shard_count} shards")


class TrainingStream:
    """One pass after the other over the rows of a shard. Holds `window_groups` row groups of the file at once.

    Shards are row groups dealt out in turn, so that no row is in two. A pass has an order of its own, drawn from seed
    and number of the pass. `state` after a batch, given to `restore` of an equal stream, goes on with the next batch.
    """

    def __init__(self, files: Sequence[str], columns: Sequence[str] = (), plan: StreamPlan | None = None) -> None:
        self._plan = plan or StreamPlan()
        self._rows = ParquetRows(files, "training set")
        self._columns = list(columns) or self._rows.schema.names
        unknown = [name for name in self._columns if name not in self._rows.schema.names]
        if unknown:
            raise refused("MISSING_COLUMN", "columns", f"{unknown[0]!r} is no column of the training set")
        self._epoch = 0
        self._row = 0

    @property
    def schema(self) -> pa.Schema:
        """Columns of each batch."""
        return pa.schema([self._rows.schema.field(name) for name in self._columns])

    @property
    def row_count(self) -> int:
        """Rows of this shard in one pass."""
        return sum(chunk.row_count for chunk in self._dealt(0))

    @property
    def state(self) -> Mapping[str, Any]:  # Any: JSON values
        """Where the stream stands: pass and row, and the plan that it holds for."""
        return {"epoch": self._epoch, "row": self._row, "plan": self._told()}

    def restore(self, state: Mapping[str, Any]) -> None:  # Any: as above
        """Goes on where another stream stood; raises InvalidArgument for one of another plan or file."""
        if state.get("plan") != self._told():
            raise refused("OTHER_STREAM", "state", "is of another file, seed, shard or batch size")
        self._epoch, self._row = int(state["epoch"]), int(state["row"])

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The rest of the pass under way; the next call goes through the next one."""
        held: pa.Table | None = None
        for table in self._tables():
            held = table if held is None else pa.concat_tables([held, table])
            while held.num_rows >= self._plan.batch_rows:
                self._row += self._plan.batch_rows
                yield _batch(held.slice(0, self._plan.batch_rows))
                held = held.slice(self._plan.batch_rows)
        if held is not None and held.num_rows:
            self._row += held.num_rows
            yield _batch(held)
        self._epoch, self._row = self._epoch + 1, 0

    def _tables(self) -> Iterator[pa.Table]:
        """Windows of the pass from the row on where the stream stands."""
        chunks = self._dealt(self._epoch)
        at = 0
        for number, first in enumerate(range(0, len(chunks), self._plan.window_groups)):
            window = chunks[first : first + self._plan.window_groups]
            end = at + sum(chunk.row_count for chunk in window)
            if end > self._row:
                table = self._window(window, number)
                yield table.slice(max(0, self._row - at))
            at = end

    def _window(self, window: Sequence[Chunk], number: int) -> pa.Table:
        batches = [batch for chunk in window for batch in self._rows.read(chunk, self._columns)]
        table = pa.Table.from_batches([batch.select(self._columns) for batch in batches], self.schema)
        if self._plan.seed is None:
            return table
        random = np.random.default_rng([self._plan.seed, self._epoch, self._plan.shard, number])
        return table.take(pa.array(random.permutation(table.num_rows)))

    def _dealt(self, epoch: int) -> list[Chunk]:
        """Row groups of this shard, in the order of the pass."""
        chunks = self._rows.chunks[self._plan.shard :: self._plan.shard_count]
        if self._plan.seed is None:
            return list(chunks)
        random = np.random.default_rng([self._plan.seed, epoch, self._plan.shard])
        return [chunks[place] for place in random.permutation(len(chunks))]

    def _told(self) -> dict[str, Any]:  # Any: as above
        plan = self._plan
        return {
            "batch_rows": plan.batch_rows,
            "seed": plan.seed,
            "shard": plan.shard,
            "shard_count": plan.shard_count,
            "window_groups": plan.window_groups,
            "columns": self._columns,
            "rows": [chunk.row_count for chunk in self._rows.chunks],
        }


def _batch(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]
