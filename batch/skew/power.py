"""Measures the tests on data at hand: how often unchanged samples alarm, and how many rows find a fault."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batch.skew.drift import Drift, Limits, drift, judge
from batch.skew.statistics import Statistic, Test, compare
from batch.skew.summary import Summary, summarise, summarise_reference
from headrace.errors import InvalidArgument
from headrace.types import ValueType

FOUND_SHARE: Final = 0.95  # of the trials that must find a fault for a row count to be stated
SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)


@dataclass(frozen=True, slots=True)
class Population:
    """A column to draw samples from."""

    value_type: ValueType
    column: pa.Array


@dataclass(frozen=True, slots=True)
class Fault:
    """A served column beside the true one, row by row."""

    name: str
    value_type: ValueType
    truth: pa.Array
    served: pa.Array

    def __post_init__(self) -> None:
        if len(self.truth) != len(self.served) or len(self.truth) == 0:
            raise InvalidArgument(
                f"fault {self.name} has {len(self.truth)} true and {len(self.served)} served rows; give equal counts",
                reason="OTHER_LENGTH",
                field="served",
            )


@dataclass(frozen=True, slots=True)
class Trials:
    """Row counts to try in rising order, how often each, and the seed of all draws."""

    sizes: Sequence[int]
    count: int
    seed: int


@dataclass(frozen=True, slots=True)
class Found:
    """The fewest rows that find a fault in FOUND_SHARE of the trials; None where the most tried do not."""

    rows: int | None
    shares: Mapping[int, float]


def false_alarms(
    populations: Mapping[str, Population],
    sizes: tuple[int, int],
    replays: int,
    seed: int,
    limits: Limits | None = None,
) -> int:
    """Replays in which any feature alarms although reference and live rows come from one population.

    `sizes` are rows of reference and live sample; all features of a replay are drawn at the same rows.
    """
    row_count = min(len(one.column) for one in populations.values())
    _check_sizes(sum(sizes), row_count)
    random = np.random.default_rng(seed)
    alarms = 0
    for _ in range(replays):
        references: dict[str, Summary] = {}
        lives: dict[str, Summary] = {}
        rows = random.choice(row_count, sum(sizes), replace=False)
        for name, one in populations.items():
            references[name], lives[name] = _pair(one.column, one.column, one.value_type, rows, sizes[0])
        alarms += any(found.drift is Drift.DRIFTED for found in drift(references, lives, limits))
    return alarms


def rows_for_drift(fault: Fault, trials: Trials, reference_rows: int, feature_count: int = 1) -> Found:
    """Live rows from which drift is told, as one of `feature_count` features of which the others are steady."""
    usable = [size for size in trials.sizes if reference_rows + size <= len(fault.truth)]
    _check_sizes(reference_rows + min(trials.sizes), len(fault.truth))

    def found(size: int, random: np.random.Generator) -> bool:
        rows = random.choice(len(fault.truth), reference_rows + size, replace=False)
        pair = _pair(fault.truth, fault.served, fault.value_type, rows, reference_rows)
        tests = {"faulty": compare(*pair)} | {f"steady_{number}": _STEADY for number in range(1, feature_count)}
        return judge(tests)[0].drift is Drift.DRIFTED

    return _first(found, usable, trials)


def rows_for_parity(fault: Fault, trials: Trials) -> Found:
    """Compared rows among which one differs from its truth."""
    differs = _differs(fault)

    def found(size: int, random: np.random.Generator) -> bool:
        return bool(differs[random.integers(0, len(differs), size)].any())

    return _first(found, trials.sizes, trials)


_STEADY: Final = (Test(Statistic.NULL_RATE, "", 0.0, 1.0, 1.0, 1.0),)


def _first(found: Callable[[int, np.random.Generator], bool], sizes: Sequence[int], trials: Trials) -> Found:
    shares: dict[int, float] = {}
    for size in sizes:
        random = np.random.default_rng((trials.seed, size))
        shares[size] = sum(found(size, random) for _ in range(trials.count)) / trials.count
        if shares[size] >= FOUND_SHARE:
            return Found(size, shares)
    return Found(None, shares)


def _pair(
    truth: pa.Array, served: pa.Array, value_type: ValueType, rows: npt.NDArray[np.int64], reference_rows: int
) -> tuple[Summary, Summary]:
    reference = summarise_reference([truth.take(pa.array(rows[:reference_rows]))], value_type)
    return reference, summarise([served.take(pa.array(rows[reference_rows:]))], reference.bins, value_type)


def _differs(fault: Fault) -> npt.NDArray[np.bool_]:
    unequal = np.asarray(pc.fill_null(pc.not_equal(fault.truth, fault.served), False))
    differs: npt.NDArray[np.bool_] = unequal | (
        np.asarray(pc.is_null(fault.truth)) != np.asarray(pc.is_null(fault.served))
    )
    return differs


def _check_sizes(wanted: int, held: int) -> None:
    if wanted > held:
        raise InvalidArgument(
            f"a reference and a live sample of {wanted} rows together need as many; there are {held}",
            reason="TOO_FEW_ROWS",
            field="sizes",
        )
