"""Structured logs: one JSON object per line, an event name with fields."""

import json
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TextIO

VALUE_LENGTH_MAX: Final = 4_096  # characters of one field; a log line must stay a line


class EventLog:
    """Writes events to a stream. `clock` gives seconds since the epoch."""

    def __init__(self, component: str, clock: Callable[[], float], stream: TextIO | None = None) -> None:
        self._component = component
        self._clock = clock
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()

    def info(self, event: str, **fields: object) -> None:
        """Something normal that a person may look for."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something that needs a look when it repeats."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something that needs a person."""
        self._write("error", event, fields)

    def failure(self, event: str, error: BaseException, **fields: object) -> None:
        """An exception that nobody expected, with its stack."""
        stack = "".join(traceback.format_exception(error))[-VALUE_LENGTH_MAX:]
        self._write("error", event, {**fields, "exception": repr(error), "stack": stack})

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        time = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        record = {"time": time, "level": level, "component": self._component, "event": event}
        line = json.dumps(record | {key: _plain(value) for key, value in fields.items()}, ensure_ascii=False)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)[:VALUE_LENGTH_MAX]
