"""Waits for the sub-requests of many reads on one thread, so that no read is held up by the peers of another."""

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias

from feature_server.ring.ring_reads import Pending

NEVER_S: Final = -1.0

Done: TypeAlias = Callable[[Exception | None], None]
"""Called on the thread of the waits when every sub-request is over or nobody waits any more, with a fault of ours."""


class Waits:
    """Drives sub-requests that others began. Safe to share between threads; its thread starts with the first wait."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._lock = threading.Lock()  # of the two that follow
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._woken: SimpleQueue[_Wait | None] = SimpleQueue()
        # Of the thread alone from here on.
        self._open: set[_Wait] = set()
        self._times: list[tuple[float, int, _Wait]] = []
        self._numbers = count()

    def add(self, asks: Sequence[Pending], done: Done) -> None:
        """Calls `done`, which must not raise or wait, once these are over; until then they are left alone."""
        wait = _Wait(asks, done)
        for ask in asks:
            ask.tell(partial(self._woken.put, wait))
        with self._lock:
            if not self._is_closed:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="ring-waits", daemon=True)
                    self._thread.start()
                self._woken.put(wait)
                return
        done(None)

    def close(self) -> None:
        """Ends every wait."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        self._woken.put(None)
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            try:
                wait = self._woken.get(timeout=self._left_s())
            except Empty:
                pass
            else:
                if wait is None:
                    break
                self._advance(wait)
            while self._times and self._times[0][0] <= self._clock_s():
                until_s, _, due = heapq.heappop(self._times)
                if due.until_s == until_s:  # else it has another time by now
                    due.until_s = NEVER_S
                    self._advance(due)
        for wait in self._open:
            with suppress(Exception):  # one that breaks its promise keeps no other from its end
                wait.end(None)

    def _left_s(self) -> float | None:
        return max(0.0, self._times[0][0] - self._clock_s()) if self._times else None

    def _advance(self, wait: "_Wait") -> None:
        if wait.is_over:
            return
        fault: Exception | None = None
        before_s = wait.until_s
        try:
            wait.take()
        except Exception as error:  # noqa: BLE001 - the loop of a worker: others go on, and this one is told
            fault, wait.is_over = error, True
        if wait.is_over:
            self._open.discard(wait)
            with suppress(Exception):  # as above
                wait.end(fault)
            return
        self._open.add(wait)
        if wait.until_s != before_s:
            heapq.heappush(self._times, (wait.until_s, next(self._numbers), wait))


class _Wait:
    """Sub-requests of one read."""

    __slots__ = ("_asks", "_done", "is_over", "until_s")

    def __init__(self, asks: Sequence[Pending], done: Done) -> None:
        self._asks = asks
        self._done: Done | None = done
        self.is_over = False
        self.until_s = NEVER_S

    def take(self) -> None:
        times = [until_s for until_s in [ask.take() for ask in self._asks] if until_s is not None]
        self.is_over = not times
        self.until_s = min(times, default=NEVER_S)

    def end(self, fault: Exception | None) -> None:
        """Tells who waits; a time of it that is still noted keeps nothing of it."""
        done, self._done, self._asks = self._done, None, ()
        assert done is not None, "a wait ends once"
        done(fault)
