/* The value rules: total order, row state, value status. core_ext/twin/rules.py is the oracle. */
#ifndef HR_RULES_H
#define HR_RULES_H

#include "hr_layout.h"

enum {
    HR_PRESENT = 1, HR_NULL = 2, HR_MISSING = 3, HR_EXPIRED = 4, HR_UNAVAILABLE = 5,
    HR_STATE_MASK = 0x0F,
    HR_DEFAULTED = 0x10, HR_STALE = 0x20,
    HR_CAUSE_DEADLINE = 0x40, HR_CAUSE_QUARANTINED = 0x80, HR_CAUSE_ERASED = 0xC0, HR_CAUSE_MASK = 0xC0,
    HR_WITHHELD = 0x40  /* with EXPIRED: the slot is empty */
};
enum { HR_FALLBACK_NONE = 1, HR_FALLBACK_DEFAULT = 2, HR_FALLBACK_EXPIRED_VALUE = 3 };

/* What goes into a value's slot. */
enum { HR_SLOT_EMPTY = 0, HR_SLOT_VALUE = 1, HR_SLOT_DEFAULT = 2 };

/* Rule 2: total order (event, write, source id, partition, offset); the greatest row wins.
 * Returns <0, 0, >0 as a is before, equal to, after b. Both rows must be whole (HR_ROW_BYTES_MIN). */
static inline int hr_order_compare(const uint8_t *a, const uint8_t *b)
{
    int64_t x, y;
    uint32_t s, t;
    int32_t p, q;
    x = hr_load_i64(a + HR_ROW_EVENT_TIME), y = hr_load_i64(b + HR_ROW_EVENT_TIME);
    if (x != y) return x < y ? -1 : 1;
    x = hr_load_i64(a + HR_ROW_WRITE_TIME), y = hr_load_i64(b + HR_ROW_WRITE_TIME);
    if (x != y) return x < y ? -1 : 1;
    s = hr_load_u32(a + HR_ROW_SOURCE_ID), t = hr_load_u32(b + HR_ROW_SOURCE_ID);
    if (s != t) return s < t ? -1 : 1;
    p = hr_load_i32(a + HR_ROW_PARTITION), q = hr_load_i32(b + HR_ROW_PARTITION);
    if (p != q) return p < q ? -1 : 1;
    x = hr_load_i64(a + HR_ROW_OFFSET), y = hr_load_i64(b + HR_ROW_OFFSET);
    if (x != y) return x < y ? -1 : 1;
    return 0;
}

/* Age of an event at the read time in us, never negative and never overflowing: a row from the accepted
 * near future has age 0. */
static inline int64_t hr_age_us(int64_t event_us, int64_t read_us)
{
    int64_t age;
    if (event_us >= read_us) return 0;
    if (__builtin_sub_overflow(read_us, event_us, &age)) return INT64_MAX;
    return age;
}

/* Rules 6 and 7, per row: status byte of its non-null values. ttl_us and stale_us of 0 mean no limit.
 * Time to live is half-open like windows: a value lives in (T - ttl, T]; at age == ttl it is EXPIRED.
 * A value is STALE when older than the freshness limit. row NULL means that no row is stored. */
static inline uint8_t hr_row_status(const uint8_t *row, int64_t read_us, int64_t ttl_us, int64_t stale_us)
{
    int64_t age;
    uint8_t status = HR_PRESENT;
    if (row == NULL) return HR_MISSING;
    if (hr_load_u16(row + HR_ROW_FLAGS) & HR_FLAG_TOMBSTONE) return HR_MISSING | HR_CAUSE_ERASED;
    age = hr_age_us(hr_load_i64(row + HR_ROW_EVENT_TIME), read_us);
    if (ttl_us > 0 && age >= ttl_us) status = HR_EXPIRED;
    if (stale_us > 0 && age > stale_us) status |= HR_STALE;
    return status;
}

/* Rule 7, per value: final status byte, and in *slot what the slot holds.
 * PRESENT keeps its value. EXPIRED keeps it when asked for or when the fallback is the expired value.
 * Everything else falls to the typed default where the fallback is not NONE and there is one. An EXPIRED value whose
 * slot stays empty is WITHHELD, so that an answer alone tells a value of 0 from none. */
static inline uint8_t hr_value_status(
    uint8_t row_status, int is_null, int fallback, int has_default, int include_expired, uint8_t *slot)
{
    uint8_t state = row_status & HR_STATE_MASK;
    uint8_t status = row_status;
    if (is_null && state == HR_PRESENT) {
        status = (uint8_t)((row_status & ~HR_STATE_MASK) | HR_NULL);
        state = HR_NULL;
    }
    if (state == HR_PRESENT) {
        *slot = HR_SLOT_VALUE;
        return status;
    }
    if (state == HR_EXPIRED && !is_null && (include_expired || fallback == HR_FALLBACK_EXPIRED_VALUE)) {
        *slot = HR_SLOT_VALUE;
        return status;
    }
    if (has_default && fallback != HR_FALLBACK_NONE) {
        *slot = HR_SLOT_DEFAULT;
        return status | HR_DEFAULTED;
    }
    *slot = HR_SLOT_EMPTY;
    return state == HR_EXPIRED ? status | HR_WITHHELD : status;
}

#endif
