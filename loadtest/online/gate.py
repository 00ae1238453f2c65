"""Service level gate: latencies from the intended start of each call, errors, and the verdict."""

import json
import math
import time
from array import array
from dataclasses import asdict, dataclass
from typing import Final

SAMPLE_COUNT_MAX: Final = 5_000_000  # 40 MB; more than an hour at 1,000 calls a second
FAULT_TEXT_COUNT_MAX: Final = 5
ARRIVAL_SHARE_MIN: Final = 0.98  # fewer calls than this share of the plan mean that the generator fell behind


@dataclass(frozen=True, slots=True)
class Objective:
    """What must hold."""

    p99_ms_max: float = 10.0
    error_count_max: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run measured, times in milliseconds."""

    call_count: int
    error_count: int
    planned_count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    lag_p99_ms: float
    began_at_s: float  # Unix time of the first and of the last arrival; 0 without one
    ended_at_s: float
    faults: tuple[str, ...]
    breaches: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the objective was met."""
        return not self.breaches

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self) | {"ok": self.ok})


class Recorder:
    """Latencies and errors of one run. `lag` is how late the generator itself started a call."""

    def __init__(self) -> None:
        self._latencies_ms = array("d")
        self._lags_ms = array("d")
        self._faults: list[str] = []
        self._error_count = 0
        self._planned_count = 0
        self._began_at_s = self._ended_at_s = 0.0

    def plan(self) -> None:
        """Counts an arrival that fell due."""
        self._planned_count += 1
        self._ended_at_s = time.time()
        self._began_at_s = self._began_at_s or self._ended_at_s

    def answered(self, latency_ms: float, lag_ms: float) -> None:
        """Records a good answer."""
        if len(self._latencies_ms) < SAMPLE_COUNT_MAX:
            self._latencies_ms.append(latency_ms)
            self._lags_ms.append(lag_ms)

    def failed(self, why: str) -> None:
        """Records a call that failed or answered wrongly."""
        self._error_count += 1
        if len(self._faults) < FAULT_TEXT_COUNT_MAX:
            self._faults.append(why)

    def summary(self, objective: Objective) -> Summary:
        """Percentiles and verdict."""
        latencies, lags = sorted(self._latencies_ms), sorted(self._lags_ms)
        p99 = _percentile(latencies, 0.99)
        done = len(latencies) + self._error_count  # a wrong answer counts twice, which hides no call that is missing
        breaches = []
        if not latencies:
            breaches.append("no call was answered")
        if p99 > objective.p99_ms_max:
            breaches.append(f"p99 {p99:.2f} ms is above {objective.p99_ms_max:g} ms")
        if self._error_count > objective.error_count_max:
            breaches.append(f"{self._error_count} errors, {objective.error_count_max} allowed")
        if done < ARRIVAL_SHARE_MIN * self._planned_count:
            breaches.append(f"only {done} of {self._planned_count} planned calls ended")
        return Summary(
            call_count=len(latencies),
            error_count=self._error_count,
            planned_count=self._planned_count,
            p50_ms=_percentile(latencies, 0.5),
            p90_ms=_percentile(latencies, 0.9),
            p99_ms=p99,
            max_ms=latencies[-1] if latencies else 0.0,
            lag_p99_ms=_percentile(lags, 0.99),
            began_at_s=self._began_at_s,
            ended_at_s=self._ended_at_s,
            faults=tuple(self._faults),
            breaches=tuple(breaches),
        )


def _percentile(ranked: list[float], share: float) -> float:
    return ranked[math.ceil(share * len(ranked)) - 1] if ranked else 0.0
