"""One core for a server and another for its load, so that requests a second are those of one core for every peer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loadtest.peers.processes import descendants


@contextmanager
def one_core_each(pid: int) -> Iterator[bool]:
    """Keeps every thread of the server on the first core, and what this thread starts meanwhile on the second.

    Gives False, and moves nothing, where this process may use one core alone.
    """
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        yield False
        return
    _move(pid, {usable[0]})
    os.sched_setaffinity(0, {usable[1]})  # of this thread; processes that it starts inherit it
    try:
        yield True
    finally:
        os.sched_setaffinity(0, usable)
        _move(pid, usable)


def _move(pid: int, cores: set[int] | list[int]) -> None:
    for one in descendants(pid):
        for task in Path(f"/proc/{one}/task").iterdir():
            with suppress(ProcessLookupError):  # the thread ended between the listing and the move
                os.sched_setaffinity(int(task.name), cores)
