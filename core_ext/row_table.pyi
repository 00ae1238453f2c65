"""Bounded table of entity rows: entity prefix to the rows of its views, readable without the GIL."""

from collections.abc import Iterable, Sequence
from typing import Final, final

UNKNOWN: Final[int]
NEWER: Final[int]
NOT_NEWER: Final[int]

@final
class RowTable:
    """Rows by storage key, at most `capacity_bytes` of memory, index included; evicts by CLOCK.

    What was replaced or evicted while a read lasts comes on top until that read ends.

    Any thread may call any method; readers take no lock. Storage keys are those of `core_ext.keys`;
    rows must have passed `core_ext.row_codec.check_row`. Raises ValueError for a key or row too short.
    """

    capacity_bytes: int

    def __init__(self, capacity_bytes: int) -> None: ...
    def ticket(self) -> int:
        """Number to take before a read of storage and to hand to `fill` after it."""
    def fill(self, storage_keys: Sequence[bytes], rows: Sequence[bytes | None], ticket: int) -> int:
        """Enters what a read of storage found (None: no row is stored); returns how many were entered.

        An entry whose stripe was written since the ticket is dropped: what the read saw may be old.
        """
    def apply(self, storage_keys: Sequence[bytes], rows: Sequence[bytes]) -> None:
        """Replaces rows after their commit. Entities that the table does not hold are only marked as written."""
    def compare(self, storage_keys: Sequence[bytes], rows: Sequence[bytes]) -> bytes:
        """Per row NEWER, NOT_NEWER or, where the table cannot tell, UNKNOWN; by the total order."""
    def get(self, storage_key: bytes) -> bytes | None:
        """The row held; None where the key is known to have none. Raises KeyError where it is not known."""
    def lookup(self, storage_keys: Iterable[bytes]) -> list[bytes | int | None]:
        """Per key the row held, None where it is known to have none, UNKNOWN where it is not known."""
    def clear(self) -> None:
        """Drops every entry."""
    def stats(self) -> dict[str, int]:
        """entity_count, row_count, used_bytes, eviction_count, dropped_fill_count."""
