"""Child processes of a platform: started, watched, and stopped so that none is left."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from headrace.errors import Unavailable

START_LIMIT_S: Final = 60.0  # a cold start that compiles bytecode on a busy small machine
STOP_LIMIT_S: Final = 20.0  # longer than a server drains
LOG_BYTES_MAX: Final = 64 << 20  # of one log file; one older file is kept beside it
_LAST_LINES_MAX: Final = 20


class Child:
    """One server process. Must be made by the main thread, as the kernel ties a child to the thread that made it."""

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], log: Path, *, ended: "queue.SimpleQueue[str]"
    ) -> None:
        assert threading.current_thread() is threading.main_thread(), "children end with the thread that made them"
        self.name = name
        self._log = log
        self._last: deque[str] = deque(maxlen=_LAST_LINES_MAX)
        self._listening: queue.SimpleQueue[Mapping[str, object] | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "control_plane.cli.child", str(os.getpid()), module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # a Ctrl-C of the terminal reaches us alone, and we stop the children in order
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout, ended), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def listening(self) -> Mapping[str, object]:
        """Its event "listening" with address and ports; raises Unavailable when it ends first or takes too long."""
        try:
            event = self._listening.get(timeout=START_LIMIT_S)
        except queue.Empty:
            event = None
        if event is None:
            raise Unavailable(self.death(), reason="SERVER_NOT_STARTED", metadata={"server": self.name})
        return event

    def death(self) -> str:
        """One line on how it ended, with the last line that it wrote."""
        code = self._process.poll()
        how = (
            "did not answer"
            if code is None
            else f"ended with signal {-code}"
            if code < 0
            else f"ended with exit {code}"
        )
        last = next((line for line in reversed(self._last) if line), "")
        return f"the {self.name} {how}{': ' + last if last else ''} (log: {self._log})"

    def stop(self) -> None:
        """Asks it to drain, and after the limit kills it."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_LIMIT_S)

    def _read(self, lines: IO[bytes], ended: "queue.SimpleQueue[str]") -> None:
        with RotatingLog(self._log) as log:
            for raw in lines:
                log.write(raw)
                line = raw.decode("utf-8", "replace").strip()
                event = _event(line)
                if event.get("event") == "listening":
                    self._listening.put(event)
                self._last.append(str(event.get("message") or event.get("detail") or line))
        self._process.wait()
        self._listening.put(None)
        ended.put(self.name)


class RotatingLog:
    """A log file within a bound: when full it becomes FILE.1 and a new one begins."""

    def __init__(self, path: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
        self._path = path
        self._bytes_max = bytes_max
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def write(self, line: bytes) -> None:
        """Adds a line."""
        if self._file.tell() + len(line) > self._bytes_max:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("ab")
        self._file.write(line)
        self._file.flush()

    def __enter__(self) -> "RotatingLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _event(line: str) -> dict[str, object]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
