"""Gives the content of a shard to a server that joins it."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from feature_server.domain.shard_set import ShardSet
from feature_server.ring.copies import Copies
from feature_server.ring.held_ring import HeldRing
from feature_server.ring.snapshot import CHUNK_BYTES, CHUNK_BYTES_MAX, SnapshotChunk, SnapshotEnd, digest_after
from headrace.errors import InvalidArgument, ResourceExhausted
from headrace.ring.values import Phase
from headrace.serving.principal import Principal

COPIES_AT_ONCE: Final = 2  # each holds a thread of the server and reads the disk as fast as it can
RETRY_MS: Final = 1_000


class SnapshotFolders(Protocol):
    """Folders of checkpoints, beside the shards on the same disk."""

    def new(self, shard: int) -> Path:
        """A path that is not there yet."""

    def chunks(self, folder: Path, chunk_bytes: int) -> Iterator[SnapshotChunk]:
        """The files of a folder."""

    def remove(self, folder: Path) -> None:
        """Deletes a folder."""


class ShardSnapshots:
    """Answers CopyShard."""

    def __init__(self, shards: ShardSet, held: HeldRing, copies: Copies, folders: SnapshotFolders) -> None:
        self._shards = shards
        self._held = held
        self._copies = copies
        self._folders = folders
        self._slots = threading.BoundedSemaphore(COPIES_AT_ONCE)

    def read(
        self, number: int, ring_epoch: int, joining: tuple[str, int], chunk_bytes: int, principal: Principal
    ) -> Iterator[SnapshotChunk | SnapshotEnd]:
        """Chunks and the end. `joining` is the server that joins, and the epoch since which it does."""
        principal.require("PEER")
        if not 0 <= number < len(self._shards):
            raise InvalidArgument(f"there is no shard {number}", reason="UNKNOWN_SHARD", field="shard")
        if not self._slots.acquire(blocking=False):
            raise ResourceExhausted(
                f"{COPIES_AT_ONCE} shards are being copied from this server; try again, or ask another owner",
                reason="TOO_MANY_COPIES",
                retry_after_ms=RETRY_MS,
            )
        try:
            self._freeze(number, ring_epoch, joining)
            yield from self._send(number, min(chunk_bytes or CHUNK_BYTES, CHUNK_BYTES_MAX))
        finally:
            self._slots.release()

    def thaw(self) -> None:
        """Lets shards that are at rest take writes again; to be called when a ring was accepted."""
        for shard in self._shards.shards[: len(self._held.ring.shards)]:
            phase = self._held.phase(shard.number)
            if phase is Phase.JOINING:
                shard.thaw()  # for the rows that it follows; nobody else may write to it
            elif self._held.is_moving(shard.number):
                continue
            elif phase is Phase.SERVING:
                shard.thaw()
            else:
                shard.freeze()  # it is another server's now: a write that was checked before would be lost here

    def _freeze(self, number: int, ring_epoch: int, joining: tuple[str, int]) -> None:
        # Frozen first and looked at after, so that a ring that comes in between thaws it.
        shard = self._shards[number]
        self._copies.check_read([number], ring_epoch)
        shard.freeze()
        if not self._held.is_joining(number, *joining):
            if not self._held.is_moving(number):
                shard.thaw()
            raise self._held.refusal(number, ring_epoch)

    def _send(self, number: int, chunk_bytes: int) -> Iterator[SnapshotChunk | SnapshotEnd]:
        folder = self._folders.new(number)
        try:
            record = self._shards[number].snapshot(folder)
            digest = 0
            for chunk in self._folders.chunks(folder, chunk_bytes):
                digest = digest_after(digest, chunk)
                yield chunk
            yield SnapshotEnd(record.epoch, record.next_offset, record.content_hash, digest)
        finally:
            self._folders.remove(folder)
