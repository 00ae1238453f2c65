"""Two layouts of the same rows side by side in scratch stores: bytes, and the CPU of hits, misses and writes."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core_ext.request_core import Plan, RequestCore
from core_ext.row_table import RowTable
from feature_server.storage.rocks import RocksStore
from feature_server.storage.rocks_options import SharedMemory, StoreBudget, shard_options
from headrace.errors import InternalError

ROUNDS: Final = 7  # the layouts take turns; figures are medians
TABLE_BYTES: Final = 512 << 20
SHARD_COUNT: Final = 1
TABLE_FILES: Final = "rocksdb.total-sst-files-size"


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows of one entity after another: their storage keys, and what a write of one view replaces."""

    plan: Plan
    keys: Sequence[Sequence[bytes]]
    rows: Sequence[Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Figures:
    """Bytes per entity and microseconds of CPU per entity."""

    row_count: int
    row_bytes: float
    memory_bytes: float
    disk_bytes: float
    hit_us: float
    """A read of one entity with its rows in the row table: request bytes to response bytes."""
    miss_us: float
    """Fetching the rows of one entity from RocksDB, blocks cached."""
    write_us: float
    """Replacing what holds one view's row: the stored one is read, the new one written without a sync."""
    write_bytes: float


class Trial:
    """One layout, built."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._layout = layout
        self._count = len(layout.keys)
        keys = [key for one in layout.keys for key in one]
        rows = [row for one in layout.rows for row in one]
        table = RowTable(TABLE_BYTES)
        if table.fill(keys, rows, table.ticket()) != len(rows):
            raise InternalError("the scratch table refused rows", reason="LAYOUT_TRIAL")
        self._core = RequestCore(table, SHARD_COUNT)
        self._core.publish([layout.plan], {}, 0)
        self._store = RocksStore(folder, shard_options(SharedMemory(StoreBudget()), SHARD_COUNT))
        self._store.write(keys, rows, sync=False)
        self._store.flush()
        self.row_count = len(layout.keys[0])
        self.row_bytes = sum(map(len, rows)) / self._count
        self.memory_bytes = table.stats()["used_bytes"] / self._count
        self.disk_bytes = self._store.number(TABLE_FILES) / self._count
        self.write_bytes = sum(len(one[0]) for one in layout.rows) / self._count

    def hit_us(self, requests: Sequence[bytes], read_us: int) -> float:
        """CPU of a read of one entity."""
        if not all(isinstance(self._core.serve(request, read_us), bytes) for request in requests):
            raise InternalError("the scratch table misses a row that it was given", reason="LAYOUT_TRIAL")
        return self._each(lambda number: self._core.serve(requests[number], read_us), len(requests))

    def miss_us(self) -> float:
        """CPU of fetching one entity's rows."""
        return self._each(lambda number: self._store.get_many(self._layout.keys[number]))

    def write_us(self) -> float:
        """CPU of replacing what holds the first view's row."""

        def replace(number: int) -> None:
            key, row = self._layout.keys[number][0], self._layout.rows[number][0]
            self._store.get_many([key])
            self._store.write([key], [row], sync=False)

        return self._each(replace)

    def close(self) -> None:
        self._store.close()

    def _each(self, act: Callable[[int], object], count: int | None = None) -> float:
        times = self._count if count is None else count
        began_ns = time.thread_time_ns()
        for number in range(times):
            act(number)
        return (time.thread_time_ns() - began_ns) / times / 1_000


def compare(
    folder: Path, layouts: Mapping[str, Layout], requests: Mapping[str, Sequence[bytes]], read_us: int
) -> dict[str, Figures]:
    """Figures of each layout by its name, from rounds in which they take turns."""
    trials: dict[str, Trial] = {}
    try:
        for name, layout in layouts.items():
            trials[name] = Trial(folder / name, layout)
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in trials}
        for _ in range(ROUNDS):
            for name, trial in trials.items():
                found[name].append((trial.hit_us(requests[name], read_us), trial.miss_us(), trial.write_us()))
        return {name: _figures(trials[name], rounds) for name, rounds in found.items()}
    finally:
        for trial in trials.values():
            trial.close()


def _figures(trial: Trial, rounds: Sequence[tuple[float, float, float]]) -> Figures:
    hit_us, miss_us, write_us = (statistics.median(column) for column in zip(*rounds, strict=True))
    return Figures(
        row_count=trial.row_count,
        row_bytes=trial.row_bytes,
        memory_bytes=trial.memory_bytes,
        disk_bytes=trial.disk_bytes,
        hit_us=hit_us,
        miss_us=miss_us,
        write_us=write_us,
        write_bytes=trial.write_bytes,
    )
