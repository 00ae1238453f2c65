"""Twin of core_ext.rules: the value rules said as plainly as they can be."""

import struct
from typing import Final

PRESENT, NULL, MISSING, EXPIRED, UNAVAILABLE = 1, 2, 3, 4, 5
STATE_MASK: Final = 0x0F
DEFAULTED, STALE = 0x10, 0x20
CAUSE_DEADLINE, CAUSE_QUARANTINED, CAUSE_ERASED = 0x40, 0x80, 0xC0
WITHHELD = 0x40
CAUSE_MASK: Final = 0xC0
FALLBACK_NONE, FALLBACK_DEFAULT, FALLBACK_EXPIRED_VALUE = 1, 2, 3
SLOT_EMPTY, SLOT_VALUE, SLOT_DEFAULT = 0, 1, 2

_ROW_BYTES_MIN: Final = 68
_TOMBSTONE: Final = 1
_AGE_MAX: Final = 2**63 - 1  # ages saturate: the core holds them in 64 bits


def order_of(row: bytes) -> tuple[int, int, int, int, int]:
    """Event time, write time, source id, partition, offset: what rows are ordered by. Raises ValueError."""
    if len(row) < _ROW_BYTES_MIN:
        raise ValueError("the row is too short")
    event_time, write_time = struct.unpack_from("<qq", row, 16)
    (source_id,) = struct.unpack_from("<I", row, 12)
    offset, partition = struct.unpack_from("<qi", row, 40)
    return event_time, write_time, source_id, partition, offset


def order_compare(a: bytes, b: bytes) -> int:
    """-1, 0, 1 as row a is before, equal to or after row b."""
    first, second = order_of(a), order_of(b)
    return (first > second) - (first < second)


def row_status(row: bytes | None, read_time_us: int, ttl_us: int, stale_us: int) -> int:
    """Status byte of the non-null values of a row; None means that no row is stored."""
    if row is None:
        return MISSING
    event_time_us = order_of(row)[0]
    tombstone = bool(struct.unpack_from("<H", row, 2)[0] & _TOMBSTONE)
    return status_at(event_time_us, tombstone, read_time_us, ttl_us, stale_us)


def status_at(event_time_us: int, tombstone: bool, read_time_us: int, ttl_us: int, stale_us: int) -> int:
    """The same from the event time of a row and whether it is a tombstone."""
    if tombstone:
        return MISSING | CAUSE_ERASED
    age_us = min(max(read_time_us - event_time_us, 0), _AGE_MAX)
    expired = 0 < ttl_us <= age_us
    stale = 0 < stale_us < age_us
    return (EXPIRED if expired else PRESENT) | (STALE if stale else 0)


def value_status(
    row_status: int, is_null: bool, fallback: int, has_default: bool, include_expired: bool
) -> tuple[int, int]:
    """Final status byte of a value and what its slot holds."""
    state = row_status & STATE_MASK
    if state == PRESENT and not is_null:
        return row_status, SLOT_VALUE
    if state == PRESENT:
        row_status += NULL - PRESENT
    if state == EXPIRED and not is_null and (include_expired or fallback == FALLBACK_EXPIRED_VALUE):
        return row_status, SLOT_VALUE
    if has_default and fallback != FALLBACK_NONE:
        return row_status | DEFAULTED, SLOT_DEFAULT
    return row_status | (WITHHELD if state == EXPIRED else 0), SLOT_EMPTY
