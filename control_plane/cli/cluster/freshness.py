"""How long after an event happened a read shows it: sampled by a thread that reads until it does."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa

from headrace.client import Client, PreparedFeatures, ReadOptions
from headrace.errors import HeadraceError

PROBED_SOURCE: Final = "flights.ops.departures"
PROBED_FEATURE: Final = "flights.carrier.last_departure@v1:dep_delay"
PROBED_KEY: Final = "carrier"
LIMIT_S: Final = 30.0  # an event that is not readable by then counts as so old
POLL_S: Final = 0.002
SAMPLES_MAX: Final = 10_000
_WITH_TIMES: Final = ReadOptions(include_event_times=True)


class Freshness:
    """A sample begins when an event is sent and no other is under way."""

    def __init__(self, client: Client, clock_us: Callable[[], int]) -> None:
        self._client = client
        self._clock_us = clock_us
        self._prepared: PreparedFeatures = client.prepare(features=[PROBED_FEATURE])
        self._samples: deque[float] = deque(maxlen=SAMPLES_MAX)
        self._wanted: tuple[str, int] | None = None
        self._is_held = False
        self._arrived = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="freshness", daemon=True)
        self._thread.start()

    def sent(self, source: str, rows: pa.Table) -> None:
        """Told of events as they are sent."""
        if source != PROBED_SOURCE or self._is_held:
            return
        with self._arrived:
            if self._wanted is None:
                last = rows.slice(len(rows) - 1).select([PROBED_KEY, "event_time"])
                self._wanted = last[PROBED_KEY][0].as_py(), last["event_time"].cast(pa.int64())[0].as_py()
                self._arrived.notify()

    def hold(self, *, is_held: bool) -> None:
        """Takes no samples meanwhile: events that wait for a comparison are late by our own doing."""
        self._is_held = is_held

    def take(self) -> list[float]:
        """Samples since the last call, in seconds."""
        with self._arrived:
            samples = [*self._samples]
            self._samples.clear()
        return samples

    def close(self) -> None:
        """Ends the thread."""
        with self._arrived:
            self._is_closed = True
            self._arrived.notify()
        self._thread.join(LIMIT_S)

    def _run(self) -> None:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._wanted is not None or self._is_closed)
                if self._is_closed or self._wanted is None:
                    return
                key, event_us = self._wanted
            seconds = self._age_when_read(key, event_us)
            with self._arrived:
                self._wanted = None
                if seconds is not None:
                    self._samples.append(seconds)

    def _age_when_read(self, key: str, event_us: int) -> float | None:
        while not self._is_closed:
            try:
                batch = self._client.get_online_features(
                    self._prepared, entities={PROBED_KEY: [key]}, options=_WITH_TIMES
                )
                seen_us = int(batch.event_times(self._prepared.columns[0].name).view(np.int64)[0])
            except HeadraceError:  # the next read may go through, and the sample is as old as it is
                seen_us = -1
            age_s = (self._clock_us() - event_us) / 1e6
            if seen_us >= event_us or age_s > LIMIT_S:
                return age_s
            time.sleep(POLL_S)
        return None
