"""A snapshot on its way from an owner to a joining copy: chunks with checksums, and an end that says what came."""

import re
from typing import Final, NamedTuple, Protocol

from core_ext.hashing import crc32c, xxh3_64
from headrace.errors import DataLoss, HeadraceError

CHUNK_BYTES: Final = 1 << 20
CHUNK_BYTES_MAX: Final = 8 << 20
PART_COUNT_MAX: Final = 100_000  # files of one shard
_MASK: Final = (1 << 64) - 1
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")  # a plain file name, whoever sends it


class SnapshotChunk(NamedTuple):
    """Bytes of one part, such as a file, from a position on."""

    part: str
    position: int
    data: bytes
    checksum: int  # CRC-32C of the data


class SnapshotEnd(NamedTuple):
    """What a snapshot holds: the log before an offset, rows of a content hash, and chunks of a digest."""

    epoch: int
    next_offset: int
    content_hash: int
    digest: int


class SnapshotSink(Protocol):
    """Where a snapshot goes. Raises what the disk refuses."""

    def begin(self) -> None:
        """Forgets what an earlier try left, and what the copy was."""

    def write(self, chunk: SnapshotChunk) -> None:
        """The next bytes of a part."""

    def install(self, end: SnapshotEnd) -> None:
        """All is here and right: from now on it is the content of the copy."""

    def discard(self) -> None:
        """It came to nothing."""


def made_chunk(part: str, position: int, data: bytes) -> SnapshotChunk:
    """A chunk with its checksum."""
    return SnapshotChunk(part, position, data, crc32c(data))


def digest_after(digest: int, chunk: SnapshotChunk) -> int:
    """Digest of all chunks up to one: of their places, sizes and checksums, in order."""
    place = f"{digest}/{chunk.part}/{chunk.position}/{len(chunk.data)}/{chunk.checksum}"
    return xxh3_64(place.encode()) & _MASK


class SnapshotIntake:
    """Holds what arrives to its checksums. Whatever is wrong ends it with DataLoss, and the sink is discarded."""

    def __init__(self, shard: int, sink: SnapshotSink) -> None:
        self._shard = shard
        self._sink = sink
        self._digest = 0
        self._part = ""
        self._parts: set[str] = set()
        self._position = 0
        sink.begin()

    def take(self, chunk: SnapshotChunk) -> None:
        """The next chunk."""
        if chunk.part != self._part:
            if not _NAME.fullmatch(chunk.part) or chunk.part in self._parts or len(self._parts) >= PART_COUNT_MAX:
                raise self._wrong(f"part {chunk.part[:64]!r} is no new plain name")
            self._parts.add(chunk.part)
            self._part, self._position = chunk.part, 0
        if chunk.position != self._position or len(chunk.data) > CHUNK_BYTES_MAX:
            raise self._wrong(f"{chunk.part} goes on at {chunk.position} and not at {self._position}")
        if crc32c(chunk.data) != chunk.checksum:
            raise self._wrong(f"{chunk.part} fails its checksum at {chunk.position}")
        self._position += len(chunk.data)
        self._digest = digest_after(self._digest, chunk)
        try:
            self._sink.write(chunk)
        except HeadraceError:
            self._sink.discard()
            raise

    def finish(self, end: SnapshotEnd | None) -> None:
        """Installs it; without an end, or with another digest, something is missing."""
        if end is None or end.digest != self._digest:
            raise self._wrong("its end does not fit what came")
        self._sink.install(end)

    def _wrong(self, problem: str) -> DataLoss:
        self._sink.discard()
        return DataLoss(
            f"the snapshot of shard {self._shard} is damaged: {problem}; it is taken again",
            reason="SNAPSHOT_DAMAGED",
            metadata={"shard": str(self._shard)},
        )
