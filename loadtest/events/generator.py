"""Events of a shape in the order of their arrival: `Generator(Shape.CLICKS, seed=1).batch(1_000)`.

Keys follow a power law, event times run at a rate, a share of events arrives late and a share twice. Equal arguments
give equal events, whatever the sizes of the batches that they are asked in: each BLOCK of them has a seed of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.types import parse_type
from loadtest.events.shapes import COLUMNS, NEWSFEED_ITEMS, TEXT_KEYS, Shape

BLOCK: Final = 4_096
START_US: Final = 1_760_000_000_000_000
SKEW: Final = 1.1  # of the power law: of 100,000 users the busiest has one event in nine
LATE_US_MAX: Final = 3_600_000_000
_UTC: Final = pa.timestamp("us", tz="UTC")
_TEXTS: Final = {
    "page": ("home", "search", "item", "basket", "größe"),
    "currency": ("EUR", "USD", "JPY"),
    "firmware": ("1.0", "1.1", "2.0-β"),
}


@dataclass(slots=True)
class Generator:
    """One stream. `rate` is events per second of event time; shares are parts of 1."""

    shape: Shape
    seed: int
    rate: float = 1_000.0
    late_share: float = 0.02
    duplicate_share: float = 0.01
    start_us: int = START_US
    key_counts: dict[str, int] = field(default_factory=dict)
    _block: int = 0
    _held: list[pa.RecordBatch] = field(default_factory=list)

    def batch(self, count: int) -> pa.RecordBatch:
        """The next events."""
        held = sum(one.num_rows for one in self._held)
        while held < count:
            self._held.append(self._make(self._block))
            self._block += 1
            held += self._held[-1].num_rows
        whole = pa.concat_batches(self._held)
        self._held = [whole.slice(count)] if whole.num_rows > count else []
        return whole.slice(0, count)

    def batches(self, count: int, size: int) -> Iterator[pa.RecordBatch]:
        """`count` events in batches of a size."""
        for start in range(0, count, size):
            yield self.batch(min(size, count - start))

    def newsfeed(self, random: np.random.Generator) -> tuple[int, NDArray[np.int64]]:
        """Keys of one call: a user, and the items that are ranked for it."""
        user = int(self._keys(random, "user_id", 1)[0])
        return user, self._keys(random, "item_id", NEWSFEED_ITEMS)

    def _make(self, block: int) -> pa.RecordBatch:
        random = np.random.default_rng([self.seed, block])
        numbers = np.arange(block * BLOCK, (block + 1) * BLOCK)
        event_us = self.start_us + (numbers * 1_000_000 / self.rate).astype(np.int64)
        late = random.random(BLOCK) < self.late_share
        event_us = event_us - np.where(late, random.integers(1, LATE_US_MAX, BLOCK), 0)
        columns = {"event_time": pa.array(event_us, _UTC)}
        for name, kind in COLUMNS[self.shape].types.items():
            columns[name] = self._column(random, name, kind)
        made = pa.RecordBatch.from_pydict(columns)
        twice = random.random(BLOCK) < self.duplicate_share
        order = np.sort(np.concatenate([np.arange(BLOCK), np.flatnonzero(twice)]))
        return made.take(pa.array(order))

    def _column(self, random: np.random.Generator, name: str, kind: str) -> pa.Array:
        if name in COLUMNS[self.shape].keys:
            keys = self._keys(random, name, BLOCK)
            return pa.array([f"m{key}" for key in keys.tolist()]) if name in TEXT_KEYS else pa.array(keys)
        if name in _TEXTS:
            return pa.array(np.array(_TEXTS[name], object)[random.integers(0, len(_TEXTS[name]), BLOCK)], pa.string())
        if kind == "bool":
            return pa.array(random.random(BLOCK) < 0.1)
        if kind in {"i32", "i64"}:
            whole = np.exp(random.normal(6, 1.5, BLOCK)).astype(np.int64) % 1_000_000
            return pa.array(whole).cast(parse_type(kind).arrow)
        missing = random.random(BLOCK) < 0.05
        values = np.round(random.normal(20, 5, BLOCK), 3)
        return pa.array(values, pa.float64(), mask=missing).cast(parse_type(kind).arrow)

    def _keys(self, random: np.random.Generator, name: str, count: int) -> NDArray[np.int64]:
        key_count = self.key_counts.get(name, COLUMNS[self.shape].keys[name])
        ranks = np.arange(1, key_count + 1, dtype=np.float64) ** -SKEW
        ends = np.cumsum(ranks)
        found: NDArray[np.int64] = np.searchsorted(ends, random.random(count) * ends[-1]).astype(np.int64) + 1
        return found
