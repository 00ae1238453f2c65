"""What a shard needs of a storage engine."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol


class RowStore(Protocol):
    """Bytes by key on disk. Any thread may read; one writes at a time.

    Raises DataLoss for stored bytes that fail their check, ResourceExhausted for a full disk and Unavailable for a
    disk that is read-only, out of reach or failing.
    """

    is_read_only: bool

    def get(self, key: bytes) -> bytes | None:
        """Value of one key."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys, None where there is none."""

    def scan(self, start: bytes, count: int) -> list[tuple[bytes, bytes]]:
        """Keys from `start` on, with their values: so many or a few more, fewer only at the end.

        They are not put into the cache of blocks.
        """

    def disk_bytes(self) -> int:
        """Bytes of the files."""

    def write(self, keys: Sequence[bytes], values: Sequence[bytes], *, sync: bool) -> None:
        """Writes all or none; `sync` returns only when the write-ahead log is on stable storage."""

    def replace(self, removed: Iterable[bytes], stored: Mapping[bytes, bytes]) -> None:
        """Removes keys and writes others, all or none."""

    def anchor(self) -> None:
        """Notes how far the store durably is, so that losing files is noticed when it is opened again."""

    def checkpoint(self, folder: Path) -> None:
        """Leaves a whole copy of what is written in a folder that is not there yet, on the same disk."""

    def close(self) -> None:
        """Lets go of files and memory; later calls raise Unavailable."""


class StoreOpener(Protocol):
    """Opens the store of one shard, as often as needed."""

    def open(self) -> RowStore:
        """For reads and writes."""

    def open_read_only(self) -> RowStore:
        """For reads alone, without writing a byte."""

    def probe(self) -> None:
        """Writes and syncs a scratch file; raises ResourceExhausted or Unavailable where that cannot be done."""

    def remove(self) -> None:
        """Deletes what the store was, with all notes about it; it must be closed. Opening then begins an empty one."""

    def install(self, folder: Path) -> None:
        """Puts a checkpoint in the place of the store, which must be closed; the folder is gone after it."""
