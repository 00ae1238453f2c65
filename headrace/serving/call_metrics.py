"""Counts and latencies of calls in preallocated arrays, turned into OpenTelemetry metrics when somebody looks."""

import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

import grpc
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

# The latency buckets of gRPC's own metrics, in seconds.
LATENCY_BOUNDS_S: Final = (
    0.0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01,
    0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8,
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
)  # fmt: skip
CODE_NAMES: Final = tuple(code.name for code in sorted(grpc.StatusCode, key=lambda code: int(code.value[0])))
OK: Final = 0


class MethodMeter:
    """Calls of one method. `record` takes about a microsecond and makes no object that stays."""

    def __init__(self, method: str, grpc_type: str) -> None:
        self.method = method.lstrip("/")
        self.grpc_type = grpc_type
        self._lock = threading.Lock()
        self._started = 0
        self._counts: list[list[int] | None] = [None] * len(CODE_NAMES)
        self._sums_s = [0.0] * len(CODE_NAMES)
        self._elsewhere: Callable[[], tuple[list[int], float]] | None = None

    def count_elsewhere(self, read: Callable[[], tuple[list[int], float]]) -> None:
        """Adds calls that were counted outside of the interpreter, all OK: bucket counts and sum of seconds."""
        self._elsewhere = read

    def start(self) -> None:
        """Counts a call of a stream, which ends much later."""
        with self._lock:
            self._started += 1

    def record(self, seconds: float, code: int = OK) -> None:
        """Counts the end of a call that `start` has not counted."""
        bucket = bisect_left(LATENCY_BOUNDS_S, seconds)
        with self._lock:
            self._started += 1
            self._add(seconds, code, bucket)

    def finish(self, seconds: float, code: int = OK) -> None:
        """Counts the end of a call that `start` has counted."""
        bucket = bisect_left(LATENCY_BOUNDS_S, seconds)
        with self._lock:
            self._add(seconds, code, bucket)

    def snapshot(self) -> tuple[int, list[tuple[str, list[int], float]]]:
        """Calls started, and per status code that occurred its name, bucket counts and sum of seconds."""
        with self._lock:
            ended = [
                (CODE_NAMES[code], list(counts), self._sums_s[code])
                for code, counts in enumerate(self._counts)
                if counts is not None
            ]
            started = self._started
        if self._elsewhere is None:
            return started, ended
        more, more_s = self._elsewhere()
        own, own_s = next(((counts, sum_s) for name, counts, sum_s in ended if name == CODE_NAMES[OK]), ([], 0.0))
        counts = [a + b for a, b in zip(own or [0] * len(more), more, strict=True)]
        others = [one for one in ended if one[0] != CODE_NAMES[OK]]
        return started + sum(more), [(CODE_NAMES[OK], counts, own_s + more_s), *others]

    def _add(self, seconds: float, code: int, bucket: int) -> None:
        counts = self._counts[code]
        if counts is None:
            counts = self._counts[code] = [0] * (len(LATENCY_BOUNDS_S) + 1)
        counts[bucket] += 1
        self._sums_s[code] += seconds


class CallMetrics:
    """Meters of all methods of one server."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._start_ns = clock_ns()
        self._meters: dict[str, MethodMeter] = {}

    def meter(self, method: str, grpc_type: str) -> MethodMeter:
        """The meter of a method, made at its first use; `grpc_type` is unary, server_stream and so on."""
        return self._meters.setdefault(method, MethodMeter(method, grpc_type))

    def metrics(self) -> Sequence[Metric]:
        """The OpenTelemetry form: rpc.server.call.duration, and the counters that older gRPC dashboards expect."""
        now_ns = self._clock_ns()
        durations: list[HistogramDataPoint] = []
        started: list[NumberDataPoint] = []
        handled: list[NumberDataPoint] = []
        for meter in list(self._meters.values()):
            service, _, name = meter.method.rpartition("/")
            legacy = {"grpc_type": meter.grpc_type, "grpc_service": service, "grpc_method": name}
            start_count, ended = meter.snapshot()
            started.append(NumberDataPoint(legacy, self._start_ns, now_ns, start_count))
            for code, counts, sum_s in ended:
                attributes = {"rpc.system.name": "grpc", "rpc.method": meter.method, "rpc.response.status_code": code}
                durations.append(self._histogram(attributes, now_ns, counts, sum_s))
                handled.append(NumberDataPoint({**legacy, "grpc_code": code}, self._start_ns, now_ns, sum(counts)))
        cumulative = AggregationTemporality.CUMULATIVE
        return [
            Metric("rpc.server.call.duration", "Duration of calls.", "s", Histogram(durations, cumulative)),
            Metric("grpc_server_started", "Calls started.", "", Sum(started, cumulative, is_monotonic=True)),
            Metric("grpc_server_handled", "Calls ended, by code.", "", Sum(handled, cumulative, is_monotonic=True)),
        ]

    def _histogram(
        self, attributes: dict[str, str], now_ns: int, counts: list[int], sum_s: float
    ) -> HistogramDataPoint:
        return HistogramDataPoint(
            attributes=attributes,
            start_time_unix_nano=self._start_ns,
            time_unix_nano=now_ns,
            count=sum(counts),
            sum=sum_s,
            bucket_counts=counts,
            explicit_bounds=LATENCY_BOUNDS_S,
            min=0.0,
            max=LATENCY_BOUNDS_S[-1],
        )
