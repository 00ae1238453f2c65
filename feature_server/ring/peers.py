"""How well each peer answers: how soon, and whether it is to be left alone for a while."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

SAMPLE_COUNT: Final = 256  # newest latencies of all peers
SAMPLE_COUNT_MIN: Final = 20  # before that many a hedge waits for HEDGE_DEFAULT_S
HEDGE_PERCENTILE: Final = 0.95
HEDGE_DEFAULT_S: Final = 0.05
HEDGE_MIN_S: Final = 0.001  # below it the answer is on its way more often than not
HEDGE_SHARE: Final = 0.05  # of the sub-requests: hedges add at most this load
HEDGE_TOKENS_MAX: Final = 10.0
FAILURES_IN_A_ROW: Final = 5  # Envoy's consecutive_5xx
EJECTION_S: Final = 30.0  # Envoy's base_ejection_time, times the ejections in a row
EJECTION_MAX_S: Final = 300.0
SMOOTHING: Final = 0.2  # weight of the newest latency of a peer


class Latencies:
    """Latencies of sub-requests; gives the time after which one is slow. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: deque[float] = deque(maxlen=SAMPLE_COUNT)
        self._by_peer: dict[str, float] = {}
        self._slow_s = HEDGE_DEFAULT_S
        self._until_sorted = SAMPLE_COUNT_MIN

    def note(self, peer: str, latency_s: float) -> None:
        """One answer came."""
        with self._lock:
            self._newest.append(latency_s)
            held_s = self._by_peer.get(peer, latency_s)
            self._by_peer[peer] = held_s + SMOOTHING * (latency_s - held_s)
            self._until_sorted -= 1
            if self._until_sorted <= 0:
                self._until_sorted = SAMPLE_COUNT_MIN
                ranked = sorted(self._newest)
                self._slow_s = max(HEDGE_MIN_S, ranked[int(HEDGE_PERCENTILE * (len(ranked) - 1))])

    @property
    def slow_s(self) -> float:
        """Age of a sub-request from which on another peer is asked as well."""
        return self._slow_s

    def of(self, peer: str) -> float:
        """Usual latency of a peer; one that was never asked comes first."""
        return self._by_peer.get(peer, 0.0)


class HedgeBudget:
    """Every sub-request earns a part of a hedge."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens = 0.0

    def earn(self) -> None:
        """A sub-request was sent."""
        with self._lock:
            self._tokens = min(HEDGE_TOKENS_MAX, self._tokens + HEDGE_SHARE)

    def spend(self) -> bool:
        """Whether a hedge may be sent now."""
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True


class Outliers:
    """Peers that failed some times in a row are asked last for a while. Safe to share between threads."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._ejections: dict[str, int] = {}
        self._until_s: dict[str, float] = {}

    def succeeded(self, peer: str) -> None:
        """It answered: what it did before is forgotten, but for the ejections, which one answer each takes back."""
        with self._lock:
            self._failures.pop(peer, None)
            if self._clock_s() >= self._until_s.get(peer, 0.0) and self._ejections.get(peer):
                self._ejections[peer] -= 1

    def failed(self, peer: str) -> None:
        """It did not answer in time, or with an error of its own."""
        with self._lock:
            count = self._failures[peer] = self._failures.get(peer, 0) + 1
            if count >= FAILURES_IN_A_ROW:
                self._failures[peer] = 0
                times = self._ejections[peer] = self._ejections.get(peer, 0) + 1
                self._until_s[peer] = self._clock_s() + min(EJECTION_S * times, EJECTION_MAX_S)

    def is_ejected(self, peer: str) -> bool:
        """Whether it is to be asked last."""
        return self._clock_s() < self._until_s.get(peer, 0.0)

    def ejected(self) -> list[str]:
        """Peers that are asked last now."""
        return [peer for peer in self._until_s if self.is_ejected(peer)]
