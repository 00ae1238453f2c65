"""What the stages of the pipeline tell of themselves, as counters and gauges of OpenTelemetry."""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from arroyo.types import Partition

from headrace.serving.telemetry import Telemetry

DELAY_BOUNDS_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
_MICROSECONDS: Final = 1_000_000


class StageMeter:
    """Counts of one stage of one source; written by its thread, read by the exporter."""

    def __init__(self, stage: str, source: str) -> None:
        self.labels = {"stage": stage, "source": source}
        self.event_count = 0
        self.dead_count = 0
        self.replayed_count = 0
        self.skipped_count = 0
        self.newest_us = 0
        self.delay_counts = [0] * (len(DELAY_BOUNDS_S) + 1)

    def took(self, event_count: int, dead_count: int, newest_us: int, written_us: int, now_us: int) -> None:
        """Events that went on, with the time that the broker gave to the last one, below 0 where it gave none."""
        self.event_count += event_count
        self.dead_count += dead_count
        self.newest_us = max(self.newest_us, newest_us)
        if written_us >= 0 and event_count:
            delay_s = max(0, now_us - written_us) / _MICROSECONDS
            self.delay_counts[sum(delay_s > bound for bound in DELAY_BOUNDS_S)] += event_count


class Meters:
    """All meters of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[tuple[str, str], StageMeter] = {}
        self._lags: dict[str, Callable[[], Mapping[Partition, int]]] = {}

    def stage(self, stage: str, source: str) -> StageMeter:
        """The meter of a stage of a source; the same one whenever it is asked for."""
        with self._lock:
            return self._stages.setdefault((stage, source), StageMeter(stage, source))

    def follow(self, name: str, lag: Callable[[], Mapping[Partition, int]]) -> None:
        """Shows the lag of a consumer from now on; a name given again replaces what it stood for."""
        with self._lock:
            self._lags[name] = lag

    def observe(self, telemetry: Telemetry) -> None:
        """Registers the instruments."""
        telemetry.counter("headrace.pipeline.events", "Events that went on.", lambda: self._each("event_count"))
        telemetry.counter("headrace.pipeline.dead_letters", "Messages set aside.", lambda: self._each("dead_count"))
        telemetry.counter(
            "headrace.pipeline.replayed", "Events that had been applied before.", lambda: self._each("replayed_count")
        )
        telemetry.counter(
            "headrace.pipeline.skipped", "Events from before a view was known.", lambda: self._each("skipped_count")
        )
        telemetry.gauge(
            "headrace.pipeline.watermark",
            "Newest event time.",
            lambda: [(one.newest_us / _MICROSECONDS, one.labels) for one in self._all()],
            "s",
        )
        telemetry.counter(
            "headrace.pipeline.freshness", "Events by seconds from the broker to here, up to le.", self._delays
        )
        telemetry.gauge("headrace.pipeline.lag", "Messages not yet read.", self._each_lag)

    def _all(self) -> list[StageMeter]:
        with self._lock:
            return list(self._stages.values())

    def _each(self, field: str) -> Iterable[tuple[float, Mapping[str, str]]]:
        return [(getattr(one, field), one.labels) for one in self._all()]

    def _delays(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        bounds = [*map(str, DELAY_BOUNDS_S), "inf"]
        for one in self._all():
            total = 0
            for bound, count in zip(bounds, one.delay_counts, strict=True):
                total += count
                yield total, {**one.labels, "le": bound}

    def _each_lag(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        with self._lock:
            lags = list(self._lags.items())
        for name, lag in lags:
            for partition, count in lag().items():
                labels = {"reader": name, "topic": partition.topic.name, "partition": str(partition.index)}
                yield count, labels
