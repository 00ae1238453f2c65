"""Length of a thread's turn in the interpreter: short only while long work runs beside hot calls."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

# docs/decisions/0011-turns.md has the measurements.
LONG_S: Final = 0.005  # the interpreter's own
SHORT_S: Final = 0.0005  # beside a writer, a read then waits half a millisecond for the interpreter, not 5


class Turns:
    """Owns the switch interval of the process."""

    def __init__(self, set_interval: Callable[[float], None] = sys.setswitchinterval) -> None:
        self._set_interval = set_interval
        self._lock = threading.Lock()
        self._running_count = 0

    @contextmanager
    def short(self) -> Iterator[None]:
        """Keeps turns short inside the block, and as long as any thread is inside one."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, step: int) -> None:
        with self._lock:
            was_idle = self._running_count == 0
            self._running_count += step
            if was_idle or self._running_count == 0:
                self._set_interval(SHORT_S if was_idle else LONG_S)
