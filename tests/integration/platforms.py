"""A platform that `headrace up` runs for the tests, and the command line beside it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
START_LIMIT_S = 90.0
STOP_LIMIT_S = 60.0


def environment(**more: str) -> dict[str, str]:
    """What a child needs to find the checkout, and nothing of this process's own Headrace variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **more}


def headrace(*arguments: str, cwd: Path, limit_s: float = 120.0, **more: str) -> "subprocess.CompletedProcess[str]":
    """One run of the command line."""
    return subprocess.run(
        [sys.executable, "-m", "control_plane.cli.app", *arguments],
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
        cwd=cwd,
        env=environment(**more),
    )


def until(holds: Callable[[], bool], what: str, limit_s: float = START_LIMIT_S) -> None:
    """Returns when the condition holds; fails the test when it does not in time."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, f"not in {limit_s} s: {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children_of(pid: int) -> list[int]:
    """Children that the main thread of a process started."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@dataclass(frozen=True)
class Running:
    """A running `headrace up` in a folder."""

    folder: Path
    process: "subprocess.Popen[str]"

    @property
    def endpoints(self) -> dict[str, Any]:
        """What it wrote for the other commands."""
        found: dict[str, Any] = json.loads((self.folder / ".headrace" / "endpoints.json").read_text())
        return found

    def headrace(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The command line in the same folder."""
        return headrace(*arguments, cwd=self.folder)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signals it and waits for its end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_LIMIT_S)


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Running]:
    """`headrace up` in a folder, gone after the block whatever happened in it."""
    with (folder / "up.out").open("w") as out, (folder / "up.err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "control_plane.cli.app", "up", *options],
            stdout=out,
            stderr=err,
            text=True,
            cwd=folder,
            env=environment(),
        )
    started = Running(folder, process)
    try:
        file = folder / ".headrace" / "endpoints.json"
        until(lambda: file.exists() or process.poll() is not None, "endpoints.json")
        assert process.poll() is None, (folder / "up.err").read_text()
        yield started
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
