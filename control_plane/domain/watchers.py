"""Watchers of the registry: a bounded number of callers that wait for a revision."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from headrace.errors import ResourceExhausted

WATCHER_COUNT_MAX: Final = 128  # each holds one thread of the server; a deployment has some tens of servers
POLL_INTERVAL_S: Final = 1.0  # bound on how late a change made by another process is seen


class Watchers:
    """Counts watchers and wakes them when a revision is committed, when one of them leaves, and at the end."""

    def __init__(self, count_max: int = WATCHER_COUNT_MAX, poll_interval_s: float = POLL_INTERVAL_S) -> None:
        self._count_max = count_max
        self._poll_interval_s = poll_interval_s
        self._changed = threading.Condition()
        self._count = 0
        self._wakes = 0
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the end has come."""
        return self._is_closed

    @property
    def count(self) -> int:
        """Watchers now."""
        return self._count

    @contextmanager
    def enrolled(self) -> Iterator[None]:
        """Counts one watcher in and out; raises ResourceExhausted over the bound."""
        with self._changed:
            if self._count >= self._count_max:
                raise ResourceExhausted(
                    f"{self._count_max} watchers are being served, which is the bound; try again later",
                    reason="TOO_MANY_WATCHERS",
                    metadata={"watcher_count_max": str(self._count_max)},
                    retry_after_ms=5_000,
                )
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1

    def wake(self) -> None:
        """Lets every watcher look again."""
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Ends every wait now and from now on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def ticket(self) -> int:
        """Number of wakes so far; taken before a look, so that a wake during the look is not missed."""
        return self._wakes

    def wait(self, ticket: int) -> None:
        """Returns at the first wake after the ticket, at the end, or when the poll interval has passed."""
        with self._changed:
            self._changed.wait_for(lambda: self._wakes != ticket or self._is_closed, self._poll_interval_s)
