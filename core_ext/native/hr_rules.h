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

/* What rows are ordered by. */
typedef struct {
    int64_t event_us, write_us;
    uint32_t source_id;
    int32_t partition;
    int64_t offset;
} hr_order;

/* Rule 2: total order (event, write, source id, partition, offset); the greatest row wins.
 * Returns <0, 0, >0 as a is before, equal to, after b. */
static inline int hr_order_fields_compare(const hr_order *a, const hr_order *b)
{
    if (a->event_us != b->event_us) return a->event_us < b->event_us ? -1 : 1;
    if (a->write_us != b->write_us) return a->write_us < b->write_us ? -1 : 1;
    if (a->source_id != b->source_id) return a->source_id < b->source_id ? -1 : 1;
    if (a->partition != b->partition) return a->partition < b->partition ? -1 : 1;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    return 0;
}

static inline hr_order hr_order_of(const uint8_t *row)
{
    return (hr_order){hr_load_i64(row + HR_ROW_EVENT_TIME), hr_load_i64(row + HR_ROW_WRITE_TIME),
                      hr_load_u32(row + HR_ROW_SOURCE_ID), hr_load_i32(row + HR_ROW_PARTITION),
                      hr_load_i64(row + HR_ROW_OFFSET)};
}

/* The same of two rows, which must be whole (HR_ROW_BYTES_MIN). */
static inline int hr_order_compare(const uint8_t *a, const uint8_t *b)
{
    hr_order first = hr_order_of(a), second = hr_order_of(b);
    return hr_order_fields_compare(&first, &second);
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

/* Rules 6 and 7, per row: status byte of its non-null values, from its event time and flags. ttl_us and stale_us of 0
 * mean no limit. Time to live is half-open like windows: a value lives in (T - ttl, T]; at age == ttl it is EXPIRED.
 * A value is STALE when older than the freshness limit. */
static inline uint8_t hr_status_at(int64_t event_us, uint16_t flags, int64_t read_us, int64_t ttl_us, int64_t stale_us)
{
    int64_t age;
    uint8_t status = HR_PRESENT;
    if (flags & HR_FLAG_TOMBSTONE) return HR_MISSING | HR_CAUSE_ERASED;
    age = hr_age_us(event_us, read_us);
    if (ttl_us > 0 && age >= ttl_us) status = HR_EXPIRED;
    if (stale_us > 0 && age > stale_us) status |= HR_STALE;
    return status;
}

/* The same of a stored row; NULL means that no row is stored. */
static inline uint8_t hr_row_status(const uint8_t *row, int64_t read_us, int64_t ttl_us, int64_t stale_us)
{
    if (row == NULL) return HR_MISSING;
    return hr_status_at(
        hr_load_i64(row + HR_ROW_EVENT_TIME), hr_load_u16(row + HR_ROW_FLAGS), read_us, ttl_us, stale_us);
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
