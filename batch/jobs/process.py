"""One job in a worker process: started, followed line by line, stopped so that nothing of it stays."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from batch.historical.join import Progress
from batch.historical.tables import located
from headrace.errors import HeadraceError

MODULE: Final = "batch.jobs.worker"
STOP_LIMIT_S: Final = 10.0
_LAST_LINES: Final = 2_000  # bytes of stderr that an error quotes

Document = dict[str, Any]  # Any: JSON values


class WorkerProcess:
    """A worker under way. `stop` may come from any thread, at any time."""

    def __init__(self, order: Mapping[str, Any], folder: Path) -> None:  # Any: JSON values
        self._folder = folder
        self._errors = folder / "stderr"
        self._is_stopped = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                process_group=0,
            )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._process.poll()  # its end is told by `follow`

    @property
    def is_stopped(self) -> bool:
        """Whether somebody asked for its end."""
        return self._is_stopped.is_set()

    def follow(self, progress: Progress) -> Document:
        """Its last word, {"result": …} or {"error": …}, after the process has ended."""
        assert self._process.stdout is not None
        last: Document = {}
        for line in self._process.stdout:
            message = json.loads(line)
            if "progress" in message:
                progress(*message["progress"])
            else:
                last = message
        code = self._process.wait()
        return last or {"error": _silent_end(code, self._errors)}

    def stop(self) -> None:
        """Ends the process on somebody's wish."""
        self._is_stopped.set()
        self._end()

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def close(self) -> None:
        """Drops the pipes and the folder of the job."""
        self._end()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        shutil.rmtree(self._folder, ignore_errors=True)


def drop_partial(output: str, run_id: str) -> None:
    """Removes what a killed run left beside its output; a whole result is never touched."""
    try:
        filesystem, path = located(output)
        filesystem.delete_file(f"{path}.{run_id.replace('-', '')}.partial")
    except (OSError, HeadraceError):
        return  # there is none


def _silent_end(code: int, errors: Path) -> Document:
    text = errors.read_bytes()[-_LAST_LINES:].decode("utf-8", "replace").strip().splitlines()
    said = f": {text[-1]}" if text else ""
    return {
        "code": "UNAVAILABLE",
        "reason": "JOB_ENDED",
        "field": "",
        "message": f"the job's process ended with exit {code}{said}; the machine may be out of memory: lower the limit",
        "metadata": {"exit": str(code)},
    }
