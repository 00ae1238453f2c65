"""Preloaded shims: compiled by the tests, armed through shared files."""

import errno
import mmap
import struct
import subprocess
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Final

SHIM_FOLDER: Final = Path(__file__).parent / "shim"
COMPILE_LIMIT_S: Final = 60
_RULE: Final = struct.Struct("<6i104s")  # struct rule of shim/faults.c
_ARMED_OFFSET: Final = 0
_COUNTDOWN_OFFSET: Final = 4
_HITS_OFFSET: Final = 20


class Op(IntFlag):
    """File operations that a rule counts; the numbers are those of shim/faults.c."""

    WRITE = 1
    SYNC = 2
    RENAME = 4
    OPEN = 8
    UNLINK = 16
    CREATE = 32
    READ = 64


class Action(IntEnum):
    """What happens at the hit: an errno, or the end of the process."""

    KILL = -1
    TEAR = -2
    EIO = errno.EIO
    ENOSPC = errno.ENOSPC
    EMFILE = errno.EMFILE
    EROFS = errno.EROFS
    EACCES = errno.EACCES


class When(IntEnum):
    """On which side of the operation the process is killed."""

    BEFORE = 0
    AFTER = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """The operation number `nth` (from 0) of kind `ops` on a path that contains `match`, and `times - 1` after it."""

    ops: Op
    action: Action
    match: str = ""
    nth: int = 0
    times: int = 1
    when: When = When.BEFORE

    def __str__(self) -> str:
        return f"{self.action.name} {self.when.name} {self.ops!r} #{self.nth} of *{self.match}*"


class FaultRule:
    """The rule of one server, shared with it."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_RULE.size))
        self.path = path
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _RULE.size)

    def arm(self, fault: Fault) -> None:
        """Starts counting. The operations are written last: until then the shim lets everything pass."""
        self.disarm()
        match = fault.match.encode()
        rule = _RULE.pack(0, fault.nth, fault.times, fault.action, fault.when, 0, match)
        self._memory[: _RULE.size] = rule
        struct.pack_into("<i", self._memory, _ARMED_OFFSET, fault.ops)

    def disarm(self) -> None:
        """Lets everything pass."""
        struct.pack_into("<i", self._memory, _ARMED_OFFSET, 0)

    @property
    def hits(self) -> int:
        """How often the fault has happened."""
        (count,) = struct.unpack_from("<i", self._memory, _HITS_OFFSET)
        return int(count)

    @property
    def countdown(self) -> int:
        """How many more matching operations are let through."""
        (count,) = struct.unpack_from("<i", self._memory, _COUNTDOWN_OFFSET)
        return int(count)

    def environment(self, library: Path) -> dict[str, str]:
        """What the server needs to come under this rule."""
        return {"LD_PRELOAD": str(library), "HEADRACE_FAULT_RULE": str(self.path)}


def compile_shim(name: str, folder: Path) -> Path:
    """Shared library of shim/NAME.c, built by the system's C compiler."""
    library = folder / f"{name}.so"
    flags = "-O1 -Wall -Wextra -Werror -shared -fPIC"
    files = ["-o", str(library), str(SHIM_FOLDER / f"{name}.c"), "-ldl"]
    subprocess.run(["cc", *flags.split(), *files], check=True, timeout=COMPILE_LIMIT_S)
    return library
