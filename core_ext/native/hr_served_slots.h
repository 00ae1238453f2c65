/* The values of an answer one after the other, as the log of served answers keeps them: a status and a length each, and
 * the bytes of those that there are. core_ext/twin/served_slots.py is the oracle. */
#ifndef HR_SERVED_SLOTS_H
#define HR_SERVED_SLOTS_H

#include "hr_read_answer.h"
#include "hr_rules.h"

/* Kinds of a column beside the width of its slots. */
enum { HR_SLOTS_VARIABLE = 0, HR_SLOTS_TEXTS = -1 };

typedef struct {
    uint8_t *statuses, *data;
    uint32_t *lengths;
    uint64_t count, data_bytes;
} hr_slots;

/* Whether a slot holds a value: docs/decisions/0010-withheld.md. */
static inline int hr_slot_is_held(uint8_t status)
{
    uint8_t state = status & HR_STATE_MASK;
    return state == HR_PRESENT || (status & HR_DEFAULTED) || (state == HR_EXPIRED && !(status & HR_WITHHELD));
}

/* Whether the blocks of every column fit its kind and the rows; so much data there is at most. */
static inline int hr_slots_check(
    const hr_answer_column *columns, const int32_t *kinds, uint64_t column_count, int64_t row_count, uint64_t *data_bytes)
{
    *data_bytes = 0;
    for (uint64_t i = 0; i < column_count; i++) {
        if (!hr_check_blocks(&columns[i], row_count, kinds[i] > 0 ? (uint64_t)kinds[i] : 0)) return 0;
        *data_bytes += hr_span_bytes(columns[i].blocks[HR_BLOCK_VALUES]);
    }
    return 1;
}

static inline void hr_slots_put(hr_slots *slots, uint8_t status, const uint8_t *value, uint64_t bytes)
{
    slots->statuses[slots->count] = status;
    slots->lengths[slots->count++] = (uint32_t)bytes;
    if (bytes > 0) memcpy(slots->data + slots->data_bytes, value, bytes);
    slots->data_bytes += bytes;
}

/* A list of texts: each after its length, where an answer has a count and then all ends. Never longer than the answer's. */
static inline int hr_slots_put_texts(hr_slots *slots, uint8_t status, const uint8_t *value, uint64_t bytes)
{
    uint64_t first = slots->data_bytes, body, begin = 0;
    uint32_t count;
    if (bytes == 0) {
        hr_slots_put(slots, status, value, 0);
        return 1;
    }
    if (bytes < 4) return 0;
    count = hr_load_u32(value);
    if (count > (bytes - 4) / 4) return 0;
    body = 4 + 4 * (uint64_t)count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t end = hr_load_u32(value + 4 + 4 * (uint64_t)i);
        if (end < begin || end > bytes - body) return 0;
        hr_store_u32(slots->data + slots->data_bytes, (uint32_t)(end - begin));
        memcpy(slots->data + slots->data_bytes + 4, value + body + begin, end - begin);
        slots->data_bytes += 4 + (end - begin);
        begin = end;
    }
    slots->statuses[slots->count] = status;
    slots->lengths[slots->count++] = (uint32_t)(slots->data_bytes - first);
    return 1;
}

/* Column after column, after hr_slots_check. Returns 0 for a list of texts that is none. */
static inline int hr_slots_fill(
    const hr_answer_column *columns, const int32_t *kinds, uint64_t column_count, int64_t row_count, hr_slots *slots)
{
    for (uint64_t i = 0; i < column_count; i++) {
        const uint8_t *statuses = columns[i].blocks[HR_BLOCK_STATUSES].at, *values = columns[i].blocks[HR_BLOCK_VALUES].at;
        const uint8_t *offsets = columns[i].blocks[HR_BLOCK_OFFSETS].at;
        for (uint64_t row = 0; row < (uint64_t)row_count; row++) {
            uint64_t begin, end;
            if (kinds[i] > 0) {
                begin = row * (uint64_t)kinds[i];
                end = hr_slot_is_held(statuses[row]) ? begin + (uint64_t)kinds[i] : begin;
            } else {
                begin = hr_load_u32(offsets + 4 * row);
                end = hr_load_u32(offsets + 4 * row + 4);
            }
            if (kinds[i] == HR_SLOTS_TEXTS) {
                if (!hr_slots_put_texts(slots, statuses[row], values + begin, end - begin)) return 0;
            } else hr_slots_put(slots, statuses[row], values + begin, end - begin);
        }
    }
    return 1;
}

#endif
