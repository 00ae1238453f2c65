"""The value rules: total order, row state, value status."""

from libc.stdint cimport int64_t, uint8_t


cdef extern from "hr_rules.h" nogil:
    enum:
        HR_PRESENT
        HR_NULL
        HR_MISSING
        HR_EXPIRED
        HR_UNAVAILABLE
        HR_STATE_MASK
        HR_DEFAULTED
        HR_STALE
        HR_CAUSE_DEADLINE
        HR_CAUSE_QUARANTINED
        HR_CAUSE_ERASED
        HR_CAUSE_MASK
        HR_WITHHELD
        HR_FALLBACK_NONE
        HR_FALLBACK_DEFAULT
        HR_FALLBACK_EXPIRED_VALUE
        HR_SLOT_EMPTY
        HR_SLOT_VALUE
        HR_SLOT_DEFAULT
        HR_ROW_BYTES_MIN
    int hr_order_compare(const uint8_t *a, const uint8_t *b)
    uint8_t hr_row_status(const uint8_t *row, int64_t read_us, int64_t ttl_us, int64_t stale_us)
    uint8_t hr_value_status(
        uint8_t row_status, int is_null, int fallback, int has_default, int include_expired, uint8_t *slot)


PRESENT = HR_PRESENT
globals()["NULL"] = HR_NULL  # the bare name is the null pointer here
MISSING = HR_MISSING
EXPIRED = HR_EXPIRED
UNAVAILABLE = HR_UNAVAILABLE
STATE_MASK = HR_STATE_MASK
DEFAULTED = HR_DEFAULTED
STALE = HR_STALE
CAUSE_DEADLINE = HR_CAUSE_DEADLINE
CAUSE_QUARANTINED = HR_CAUSE_QUARANTINED
CAUSE_ERASED = HR_CAUSE_ERASED
CAUSE_MASK = HR_CAUSE_MASK
WITHHELD = HR_WITHHELD
FALLBACK_NONE = HR_FALLBACK_NONE
FALLBACK_DEFAULT = HR_FALLBACK_DEFAULT
FALLBACK_EXPIRED_VALUE = HR_FALLBACK_EXPIRED_VALUE
SLOT_EMPTY = HR_SLOT_EMPTY
SLOT_VALUE = HR_SLOT_VALUE
SLOT_DEFAULT = HR_SLOT_DEFAULT


def order_compare(bytes a not None, bytes b not None):
    """-1, 0, 1 as row a is before, equal to or after row b in the total order. Raises ValueError for short rows."""
    return hr_order_compare(whole_row(a), whole_row(b))


def row_status(bytes row, int64_t read_time_us, int64_t ttl_us, int64_t stale_us):
    """Status byte of the non-null values of a row; None means that no row is stored."""
    if row is None:
        return hr_row_status(<const uint8_t *>0, read_time_us, ttl_us, stale_us)
    return hr_row_status(whole_row(row), read_time_us, ttl_us, stale_us)


def value_status(uint8_t row_status, bint is_null, int fallback, bint has_default, bint include_expired):
    """Final status byte of a value and what its slot holds (SLOT_EMPTY, SLOT_VALUE, SLOT_DEFAULT)."""
    cdef uint8_t slot = HR_SLOT_EMPTY
    status = hr_value_status(row_status, is_null, fallback, has_default, include_expired, &slot)
    return status, slot


cdef const uint8_t *whole_row(bytes row) except NULL:
    if len(row) < HR_ROW_BYTES_MIN:
        raise ValueError(f"a row has at least {HR_ROW_BYTES_MIN} bytes, not {len(row)}")
    return <const uint8_t *>row
