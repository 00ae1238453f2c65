"""Notices before a shard is opened that files or parts of them are lost, which RocksDB would take for an older state.

RocksDB gives every write a sequence number. What its manifest has flushed, what the logs hold and what was noted at
the last opening or close must meet without a gap; opening would also delete the files that a damaged manifest does
not name, so that nothing could be restored afterwards.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from feature_server.storage.files import read_file, write_file
from feature_server.storage.wal_check import check_logs, check_manifest
from headrace.errors import DataLoss

ANCHOR_SUFFIX: Final = ".anchor"

_NUMBER_BYTES: Final = 8


def check_shard(path: Path, flushed_sequence: Callable[[], int]) -> None:
    """Raises DataLoss where the folder of a shard lacks what it once held.

    `flushed_sequence` tells the last write that the manifest has flushed; it is asked once the manifest looks whole.
    """
    anchor = noted_sequence(path)
    current = path / "CURRENT"
    if not current.exists():
        if anchor is not None or any(path.glob("*.sst")) or any(path.glob("MANIFEST-*")):
            raise _lost(path, "the file CURRENT is gone")
        return
    logs = check_logs(path)
    manifest = path / current.read_text(errors="replace").strip()
    if not manifest.is_file():
        raise _lost(path, "CURRENT names no manifest")
    check_manifest(manifest)
    flushed = flushed_sequence()
    if logs is not None and logs.first_sequence is not None and logs.first_sequence > flushed + 1:
        raise _lost(path, f"the manifest ends at write {flushed} and the logs begin at {logs.first_sequence}")
    held = max(flushed, (logs.next_sequence or 0) - 1 if logs is not None else 0)
    if anchor is not None and held < anchor:
        raise _lost(path, f"it once held write {anchor} and now ends at {held}")


def note_sequence(path: Path, sequence: int) -> None:
    """Remembers beside the folder that the shard durably holds the writes up to a sequence number."""
    write_file(_anchor(path), sequence.to_bytes(_NUMBER_BYTES, "little"))


def forget_sequence(path: Path) -> None:
    """Forgets what was remembered: the folder is to be begun anew. Raises OSError."""
    _anchor(path).unlink(missing_ok=True)


def noted_sequence(path: Path) -> int | None:
    """What was last remembered; raises DataLoss where the note is damaged."""
    data = read_file(_anchor(path))
    return None if data is None else int.from_bytes(data, "little")


def _anchor(path: Path) -> Path:
    return path.with_name(path.name + ANCHOR_SUFFIX)


def _lost(path: Path, what: str) -> DataLoss:
    return DataLoss(
        f"files of {path.name} are lost or damaged: {what}; restore them, or move the folder and its "
        f"{ANCHOR_SUFFIX} file away to start the shard empty",
        reason="SHARD_FILES_LOST",
        metadata={"folder": path.name},
    )
