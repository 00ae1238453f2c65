"""Snapshots of simulated stores: chunks of rows, and the sink that puts them into another store."""

from collections.abc import Iterator
from typing import Final

from feature_server.domain.log_writes import LogWrite
from feature_server.ring.log import LogRows
from feature_server.ring.snapshot import SnapshotChunk, SnapshotEnd, digest_after, made_chunk
from tests.simulation.disk import SimStore

ROWS_OF_CHUNK: Final = 2
_BREAK: Final = b"\n"
_GAP: Final = b"="


def snapshot_of(store: SimStore) -> tuple[list[SnapshotChunk], SnapshotEnd]:
    """What an owner sends."""
    chunks = list(_chunks(store))
    digest = 0
    for chunk in chunks:
        digest = digest_after(digest, chunk)
    return chunks, SnapshotEnd(1, store.next_offset, 0, digest)


def _chunks(store: SimStore) -> Iterator[SnapshotChunk]:
    rows = list(store.rows.items())
    position = 0
    for start in range(0, len(rows), ROWS_OF_CHUNK):
        data = b"".join(key + _GAP + row + _BREAK for key, row in rows[start : start + ROWS_OF_CHUNK])
        yield made_chunk("rows", position, data)
        position += len(data)


class SimSink:
    """Satisfies SnapshotSink."""

    def __init__(self, store: SimStore) -> None:
        self._store = store
        self._data = b""

    def begin(self) -> None:
        self._store.begin()

    def write(self, chunk: SnapshotChunk) -> None:
        self._data += chunk.data

    def install(self, end: SnapshotEnd) -> None:
        pairs = [line.split(_GAP) for line in self._data.split(_BREAK) if line]
        write = LogWrite(end.next_offset, [key for key, _ in pairs], [row for _, row in pairs])
        self._store.apply(LogRows(0, end.next_offset, [write]))

    def discard(self) -> None:
        self._data = b""
