"""Storage keys from outside: what is a row, and of which view. docs/decisions/0001-key-bytes.md draws them."""

from typing import Final

VIEW_ID_BYTES: Final = 4  # at the end of a row's key
RECORDS: Final = bytes(4)  # entity id 0: a shard's own records, which end in other numbers than view ids


def is_record(key: bytes) -> bool:
    """Whether it is the key of one of the shard's own records."""
    return key.startswith(RECORDS)


def view_id_of(key: bytes) -> int:
    """View of a row by its key."""
    return int.from_bytes(key[-VIEW_ID_BYTES:], "big")
