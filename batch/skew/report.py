"""What a skew run found, as canonical JSON, as rows of a table, and as an exit code."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from batch.skew.attribution import Cause, Finding, Outcome
from batch.skew.drift import Drift, FeatureDrift, Limits
from headrace.definitions.transform import canonical_json
from headrace.errors import InvalidArgument

FORMAT_VERSION: Final = 1
EXAMPLES_MAX: Final = 3  # of each cause of a feature: enough to look at, whatever the run's size
EXIT_DONE: Final = 0
EXIT_FINDINGS: Final = 3  # the command line uses 1 for refused and 2 for unexpected
TIMING: Final = frozenset({Cause.LATE_EVENT, Cause.APPLY_LAG})  # no fault: the server could not know better
HEADER: Final = ("feature", "rows", "mismatches", "causes", "drift", "q", "statistic", "value", "threshold", "verdict")


class Verdict(StrEnum):
    """OK, or what is wrong; PARITY_DRIFT where both are. NO_DATA: nothing was compared and no drift could be judged."""

    OK = "ok"
    PARITY = "parity"
    DRIFT = "drift"
    PARITY_DRIFT = "parity_drift"
    NO_DATA = "no_data"


class FailOn(StrEnum):
    """What turns the exit code to EXIT_FINDINGS."""

    PARITY = "parity"
    DRIFT = "drift"


_TELLS: Final = {
    FailOn.PARITY: (Verdict.PARITY, Verdict.PARITY_DRIFT),
    FailOn.DRIFT: (Verdict.DRIFT, Verdict.PARITY_DRIFT),
}


@dataclass(frozen=True, slots=True)
class ParityLimits:
    """How many mismatches are borne: faults by count, late events and apply lag by their share of compared rows."""

    fault_count_max: int = 0
    timing_share_max: float = 0.05

    def __post_init__(self) -> None:
        if self.fault_count_max < 0:
            raise _out_of_range("fault_count_max", self.fault_count_max, "0 or more")
        if not 0 <= self.timing_share_max <= 1:
            raise _out_of_range("timing_share_max", self.timing_share_max, "a share of 0 to 1")


@dataclass(slots=True)
class FeatureParity:
    """Counts of one feature; grows by findings, and keeps a few of each cause."""

    rows: int = 0
    unavailable: int = 0
    causes: Counter[Cause] = field(default_factory=Counter)
    examples: dict[Cause, list[Finding]] = field(default_factory=dict)

    @property
    def mismatches(self) -> int:
        """Compared values that differ."""
        return self.causes.total()

    def add(self, finding: Finding) -> None:
        """Counts one finding."""
        if finding.outcome is Outcome.UNAVAILABLE:
            self.unavailable += 1
            return
        self.rows += 1
        if finding.cause is not None:
            self.causes[finding.cause] += 1
            kept = self.examples.setdefault(finding.cause, [])
            if len(kept) < EXAMPLES_MAX:
                kept.append(finding)

    def within(self, limits: ParityLimits) -> bool:
        """Whether the mismatches are borne."""
        timing = sum(self.causes[cause] for cause in TIMING)
        return self.mismatches - timing <= limits.fault_count_max and timing <= limits.timing_share_max * self.rows


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """One feature of a run."""

    feature: str
    parity: FeatureParity
    drift: FeatureDrift | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """One run over all its features, in the order of their names."""

    features: tuple[FeatureReport, ...]
    limits: Limits
    parity_limits: ParityLimits

    def document(self) -> dict[str, Any]:  # Any: JSON values
        """What `-o json` prints."""
        return {
            "version": FORMAT_VERSION,
            "limits": {
                "alarm_rate": self.limits.alarm_rate,
                "fault_count_max": self.parity_limits.fault_count_max,
                "timing_share_max": self.parity_limits.timing_share_max,
            },
            "rows": sum(one.parity.rows for one in self.features),
            "mismatches": sum(one.parity.mismatches for one in self.features),
            "causes": _counts(sum((one.parity.causes for one in self.features), Counter[Cause]())),
            "features": [_feature_document(one, self.limits) for one in self.features],
        }

    def to_json(self) -> str:
        """One text for equal reports."""
        return canonical_json(self.document())

    def table(self) -> list[tuple[str, ...]]:
        """One row a feature, under HEADER."""
        return [_table_row(one, self.limits) for one in self.features]

    def exit_code(self, fail_on: Iterable[FailOn] = ()) -> int:
        """EXIT_FINDINGS where a feature has a finding of a kind asked for, else EXIT_DONE: findings are no failure."""
        asked = {verdict for kind in fail_on for verdict in _TELLS[kind]}
        return EXIT_FINDINGS if any(one.verdict in asked for one in self.features) else EXIT_DONE


def tally(findings: Iterable[Finding], into: dict[str, FeatureParity] | None = None) -> dict[str, FeatureParity]:
    """Counts by feature reference; give the counts of earlier batches to go on with them."""
    counted = {} if into is None else into
    for finding in findings:
        counted.setdefault(str(finding.served.feature), FeatureParity()).add(finding)
    return counted


def report(
    parity: Mapping[str, FeatureParity],
    drifts: Sequence[FeatureDrift] = (),
    limits: Limits | None = None,
    parity_limits: ParityLimits | None = None,
) -> Report:
    """Joins both halves of a run by feature."""
    borne = parity_limits or ParityLimits()
    by_name = {one.feature: one for one in drifts}
    made = []
    for name in sorted(parity.keys() | by_name.keys()):
        counts, found = parity.get(name, FeatureParity()), by_name.get(name)
        made.append(FeatureReport(name, counts, found, _verdict(counts, found, borne)))
    return Report(tuple(made), limits or Limits(), borne)


def _verdict(parity: FeatureParity, drift: FeatureDrift | None, limits: ParityLimits) -> Verdict:
    differs, drifted = not parity.within(limits), drift is not None and drift.drift is Drift.DRIFTED
    if differs or drifted:
        return Verdict.PARITY_DRIFT if differs and drifted else Verdict.PARITY if differs else Verdict.DRIFT
    judged = parity.rows or (drift is not None and drift.drift is Drift.STEADY)
    return Verdict.OK if judged else Verdict.NO_DATA


def _feature_document(one: FeatureReport, limits: Limits) -> dict[str, Any]:  # Any: JSON values
    out: dict[str, Any] = {
        "feature": one.feature,
        "rows": one.parity.rows,
        "mismatches": one.parity.mismatches,
        "unavailable": one.parity.unavailable,
        "causes": _counts(one.parity.causes),
        "examples": [_example(finding) for cause in Cause for finding in one.parity.examples.get(cause, ())],
        "verdict": one.verdict.value,
    }
    if one.drift is not None:
        out["drift"] = _drift_document(one.drift, limits)
    return out


def _drift_document(drift: FeatureDrift, limits: Limits) -> dict[str, Any]:  # Any: JSON values
    tests = [
        {
            "statistic": one.statistic.value,
            "part": one.part,
            "value": one.value,
            "threshold": _finite(one.threshold(drift.level)),
            "floor": limits.floor(one.statistic),
            "p": one.p_value,
            "reference_rows": one.reference_rows,
            "live_rows": one.live_rows,
            "fired": one in drift.fired,
        }
        for one in drift.tests
    ]
    return {"state": drift.drift.value, "p": drift.p_value, "q": drift.q_value, "level": drift.level, "tests": tests}


def _example(finding: Finding) -> dict[str, Any]:  # Any: JSON values
    served, expected = finding.served, finding.expected
    return {
        "entity_key": served.entity_key.hex(),
        "time_us": served.time_us,
        "shard": served.shard,
        "shard_epoch": served.shard_epoch,
        "applied_offset": served.applied_offset,
        "registry_revision": served.registry_revision,
        "served": {"status": served.answer.status, "value": served.answer.value.hex()},
        "expected": None if expected is None else {"status": expected.status, "value": expected.value.hex()},
        "cause": None if finding.cause is None else finding.cause.value,
        "why": finding.why,
        "also": [cause.value for cause in finding.also],
    }


def _table_row(one: FeatureReport, limits: Limits) -> tuple[str, ...]:
    causes = " ".join(f"{cause}={count}" for cause, count in _counts(one.parity.causes).items()) or "-"
    left = (one.feature, str(one.parity.rows), str(one.parity.mismatches), causes)
    drift = one.drift
    if drift is None or not drift.tests:
        return (*left, "-" if drift is None else drift.drift.value, "-", "-", "-", "-", one.verdict.value)
    shown = min(drift.fired or drift.tests, key=lambda test: test.p_value)
    bound = max(shown.threshold(drift.level), limits.floor(shown.statistic))
    name = f"{shown.statistic}({shown.part})" if shown.part else shown.statistic.value
    numbers = (f"{drift.q_value:.2g}", name, f"{shown.value:.4g}", f"{bound:.4g}")
    return (*left, drift.drift.value, *numbers, one.verdict.value)


def _counts(causes: Counter[Cause]) -> dict[str, int]:
    return {cause.value: causes[cause] for cause in Cause if causes[cause]}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _out_of_range(name: str, value: object, wanted: str) -> InvalidArgument:
    return InvalidArgument(f"{name} is {value}; give {wanted}", reason="OUT_OF_RANGE", field=name)
