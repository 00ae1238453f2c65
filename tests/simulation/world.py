"""Virtual time and a network that delays, loses and partitions; one seed decides everything."""

import heapq
from collections.abc import Callable
from random import Random
from typing import Final

DELAY_MIN_S: Final = 0.001
DELAY_MAX_S: Final = 0.050
SLOW_DELAY_MAX_S: Final = 5.0  # of a message that is held up, so that it arrives after much has happened
SLOW_SHARE: Final = 0.03


class World:
    """Events in the order of their times."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now_s = 0.0
        self.event_count = 0
        self.loss_share = 0.0
        self.slow_share = SLOW_SHARE
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._cut: set[tuple[str, str]] = set()

    def clock_s(self) -> float:
        """Seconds since the start."""
        return self.now_s

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Does something later."""
        self.event_count += 1
        heapq.heappush(self._queue, (self.now_s + delay_s, self.event_count, action))

    def every(self, period_s: float, action: Callable[[], None]) -> None:
        """Does something again and again, with jitter."""

        def again() -> None:
            action()
            self.after(period_s * self.random.uniform(0.8, 1.2), again)

        self.after(period_s * self.random.random(), again)

    def send(self, source: str, target: str, action: Callable[[], None]) -> None:
        """Does something at the target when the message arrives, if it does."""
        is_lost = (source, target) in self._cut or self.random.random() < self.loss_share
        if is_lost:
            return
        slowest_s = SLOW_DELAY_MAX_S if self.random.random() < self.slow_share else DELAY_MAX_S
        self.after(self.random.uniform(DELAY_MIN_S, slowest_s), action)

    def cut(self, source: str, target: str) -> None:
        """Loses messages one way."""
        self._cut.add((source, target))

    def heal(self) -> None:
        """Loses nothing any more."""
        self._cut.clear()
        self.loss_share = 0.0

    def run_until(self, end_s: float) -> None:
        """Lets time pass."""
        while self._queue and self._queue[0][0] <= end_s:
            self.now_s, _, action = heapq.heappop(self._queue)
            action()
        self.now_s = end_s
