"""A memory limit for a process and its children, by the memory controller of Linux, as root."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtest.peers.processes import start_failed

V1: Final = Path("/sys/fs/cgroup/memory")
V2: Final = Path("/sys/fs/cgroup")
ENTER: Final = 'echo $$ > "$0" && exec "$@"'  # the shell becomes the process, already inside the limit


@dataclass(frozen=True, slots=True)
class Limit:
    """A group of processes with a memory limit, page cache included."""

    folder: Path

    def command(self, words: list[str]) -> list[str]:
        """The command line that starts inside the group."""
        return ["sh", "-c", ENTER, str(self.folder / "cgroup.procs"), *words]


@contextmanager
def limited(name: str, memory_bytes: int) -> Iterator[Limit]:
    """Makes the group and removes it; its processes must have ended by then."""
    is_v1 = (V1 / "memory.limit_in_bytes").exists()
    folder = (V1 if is_v1 else V2) / name
    try:
        folder.mkdir(exist_ok=True)
        (folder / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(memory_bytes))
    except OSError as error:
        raise start_failed(f"a memory limit needs root and the memory controller: {error}") from error
    try:
        yield Limit(folder)
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(folder)
