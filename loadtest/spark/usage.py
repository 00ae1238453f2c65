"""Processors and memory of a family of processes while a job runs."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import psutil

INTERVAL_S: Final = 0.5


class Usage:
    """Samples the descendants of some processes; those that end between two samples are counted up to the last one."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = roots
        self._seconds: dict[tuple[int, float], float] = {}
        self.peak_bytes = 0

    @property
    def core_seconds(self) -> float:
        """Processor time of all of them together."""
        return sum(self._seconds.values())

    def sample(self) -> None:
        """Looks once."""
        total = 0
        for root in self._roots:
            try:
                family = [process := psutil.Process(root), *process.children(recursive=True)]
            except psutil.Error:
                continue
            total = max(total, sum(self._one(process) for process in family))
        self.peak_bytes = max(self.peak_bytes, total)

    def leave_out(self, before: "Usage") -> None:
        """Takes off what processes had spent before."""
        for process, seconds in before._seconds.items():
            if process in self._seconds:
                self._seconds[process] -= seconds

    def _one(self, process: psutil.Process) -> int:
        try:
            with process.oneshot():
                times = process.cpu_times()
                self._seconds[process.pid, process.create_time()] = times.user + times.system
                return int(process.memory_info().rss)
        except psutil.Error:
            return 0


@contextmanager
def sampled(roots: Sequence[int]) -> Iterator[Usage]:
    """Usage within the block, from nought; the memory is that of the largest family of one root."""
    before, usage, stop = Usage(roots), Usage(roots), threading.Event()
    before.sample()

    def run() -> None:
        while not stop.wait(INTERVAL_S):
            usage.sample()

    usage.sample()
    thread = threading.Thread(target=run, name="usage", daemon=True)
    thread.start()
    try:
        yield usage
    finally:
        stop.set()
        thread.join()
        usage.sample()
        usage.leave_out(before)
