"""A thread that does one thing again and again until it is closed."""

import threading
from collections.abc import Callable
from typing import Final

from headrace.errors import HeadraceError
from headrace.serving.logging import EventLog

TICK_S: Final = 1.0  # a tenth of a lease: how late its end is noticed
STOP_WAIT_S: Final = 10.0


class Ticker:
    """Starts at once. What fails is logged, and tried again with the next tick."""

    def __init__(self, step: Callable[[], None], log: EventLog, period_s: float = TICK_S) -> None:
        self._step = step
        self._log = log
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ring", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it after the step that runs."""
        self._stop.set()
        self._thread.join(STOP_WAIT_S)

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            try:
                self._step()
            except HeadraceError as error:
                self._log.warning("ring_step_failed", reason=error.reason, detail=error.message)
            except Exception as error:  # noqa: BLE001 - the outermost loop of a thread
                self._log.failure("ring_step_failed", error)
