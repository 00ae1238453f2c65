"""Child processes of a run: started on loopback, waited for, measured through /proc, and always ended."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from headrace.errors import Unavailable

ROOT: Final = Path(__file__).resolve().parents[2]
READY_S: Final = 60.0  # the slowest start seen is a Feast server with two workers on two busy cores: 15 s
STOP_S: Final = 10.0  # a graceful drain; after that the process is killed
POLL_S: Final = 0.02
LOOPBACK: Final = "127.0.0.1"
CPU_CLOCK_SCHED: Final = 2  # CPUCLOCK_SCHED of linux/posix-timers.h
LOG_TAIL_BYTES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used so far."""

    cpu_s: float
    resident_bytes: int


class Child:
    """One process in its own group with its output in a file; a context manager that ends all of it.

    One that talks has pipes for input and output, and only its errors in the file.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        talks: bool = False,
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self._output: IO[bytes] = log.open("wb")
        self.process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else self._output,
            stderr=self._output,
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def wait_until(self, ready: Callable[[], bool], what: str, limit_s: float = READY_S) -> None:
        """Polls until `ready` holds; a process that ends or is not ready in time is stopped, and Unavailable raised."""
        give_up = time.monotonic() + limit_s
        while not ready():
            ended = self.process.poll() is not None
            if ended or time.monotonic() > give_up:
                how = f"ended with {self.process.returncode}" if ended else f"was not ready after {limit_s:.0f} s"
                tail = self.tail()
                self.stop()
                raise start_failed(f"{what} {how}: {tail}")
            time.sleep(POLL_S)

    def tail(self) -> str:
        """The end of what it wrote."""
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()

    def stop(self) -> None:
        """Asks the process to end, and kills its group when it does not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(STOP_S)
        self._output.close()


def free_port() -> int:
    """A TCP port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether a connection to the port is accepted."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0):
            return True
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found.extend(int(child) for child in task.read_text().split())
            except OSError:  # the thread ended between the listing and the read
                continue
    return found


def usage(pid: int, with_children: bool = True) -> Usage:
    """CPU seconds and resident bytes of a process, by default with everything below it."""
    page = os.sysconf("SC_PAGE_SIZE")
    cpu_s, resident = 0.0, 0
    for one in descendants(pid) if with_children else [pid]:
        try:
            cpu_s += time.clock_gettime(cpu_clock(one))
            resident += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * page
        except OSError:  # a child ended in between
            continue
    return Usage(cpu_s, resident)


def cpu_clock(pid: int) -> int:
    """Linux's clock of a process' CPU time, threads that ended included, in nanoseconds instead of ticks of 10 ms."""
    return (~pid << 3) | CPU_CLOCK_SCHED


def start_failed(message: str) -> Unavailable:
    """The error of a child that did not start or did not answer."""
    return Unavailable(message, reason="PEER_NOT_STARTED")
