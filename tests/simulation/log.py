"""The log of every shard: what it acknowledged stays, in order; its oldest part may be trimmed."""

from collections.abc import Sequence
from typing import Final

from feature_server.domain.log_writes import LogWrite
from feature_server.ring.log import LogRange, LogRows

CHUNK_ROWS: Final = 8


class SimLog:
    """One list of rows per shard."""

    def __init__(self, shard_count: int) -> None:
        self._rows: list[list[tuple[bytes, bytes]]] = [[] for _ in range(shard_count)]
        self._first = [0] * shard_count

    def append(self, shard: int, key: bytes, row: bytes) -> int:
        """Offset of the row."""
        self._rows[shard].append((key, row))
        return len(self._rows[shard]) - 1

    def range(self, shard: int) -> LogRange:
        """What is kept."""
        return LogRange(self._first[shard], len(self._rows[shard]))

    def read(self, shard: int, start: int) -> LogRows:
        """Rows from an offset on, or from the first that is kept."""
        first = max(start, self._first[shard])
        chunk = self._rows[shard][first : first + CHUNK_ROWS]
        writes = [LogWrite(offset + 1, [key], [row]) for offset, (key, row) in enumerate(chunk, first)]
        return LogRows(first, first + len(chunk), writes)

    def trim(self, shard: int, offset: int) -> None:
        """Drops what lies before an offset."""
        self._first[shard] = max(self._first[shard], offset)

    def fold(self, shard: int, next_offset: int) -> dict[bytes, bytes]:
        """What a copy holds that has applied everything before an offset."""
        return dict(self._rows[shard][:next_offset])

    def all_rows(self, shard: int) -> Sequence[tuple[bytes, bytes]]:
        """Everything that was ever written."""
        return self._rows[shard]
