"""Power cuts: takes a folder back to what its journal says was on stable storage."""

import os
import random
import shutil
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

_ZERO_BLOCK_BYTES: Final = 4096  # file systems leave whole blocks of zeros where data was not yet written


class Tail(Enum):
    """What stands in a file after its last stable byte."""

    NOTHING = "nothing"
    PART = "part"
    ZEROS = "zeros"


@dataclass(frozen=True, slots=True)
class NameChange:
    """A name made, changed or removed since the last sync of its folder."""

    kind: str
    path: Path
    origin: Path | None = None
    kept: Path | None = None


@dataclass(slots=True)
class Journal:
    """What shim/journal.c writes about one life of a server."""

    file: Path
    root: Path
    kept: Path
    stable_bytes: dict[int, int] = field(default_factory=dict)
    pending: list[NameChange] = field(default_factory=list)

    @classmethod
    def begin(cls, folder: Path, root: Path) -> "Journal":
        """Journal of a life that starts now: what lies under root counts as stable."""
        kept = folder / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        file = folder / "journal"
        file.write_bytes(b"")
        journal = cls(file, root, kept)
        for path in _files(root):
            status = path.stat()
            journal.stable_bytes[status.st_ino] = status.st_size
        return journal

    def environment(self, library: Path) -> dict[str, str]:
        """What the server needs to be journaled."""
        return {
            "LD_PRELOAD": str(library),
            "HEADRACE_JOURNAL": str(self.file),
            "HEADRACE_JOURNAL_ROOT": str(self.root),
            "HEADRACE_JOURNAL_KEPT": str(self.kept),
        }

    def cut_power(self, random_source: random.Random, tail: Tail) -> str:
        """Drops what was not stable, after the server's death: a suffix of the name changes, then the file tails.

        Returns one line saying what was dropped.
        """
        for line in self.file.read_text().splitlines():
            self._replay(line)
        kept_count = 0 if tail is Tail.NOTHING else random_source.randint(0, len(self.pending))
        for change in reversed(self.pending[kept_count:]):
            _undo(change)
        dropped = [self._cut(path, random_source, tail) for path in _files(self.root)]
        name_count, file_count = len(self.pending) - kept_count, sum(map(bool, dropped))
        return f"dropped {sum(dropped)} bytes of {file_count} files and {name_count} name changes, tail {tail.value}"

    def _replay(self, line: str) -> None:
        kind, rest = line[0], line[2:]
        match kind:
            case "S":
                inode, size = map(int, rest.split())
                self.stable_bytes[inode] = size
            case "T":
                self.stable_bytes[int(rest)] = 0
            case "D":
                folder = Path(rest)
                self.pending = [change for change in self.pending if change.path.parent != folder]
            case "C":
                self.pending.append(NameChange("C", Path(rest)))
            case "R":
                origin, path, kept = rest.split("\t")
                self.pending.append(NameChange("R", Path(path), Path(origin), Path(kept) if kept else None))
            case "U":
                removed, kept = rest.split("\t")
                self.pending.append(NameChange("U", Path(removed), None, Path(kept) if kept else None))
            case _:
                raise ValueError(f"unknown journal line {line!r}")

    def _cut(self, path: Path, random_source: random.Random, tail: Tail) -> int:
        status = path.stat()
        stable = min(self.stable_bytes.get(status.st_ino, 0), status.st_size)
        if tail is Tail.PART:
            stable = random_source.randint(stable, status.st_size)
        lost = status.st_size - stable
        if lost:
            os.truncate(path, stable)
        if tail is Tail.ZEROS and lost:
            with path.open("ab") as file:
                file.write(bytes(min(lost, random_source.randint(1, 4) * _ZERO_BLOCK_BYTES)))
        return lost


def _undo(change: NameChange) -> None:
    if change.kind == "C":
        if change.path.is_dir():
            shutil.rmtree(change.path)
        else:
            change.path.unlink(missing_ok=True)
    elif change.kind == "R":
        assert change.origin is not None, "a rename has an origin"
        if change.path.exists():
            change.path.rename(change.origin)
    if change.kept is not None and change.kept.exists() and not change.path.exists():
        os.link(change.kept, change.path)


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
