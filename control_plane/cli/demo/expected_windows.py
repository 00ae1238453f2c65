"""What plain NumPy says the windows of a key hold; imports nothing of Headrace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from control_plane.cli.demo.expected import MISSING, NULL, PRESENT

_BUCKET_BITS: Final = 47  # of a float64 below those that number its bucket: a thirty-second of each power of two

Value = float | int | None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One output over the events in (start, T]; start is T minus the window, rounded down to a hop."""

    output: str
    name: str
    column: str  # of the events; empty where rows are counted
    window_us: int
    hop_us: int
    quantile: float = 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """One output that is the quotient of two others of the same lookup."""

    output: str
    above: str
    below: str


@dataclass(frozen=True, slots=True)
class WindowLookup:
    """Outputs of one view for one key of the flight, from the events that the view takes.

    `times_us` are those of the events; `columns` hold floats, NaN for null.
    """

    keys: pd.DataFrame
    flight_keys: Sequence[str]
    times_us: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.float64]]
    outputs: Sequence[Aggregate | Share]


def window_values(
    flights: pd.DataFrame, read_us: int, written_us: int, lookups: Sequence[WindowLookup]
) -> dict[str, list[tuple[Value, int]]]:
    """Value and state by output name, one per flight, of a read at a time when events up to another were written."""
    found: dict[str, list[tuple[Value, int]]] = {}
    for lookup in lookups:
        groups = lookup.keys.groupby(list(lookup.keys.columns), sort=False).indices
        rows_of: dict[Any, NDArray[np.intp]] = {key: np.asarray(rows, np.intp) for key, rows in groups.items()}
        known: dict[Any, dict[str, tuple[Value, int]]] = {}  # Any: a key, or a tuple of keys
        for key in flights[list(lookup.flight_keys)].itertuples(index=False, name=None):
            if key not in known:
                known[key] = _of_key(key, rows_of, read_us, written_us, lookup)
            for output, value in known[key].items():
                found.setdefault(output, []).append(value)
    return found


def _of_key(
    key: tuple[Any, ...], rows_of: Mapping[Any, NDArray[np.intp]], read_us: int, written_us: int, lookup: WindowLookup
) -> dict[str, tuple[Value, int]]:
    if any(pd.isna(part) for part in key):
        return {one.output: (None, MISSING) for one in lookup.outputs}  # it names nobody
    rows = rows_of.get(key if len(key) > 1 else key[0], np.empty(0, np.intp))
    times_us = lookup.times_us[rows]
    values: dict[str, Value] = {}
    for one in lookup.outputs:
        if isinstance(one, Share):
            above, below = values[one.above], values[one.below]
            values[one.output] = above / below if above is not None and below else None
            continue
        start_us = (read_us - one.window_us) // one.hop_us * one.hop_us
        inside = rows[(start_us < times_us) & (times_us <= min(read_us, written_us))]
        taken = lookup.columns[one.column][inside] if one.column else np.zeros(len(inside))
        values[one.output] = _aggregate(one, taken[~np.isnan(taken)])
    return {output: (value, NULL if value is None else PRESENT) for output, value in values.items()}


def _aggregate(one: Aggregate, values: NDArray[np.float64]) -> Value:
    """Delays are whole minutes, so that sums and sums of squares are exact and each result is rounded once."""
    count = len(values)
    if one.name == "count":
        return count
    if one.name == "sum":
        return int(values.sum())
    if count == 0:
        return None
    match one.name:
        case "avg":
            return float(values.sum()) / count
        case "max":
            return float(values.max())
        case "stddev":
            if count == 1:
                return None
            return sqrt((count * float((values**2).sum()) - float(values.sum()) ** 2) / (count * (count - 1)))
        case "quantile":
            rank = max(-(-count * round(one.quantile * 100) // 100), 1)  # the smallest that so many hundredths reach
            return bucket_middle(float(np.sort(values)[rank - 1]))
    raise ValueError(f"NumPy is not asked for {one.name}")


def bucket_middle(value: float) -> float:
    """The middle of the bucket that a quantile is told to: within 1.6 % of the value, and 0 for 0."""
    if value == 0:
        return 0.0
    bits = int(np.abs(np.float64(value)).view(np.int64)) >> _BUCKET_BITS
    middle = float(np.int64((bits << _BUCKET_BITS) | (1 << (_BUCKET_BITS - 1))).view(np.float64))
    return middle if value > 0 else -middle
