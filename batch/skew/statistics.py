"""Distances of two counted samples, each with its law while nothing has changed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from batch.skew.columns import Kind
from batch.skew.summary import Bins, Summary

GROUPS_MAX: Final = 10  # quantile groups of PSI and JS: what the field reports PSI over
GROUP_ROWS_MIN: Final = 20  # expected rows of a group in the smaller sample: below, the chi-squared tails are off
ROWS_MIN: Final = 2 * GROUP_ROWS_MIN  # of the smaller sample: below, its values are not judged
SMOOTHING: Final = 0.5  # added to every group's count, so that an empty one gives a finite PSI (Jeffreys)

Counts = npt.NDArray[np.float64]


class Statistic(StrEnum):
    """What is measured: share of nulls, population stability index, Kolmogorov-Smirnov, Jensen-Shannon (nats)."""

    NULL_RATE = "null_rate"
    PSI = "psi"
    KS = "ks"
    JS = "js"


@dataclass(frozen=True, slots=True)
class Test:
    """One statistic of one part, and the chance of one as large while nothing has changed."""

    __test__ = False  # no test of ours, whatever its name says to pytest

    statistic: Statistic
    part: str
    value: float
    p_value: float
    reference_rows: float  # effective: rows divided by the design effect
    live_rows: float
    freedom: int = 0
    null_share: float = 0.0

    def threshold(self, level: float) -> float:
        """The value whose chance is `level`; for the share of nulls by the normal law."""
        scale = 1 / self.reference_rows + 1 / self.live_rows
        if self.statistic is Statistic.NULL_RATE:
            deviation = math.sqrt(self.null_share * (1 - self.null_share) * scale)
            return float(stats.norm.isf(level / 2) * deviation)
        if self.statistic is Statistic.KS:
            return float(stats.kstwo.isf(level, _ks_rows(self.reference_rows, self.live_rows)))
        if self.freedom == 0:
            return math.inf
        return float(stats.chi2.isf(level, self.freedom)) * scale / _DIVISORS[self.statistic]


_DIVISORS: Final = {Statistic.PSI: 1, Statistic.JS: 8}  # PSI ~ (1/n + 1/m) chi2(B - 1), and 8 JS the same


def compare(reference: Summary, live: Summary, design_effect: float = 1.0) -> tuple[Test, ...]:
    """Every test that the rows allow; both summaries must have the same bins.

    `design_effect` (`design_effect_of`) says how many rows are worth one independent row.
    """
    reference.merged(live)  # refuses other bins
    if not (reference.row_count and live.row_count):
        return ()
    tests = [_null_test(reference, live, design_effect)]
    for bins, first, second in zip(reference.bins, reference.counts, live.counts, strict=True):
        tests += _part_tests(bins, np.array(first, float), np.array(second, float), design_effect)
    return tuple(tests)


def design_effect_of(rows_per_entity: Sequence[int]) -> float:
    """Rows that are worth one independent row where an entity's rows all repeat one value (Kish)."""
    total = sum(rows_per_entity)
    return sum(rows * rows for rows in rows_per_entity) / total if total else 1.0


def psi(first: Counts, second: Counts) -> float:
    """Population stability index of two rows of counts, smoothed."""
    p, q = _shares(first), _shares(second)
    return float(np.sum((p - q) * np.log(p / q)))


def js(first: Counts, second: Counts) -> float:
    """Jensen-Shannon divergence of two rows of counts in nats, smoothed."""
    p, q = _shares(first), _shares(second)
    middle = (p + q) / 2
    return float(np.sum(p * np.log(p / middle) + q * np.log(q / middle)) / 2)


def ks(first: Counts, second: Counts) -> float:
    """Largest distance of the cumulated shares at the edges of the bins."""
    return float(np.max(np.abs(np.cumsum(first) / first.sum() - np.cumsum(second) / second.sum())))


def grouped(bins: Bins, first: Counts, second: Counts) -> tuple[Counts, Counts]:
    """Counts of both samples over at most GROUPS_MAX groups, each with GROUP_ROWS_MIN expected rows in both."""
    if bins.part.kind is Kind.NAMED:
        order = np.argsort(-(first + second)[:-1], kind="stable").tolist()
        tail = [len(bins.names), *reversed(order[GROUPS_MAX - 1 :])]
        groups = [[index] for index in order[: GROUPS_MAX - 1]] + [tail]
    else:
        decile = np.ceil(np.cumsum(first) / first.sum() * GROUPS_MAX - 1e-9).astype(int)
        held = np.flatnonzero(first)
        # Values outside the reference, and NaN, are groups of their own where they are enough.
        decile[: held[0]], decile[held[-1] + 1 :], decile[-1] = -1, GROUPS_MAX + 1, GROUPS_MAX + 2
        groups = [np.flatnonzero(decile == value).tolist() for value in np.unique(decile)]
    return _filled(groups, first, second)


def _null_test(reference: Summary, live: Summary, effect: float) -> Test:
    n, m = reference.row_count / effect, live.row_count / effect
    nulls = (reference.null_count / effect, live.null_count / effect)
    gap = abs(nulls[0] / n - nulls[1] / m)
    pooled = sum(nulls) / (n + m)
    p_value = 1.0
    if 0 < pooled < 1:
        table = [[round(count), round(rows) - round(count)] for count, rows in zip(nulls, (n, m), strict=True)]
        p_value = float(stats.fisher_exact(table).pvalue)
    return Test(Statistic.NULL_RATE, "", gap, p_value, n, m, null_share=pooled)


def _part_tests(bins: Bins, first: Counts, second: Counts, effect: float) -> list[Test]:
    n, m = first.sum() / effect, second.sum() / effect
    if min(n, m) < ROWS_MIN:
        return []
    near, far = grouped(bins, first / effect, second / effect)
    freedom, name, scale = len(near) - 1, bins.part.name, 1 / n + 1 / m
    tests = []
    for statistic, value in ((Statistic.PSI, psi(near, far)), (Statistic.JS, js(near, far))):
        chance = float(stats.chi2.sf(value * _DIVISORS[statistic] / scale, freedom)) if freedom else 1.0
        tests.append(Test(statistic, name, value, chance, n, m, freedom))
    if bins.part.kind is Kind.ORDERED:
        value = ks(first, second)
        chance = float(stats.kstwo.sf(value, _ks_rows(n, m))) if value > 0 else 1.0
        tests.append(Test(Statistic.KS, name, value, chance, n, m))
    return tests


def _ks_rows(n: float, m: float) -> int:
    """Rows of the one-sample law that the two-sample one nears, as scipy.stats.ks_2samp takes them."""
    return max(1, round(n * m / (n + m)))


def _shares(counts: Counts) -> Counts:
    smooth = counts + SMOOTHING
    shares: Counts = smooth / smooth.sum()
    return shares


def _filled(groups: list[list[int]], first: Counts, second: Counts) -> tuple[Counts, Counts]:
    """Sums over groups, neighbours joined until each is expected to hold GROUP_ROWS_MIN rows of the smaller sample."""
    pooled = first + second
    needed = GROUP_ROWS_MIN * pooled.sum() / min(first.sum(), second.sum())
    joined: list[list[int]] = []
    for group in groups:
        if joined and pooled[joined[-1]].sum() < needed:
            joined[-1] = joined[-1] + group
        else:
            joined.append(list(group))
    if len(joined) > 1 and pooled[joined[-1]].sum() < needed:
        last = joined.pop()
        joined[-1] = joined[-1] + last
    sums = [np.array([counts[group].sum() for group in joined]) for counts in (first, second)]
    return sums[0], sums[1]
