/* One value of a row by the value rules: its status, and what its slot holds. */
#ifndef HR_SETTLE_H
#define HR_SETTLE_H

#include "hr_resolve.h"

enum { HR_RESPONSE_BYTES_MAX = 64 << 20 };  /* the largest message that servers and clients of ours accept */

static inline uint8_t hr_settle_asked(
    const hr_call *call, const hr_output *output, uint32_t row, int include_expired, uint8_t *slot)
{
    const hr_group *group = &call->plan->groups[output->group];
    size_t place = (size_t)output->group * call->row_count + row;
    const uint8_t *stored = call->rows[place];
    int is_null = stored != NULL && hr_is_null(stored, output->index);
    uint8_t row_status = call->row_status[place];
    if (output->is_computed && stored != NULL && (row_status & HR_STATE_MASK) == HR_MISSING) row_status = HR_PRESENT;
    return hr_value_status(row_status, is_null, group->fallback, output->has_default, include_expired, slot);
}

static inline uint8_t hr_settle_value(const hr_call *call, const hr_output *output, uint32_t row, uint8_t *slot)
{
    return hr_settle_asked(call, output, row, call->request.include_expired, slot);
}

/* Bytes of a variable value; 0 through *ok when the row's own bounds do not hold. */
static inline hr_span hr_variable_value(const hr_call *call, const hr_output *output, uint32_t row, uint8_t slot, int *ok)
{
    hr_span value = {output->default_value, output->default_value + output->default_bytes};
    const uint8_t *stored;
    uint64_t start, length;
    if (slot == HR_SLOT_DEFAULT) return value;
    value.at = value.end = NULL;
    if (slot == HR_SLOT_EMPTY) return value;
    stored = call->rows[(size_t)output->group * call->row_count + row];
    start = (uint64_t)hr_load_u32(stored + HR_ROW_HEAP) + hr_load_u32(stored + output->column.offset);
    length = hr_load_u32(stored + output->column.offset + 4);
    if (start + length > hr_load_u32(stored + HR_ROW_LENGTH) - HR_ROW_CRC_BYTES) {
        *ok = 0;
        return value;
    }
    value.at = stored + start;
    value.end = value.at + length;
    return value;
}

#endif
