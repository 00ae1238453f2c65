"""A thread that runs a stream processor, and begins anew after a failure, later each time."""

import threading
from collections.abc import Callable
from random import Random
from typing import Final

from arroyo.processing.processor import StreamProcessor

from feature_server.pipeline.consumer import Batch
from headrace.errors import DataLoss, HeadraceError
from headrace.serving.logging import EventLog
from headrace.serving.priority import lower_priority

BACKOFF_MIN_S: Final = 0.2
BACKOFF_MAX_S: Final = 10.0
JITTER: Final = 0.2
STEADY_S: Final = 30.0  # after which a failure counts as the first again
STOP_WAIT_S: Final = 30.0


class Supervised:
    """Owns the thread, which yields to others by steps of niceness.

    After lost events it stops for good, as a person must say where to go on, unless it holds back what lost them.
    """

    def __init__(
        self,
        name: str,
        processor: Callable[[], StreamProcessor[Batch]],
        log: EventLog,
        random: Random,
        clock_s: Callable[[], float],
        *,
        holds_back: bool = False,
        niceness: int = 0,
    ) -> None:
        self._holds_back = holds_back
        self._niceness = niceness
        self._name = name
        self._clock_s = clock_s
        self._processor = processor
        self._log = log
        self._random = random
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._running: StreamProcessor[Batch] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.alarm: HeadraceError | None = None

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def close(self) -> None:
        """Ends it, once what is under way is done."""
        self._stop.set()
        with self._lock:
            if self._running is not None:
                self._running.signal_shutdown()
        if self._thread.is_alive():
            self._thread.join(STOP_WAIT_S)

    def _run(self) -> None:
        lower_priority(self._niceness)
        backoff_s = BACKOFF_MIN_S
        while not self._stop.is_set():
            begun_s = self._clock_s()
            try:
                self._run_once()
            except DataLoss as error:
                what = "stream_restarts" if self._holds_back else "stream_stopped"
                self._log.error(what, stream=self._name, reason=error.reason, detail=error.message)
                if not self._holds_back:
                    self.alarm = error
                    return
            except HeadraceError as error:
                self._log.warning("stream_restarts", stream=self._name, reason=error.reason, detail=error.message)
            except Exception as error:  # noqa: BLE001 - the outermost loop of a thread
                self._log.failure("stream_failed", error, stream=self._name)
            if self._clock_s() - begun_s > STEADY_S:
                backoff_s = BACKOFF_MIN_S
            self._stop.wait(backoff_s * self._random.uniform(1 - JITTER, 1 + JITTER))
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    def _run_once(self) -> None:
        processor = self._processor()
        with self._lock:
            self._running = processor
        if self._stop.is_set():
            processor.signal_shutdown()
        processor.run()
