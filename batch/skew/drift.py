"""Judges the drift of many features at once, with one false alarm rate for the whole run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from batch.skew.statistics import ROWS_MIN, Statistic, Test, compare
from batch.skew.summary import Summary
from headrace.errors import InvalidArgument

FEATURES_MAX: Final = 10_000  # of one run


class Drift(StrEnum):
    """Whether a feature is distributed as its reference; TOO_FEW where rows are below ROWS_MIN."""

    STEADY = "steady"
    DRIFTED = "drifted"
    TOO_FEW = "too_few"


@dataclass(frozen=True, slots=True)
class Limits:
    """When drift is told: the chance of any false alarm in a run, and the smallest effect that matters.

    docs/decisions/0021-drift-thresholds.md says where the figures come from.
    """

    alarm_rate: float = 0.005
    psi_floor: float = 0.002
    ks_floor: float = 0.01
    js_floor: float = 0.00025
    null_rate_floor: float = 0.002

    def __post_init__(self) -> None:
        for name in ("psi_floor", "ks_floor", "js_floor", "null_rate_floor"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidArgument(
                    f"{name} is {getattr(self, name)}; give 0 or more", reason="OUT_OF_RANGE", field=name
                )
        if not 0 < self.alarm_rate < 1:
            raise InvalidArgument(
                f"alarm_rate is {self.alarm_rate}; give a share above 0 and below 1",
                reason="OUT_OF_RANGE",
                field="alarm_rate",
            )

    def floor(self, statistic: Statistic) -> float:
        """The smallest value of a statistic that is ever told."""
        floors = {
            Statistic.PSI: self.psi_floor,
            Statistic.KS: self.ks_floor,
            Statistic.JS: self.js_floor,
            Statistic.NULL_RATE: self.null_rate_floor,
        }
        return floors[statistic]


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """The tests of one feature. `p_value` is its least, times their number; `q_value` the same over all features.

    A test of chance `level` or less is significant in this run.
    """

    feature: str
    drift: Drift
    tests: tuple[Test, ...]
    p_value: float
    q_value: float
    level: float
    fired: tuple[Test, ...]


def judge(tests: Mapping[str, Sequence[Test]], limits: Limits | None = None) -> tuple[FeatureDrift, ...]:
    """Verdicts in the order of the features. Drift is a significant test whose value reaches its floor."""
    limits = limits or Limits()
    if len(tests) > FEATURES_MAX:
        raise InvalidArgument(
            f"{len(tests)} features in one run; at most {FEATURES_MAX} are allowed", reason="TOO_MANY", field="features"
        )
    chances = {name: min(1.0, len(made) * min(one.p_value for one in made)) for name, made in tests.items() if made}
    q_values, cut = benjamini_hochberg(list(chances.values()), limits.alarm_rate)
    by_name = dict(zip(chances, q_values, strict=True))
    return tuple(
        _verdict(name, tuple(made), (chances.get(name, 1.0), by_name.get(name, 1.0)), cut, limits)
        for name, made in tests.items()
    )


def drift(
    references: Mapping[str, Summary],
    lives: Mapping[str, Summary],
    limits: Limits | None = None,
    design_effect: float = 1.0,
) -> tuple[FeatureDrift, ...]:
    """Verdicts of every feature of the references; each needs a live sample."""
    missing = sorted(references.keys() - lives.keys())
    if missing:
        raise InvalidArgument(
            f"{missing[0]} has a reference and no live sample; give one, without rows if none were served",
            reason="NO_SAMPLE",
            field="live",
            metadata={"feature": missing[0]},
        )
    if not 1 <= design_effect < math.inf:
        raise InvalidArgument(
            f"design_effect is {design_effect}; give 1 or more", reason="OUT_OF_RANGE", field="design_effect"
        )
    tests = {name: compare(reference, lives[name], design_effect) for name, reference in references.items()}
    return judge(tests, limits)


def benjamini_hochberg(p_values: Sequence[float], rate: float) -> tuple[list[float], float]:
    """The q-value of every p-value, and the largest p-value level that is told at the rate."""
    size = len(p_values)
    order = sorted(range(size), key=lambda index: p_values[index])
    q_values = [1.0] * size
    least, told = 1.0, 0
    for rank in range(size, 0, -1):
        index = order[rank - 1]
        least = min(least, p_values[index] * size / rank)
        q_values[index] = least
        if told == 0 and least <= rate:
            told = rank
    return q_values, rate * max(told, 1) / max(size, 1)


def _verdict(
    name: str, made: tuple[Test, ...], chances: tuple[float, float], cut: float, limits: Limits
) -> FeatureDrift:
    level = cut / max(len(made), 1)
    fired = tuple(one for one in made if one.p_value <= level and one.value >= limits.floor(one.statistic))
    enough = bool(made) and min(made[0].reference_rows, made[0].live_rows) >= ROWS_MIN
    verdict = Drift.DRIFTED if fired else Drift.STEADY if enough else Drift.TOO_FEW
    return FeatureDrift(name, verdict, made, *chances, level, fired)
