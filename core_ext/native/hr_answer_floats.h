/* An answer whose columns are all of one float type as one block, NaN where a slot holds no value: a data frame takes it
 * as it is. core_ext/twin/answers.py is the oracle. */
#ifndef HR_ANSWER_FLOATS_H
#define HR_ANSWER_FLOATS_H

#include "hr_read_answer.h"
#include "hr_rules.h"

#define HR_NAN_32 UINT32_C(0x7FC00000)
#define HR_NAN_64 UINT64_C(0x7FF8000000000000)

/* Whether a slot holds a value: present, a typed default, or expired and not withheld. */
static inline int hr_is_served(uint8_t status)
{
    uint8_t state = status & HR_STATE_MASK;
    return (state == HR_PRESENT) | ((state == HR_EXPIRED) & ((status & HR_WITHHELD) == 0)) | ((status & HR_DEFAULTED) != 0);
}

/* Most columns are whole. */
static inline int hr_all_present(const uint8_t *statuses, uint64_t rows)
{
    uint64_t i = 0, differs = 0;
    for (; i + 8 <= rows; i += 8) differs |= hr_load_u64(statuses + i) ^ (UINT64_C(0x0101010101010101) * HR_PRESENT);
    for (; i < rows; i++) differs |= statuses[i] ^ HR_PRESENT;
    return differs == 0;
}

static inline void hr_served_floats(const uint8_t *values, const uint8_t *statuses, uint64_t rows, uint8_t *out)
{
    for (uint64_t i = 0; i < rows; i++) {
        uint32_t value, keep = 0 - (uint32_t)hr_is_served(statuses[i]);
        memcpy(&value, values + 4 * i, sizeof value);
        value = (value & keep) | (HR_NAN_32 & ~keep);
        memcpy(out + 4 * i, &value, sizeof value);
    }
}

static inline void hr_served_doubles(const uint8_t *values, const uint8_t *statuses, uint64_t rows, uint8_t *out)
{
    for (uint64_t i = 0; i < rows; i++) {
        uint64_t value, keep = 0 - (uint64_t)hr_is_served(statuses[i]);
        memcpy(&value, values + 8 * i, sizeof value);
        value = (value & keep) | (HR_NAN_64 & ~keep);
        memcpy(out + 8 * i, &value, sizeof value);
    }
}

/* Columns whose blocks fit rows of slots of 4 or 8 bytes, from the first one on; all of them: the answer may be written. */
static inline uint64_t hr_fitting_columns(const hr_answer_column *columns, const hr_answer_head *head, uint64_t slot_bytes)
{
    uint64_t i = 0;
    while (i < head->column_count && hr_check_blocks(&columns[i], head->row_count, slot_bytes)) i++;
    return i;
}

/* Writes the values of every column one after another; their blocks fit. */
static inline void hr_answer_floats(
    const hr_answer_column *columns, const hr_answer_head *head, uint64_t slot_bytes, uint8_t *out)
{
    uint64_t rows = (uint64_t)head->row_count;
    for (uint64_t i = 0; i < head->column_count; i++, out += rows * slot_bytes) {
        const uint8_t *values = columns[i].blocks[HR_BLOCK_VALUES].at, *statuses = columns[i].blocks[HR_BLOCK_STATUSES].at;
        if (rows == 0) continue;
        if (hr_all_present(statuses, rows)) memcpy(out, values, rows * slot_bytes);
        else if (slot_bytes == 4) hr_served_floats(values, statuses, rows, out);
        else hr_served_doubles(values, statuses, rows, out);
    }
}

#endif
