"""One job in a process of its own: `python -m batch.jobs.worker`.

A JSON line on stdin says what to do: {"command", "lake", "registry", "token", "confined", "roots", "arguments"}.
JSON lines on stdout say how it goes: {"progress": [stage, done, total]} at most every PROGRESS_S, and at the end one
{"result": {...}} or {"error": {...}}; exit code 0 or 1. SIGINT, or the end of stdin when the parent
is gone, breaks the job off: it takes away what it has begun and says nothing.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from batch.jobs.commands import COMMANDS
from batch.jobs.context import Context
from headrace.errors import HeadraceError, InternalError, InvalidArgument, ResourceExhausted

PROGRESS_S: Final = 0.2
EXIT_BROKEN_OFF: Final = 3
BREAK_OFF_LIMIT_S: Final = 10.0


class Lines:
    """JSON lines to the parent, from any thread."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._next_s = 0.0
        self._stage = ""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tells a step; one that comes too soon after the last is left out, unless it opens or ends a stage."""
        now = time.monotonic()
        with self._lock:
            if stage == self._stage and now < self._next_s and done < total:
                return
            self._stage, self._next_s = stage, now + PROGRESS_S
            self._write({"progress": [stage, done, total]})

    def end(self, document: Mapping[str, Any]) -> None:  # Any: JSON values
        """Tells the result or the error."""
        with self._lock:
            self._write(document)

    def _write(self, document: Mapping[str, Any]) -> None:  # Any: as above
        self._out.write(json.dumps(document) + "\n")
        self._out.flush()


def run(order: Mapping[str, Any], lines: Lines) -> int:  # Any: JSON values
    """Carries out an order and tells how it ended."""
    try:
        command = COMMANDS.get(order.get("command", ""))
        if command is None:
            raise InvalidArgument(f"command {order.get('command')!r} is unknown", reason="UNKNOWN_COMMAND")
        context = Context(
            lake=Path(order["lake"]),
            registry=order.get("registry", ""),
            token=order.get("token"),
            confined=bool(order.get("confined")),
            roots=tuple(order.get("roots", ())),
            progress=lines.progress,
        )
        lines.end({"result": command(context, order["arguments"])})
    except HeadraceError as error:
        lines.end({"error": error_document(error)})
        return 1
    except MemoryError as error:
        exhausted = ResourceExhausted(f"the job ran out of memory: {error}; lower its limit", reason="OUT_OF_MEMORY")
        lines.end({"error": error_document(exhausted)})
        return 1
    except Exception as error:  # noqa: BLE001 - the outermost loop of a worker answers everything
        bug = InternalError(f"the job failed: {type(error).__name__}: {error}", reason="INTERNAL")
        lines.end({"error": error_document(bug)})
        return 1
    return 0


def error_document(error: HeadraceError) -> dict[str, Any]:  # Any: JSON values
    """JSON form of an error."""
    return {
        "code": error.code,
        "reason": error.reason,
        "field": error.field,
        "message": error.message,
        "metadata": error.metadata,
    }


def _await_parent(stdin: TextIO) -> None:
    stdin.read()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(BREAK_OFF_LIMIT_S)
    os._exit(EXIT_BROKEN_OFF)


def main() -> int:
    """Reads the order, runs it."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_await_parent, args=(sys.stdin,), daemon=True).start()
    try:
        return run(order, Lines(sys.stdout))
    except KeyboardInterrupt:
        return EXIT_BROKEN_OFF


if __name__ == "__main__":
    code = main()
    os._exit(code)  # the thread that waits for the parent holds stdin, which a plain exit would wait for
