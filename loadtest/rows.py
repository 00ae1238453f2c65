"""Feature values and key popularity that every load test shares, computed from a seed alone."""

from typing import Final

import numpy as np
import numpy.typing as npt

SEED: Final = 20_131_231
ZIPF_EXPONENT: Final = 0.99  # the skew that YCSB calls zipfian
FEATURES_PER_VIEW: Final = 50
EVENT_TIME_US: Final = 1_760_000_000_000_000  # one instant in the past for every loaded row
VALUE_BITS: Final = 24  # a f32 holds integers up to 2**24 exactly

Keys = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]


def mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spreads 64-bit words over all bits (the finaliser of splitmix64)."""
    out = words + np.uint64(0x9E3779B97F4A7C15)
    out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return out ^ (out >> np.uint64(31))


def values(view_index: int, keys: Keys, feature_count: int = FEATURES_PER_VIEW, seed: int = SEED) -> Values:
    """One row of f32 in [0, 1) per key; any row can be computed again from its key alone."""
    with np.errstate(over="ignore"):
        rows = mix(keys.astype(np.uint64) + np.uint64(seed) * np.uint64(view_index * 2 + 1))
        cells = mix(rows[:, None] + np.arange(feature_count, dtype=np.uint64)[None, :])
    whole = (cells >> np.uint64(64 - VALUE_BITS)).astype(np.float32)
    return whole / np.float32(1 << VALUE_BITS)


class ZipfKeys:
    """Draws keys 0 to key_count - 1 with Zipf popularity; the popular ones are scattered over the key space."""

    def __init__(self, key_count: int, seed: int = SEED, exponent: float = ZIPF_EXPONENT) -> None:
        if key_count < 1:
            raise ValueError(f"key_count must be at least 1, and is {key_count}")
        self._random = np.random.default_rng(seed)
        weights = 1.0 / np.arange(1, key_count + 1, dtype=np.float64) ** exponent
        self._cumulative = np.cumsum(weights / weights.sum())
        self._keys = np.random.default_rng(SEED).permutation(key_count).astype(np.int64)

    def draw(self, count: int) -> Keys:
        """`count` keys, repeats included."""
        ranks = np.searchsorted(self._cumulative, self._random.random(count), side="right")
        return self._keys[np.minimum(ranks, len(self._keys) - 1)]

    def draw_distinct(self, count: int) -> Keys:
        """`count` different keys, as one batch of a ranking request holds them, in the order drawn."""
        if count > len(self._keys):
            raise ValueError(f"{count} different keys were asked for, and there are {len(self._keys)}")
        found: dict[int, None] = {}
        while len(found) < count:
            found.update(dict.fromkeys(self.draw(count * 2).tolist()))
        return np.fromiter(list(found)[:count], dtype=np.int64, count=count)
