"""The value rules: total order, row state, value status."""

PRESENT: int
NULL: int
MISSING: int
EXPIRED: int
UNAVAILABLE: int
STATE_MASK: int
DEFAULTED: int
STALE: int
CAUSE_DEADLINE: int
CAUSE_QUARANTINED: int
CAUSE_ERASED: int
CAUSE_MASK: int
WITHHELD: int
FALLBACK_NONE: int
FALLBACK_DEFAULT: int
FALLBACK_EXPIRED_VALUE: int
SLOT_EMPTY: int
SLOT_VALUE: int
SLOT_DEFAULT: int

def order_compare(a: bytes, b: bytes) -> int:
    """-1, 0, 1 as row a is before, equal to or after row b in the total order. Raises ValueError for short rows."""

def row_status(row: bytes | None, read_time_us: int, ttl_us: int, stale_us: int) -> int:
    """Status byte of the non-null values of a row; None means that no row is stored."""

def value_status(
    row_status: int, is_null: bool, fallback: int, has_default: bool, include_expired: bool
) -> tuple[int, int]:
    """Final status byte of a value and what its slot holds (SLOT_EMPTY, SLOT_VALUE, SLOT_DEFAULT)."""
