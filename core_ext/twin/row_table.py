"""The row table in plain Python: which fills it takes, and what it may answer; the oracle of core_ext.row_table."""

from collections.abc import Sequence

from core_ext.twin.hashing import xxh3_64
from core_ext.twin.rules import order_compare

UNKNOWN, NEWER, NOT_NEWER = 0, 1, 2
_VIEW_ID_BYTES = 4
_SEGMENTS, _STRIPES = 64, 256


class RowTable:
    """Rows by storage key, without a bound: what a table holds that never evicts."""

    def __init__(self) -> None:
        self._rows: dict[bytes, dict[bytes, bytes | None]] = {}  # by entity prefix, by view id
        self._written: dict[tuple[int, int], int] = {}
        self._cleared = 0
        self._ticket = 0

    def ticket(self) -> int:
        """Number to take before a read of storage and to hand to `fill` after it."""
        return self._ticket

    def fill(self, storage_keys: Sequence[bytes], rows: Sequence[bytes | None], ticket: int) -> int:
        """Enters what a read of storage found unless its stripe was written since the ticket."""
        entered = 0
        for key, row in zip(storage_keys, rows, strict=True):
            prefix, view = _split(key)
            if max(self._cleared, self._written.get(stripe_of(prefix), 0)) <= ticket:
                self._rows.setdefault(prefix, {})[view] = row
                entered += 1
        return entered

    def apply(self, storage_keys: Sequence[bytes], rows: Sequence[bytes | None]) -> None:
        """Replaces rows of entities that are held, and marks every stripe as written."""
        last = b""
        for key, row in zip(storage_keys, rows, strict=True):
            prefix, view = _split(key)
            if prefix != last:  # neighbours of one entity are one write
                self._ticket += 1
            last = prefix
            self._written[stripe_of(prefix)] = self._ticket
            if prefix in self._rows:
                self._rows[prefix][view] = row

    def compare(self, storage_keys: Sequence[bytes], rows: Sequence[bytes]) -> bytes:
        """Per row NEWER, NOT_NEWER or UNKNOWN."""
        return bytes(self._compare(*pair) for pair in zip(storage_keys, rows, strict=True))

    def lookup(self, storage_keys: Sequence[bytes]) -> list[bytes | int | None]:
        """Per key the row held, None, or UNKNOWN."""
        found: list[bytes | int | None] = []
        for key in storage_keys:
            prefix, view = _split(key)
            found.append(self._rows.get(prefix, {}).get(view, UNKNOWN))
        return found

    def clear(self) -> None:
        """Drops every entry, and every fill whose ticket is older."""
        self._rows.clear()
        self._ticket += _SEGMENTS
        self._cleared = self._ticket

    def counts(self) -> tuple[int, int]:
        """Entities and rows held."""
        rows = [row for views in self._rows.values() for row in views.values() if row is not None]
        return len(self._rows), len(rows)

    def _compare(self, key: bytes, row: bytes) -> int:
        (held,) = self.lookup([key])
        if isinstance(held, int):
            return UNKNOWN
        return NEWER if held is None or order_compare(row, held) > 0 else NOT_NEWER


def stripe_of(prefix: bytes) -> tuple[int, int]:
    """Segment and stripe whose mark a write of the entity raises."""
    hashed = xxh3_64(prefix)
    return hashed % _SEGMENTS, (hashed >> 40) % _STRIPES


def _split(key: bytes) -> tuple[bytes, bytes]:
    return key[:-_VIEW_ID_BYTES], key[-_VIEW_ID_BYTES:]
