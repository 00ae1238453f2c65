/* Request data of GetOnlineFeaturesRequest: RequestColumn parsed in place, and its values checked against the plan.
 *
 * Wire first: what is malformed is refused while parsing, in the order of the bytes. Sizes and values are judged when
 * plan and row count are known. core_ext/twin/request_data.py is the oracle. */
#ifndef HR_REQUEST_DATA_H
#define HR_REQUEST_DATA_H

#include "hr_layout.h"
#include "hr_wire.h"

enum { HR_REQUEST_COLUMNS_MAX = 256 };  /* of one read, as the contract says */

/* One field of request data that a selection needs; `type` is an element type, each a single value. */
typedef struct {
    const uint8_t *name;
    uint32_t name_bytes, type;
} hr_request_field;

/* One column as sent; spans point into the request. */
typedef struct {
    hr_span message, name, values, offsets;
    int32_t scalar, shape, list_size;
    uint32_t is_bound;
    uint64_t null_count;
} hr_request_column;

static inline int hr_read_column_type(hr_span in, hr_request_column *column)
{
    uint32_t field, type;
    uint64_t value;
    while (in.at < in.end) {
        if (!hr_read_tag(&in, &field, &type)) return 0;
        if (type != HR_WIRE_VARINT || field > 3) {
            if (!hr_skip_field(&in, field, type, 2)) return 0;
            continue;
        }
        if (!hr_read_varint(&in, &value)) return 0;
        if (field == 1) column->scalar = (int32_t)(uint32_t)value;
        else if (field == 2) column->shape = (int32_t)(uint32_t)value;
        else column->list_size = (int32_t)(uint32_t)value;
    }
    return 1;
}

static inline int hr_read_column_field(hr_span *in, uint32_t field, uint32_t type, hr_request_column *column)
{
    hr_span bytes;
    uint64_t ignored;
    if (field == 5 && type == HR_WIRE_VARINT) {
        column->null_count++;
        return hr_read_varint(in, &ignored);
    }
    if (type != HR_WIRE_LEN || field > 5) return hr_skip_field(in, field, type, 1);
    if (!hr_read_bytes(in, &bytes)) return 0;
    switch (field) {
    case 1:
        column->name = bytes;
        return hr_is_utf8(bytes.at, hr_span_bytes(bytes));
    case 2: return hr_read_column_type(bytes, column);
    case 3: column->values = bytes; return 1;
    case 4: column->offsets = bytes; return 1;
    default:
        while (bytes.at < bytes.end) {
            column->null_count++;
            if (!hr_read_varint(&bytes, &ignored)) return 0;
        }
        return 1;
    }
}

/* 0: malformed. */
static inline int hr_read_request_column(hr_span message, hr_request_column *column)
{
    hr_span in = message;
    uint32_t field, type;
    memset(column, 0, sizeof(*column));
    column->message = message;
    while (in.at < in.end)
        if (!hr_read_tag(&in, &field, &type) || !hr_read_column_field(&in, field, type, column)) return 0;
    return 1;
}

/* Bytes of a fixed-width value, 0 for STRING and BYTES. */
static inline uint32_t hr_field_width(uint32_t type)
{
    switch (type) {
    case HR_BOOL: return 1;
    case HR_I32: case HR_F32: case HR_DATE: return 4;
    case HR_STRING: case HR_BYTES: return 0;
    default: return 8;
    }
}

/* Whether the values are as long as so many rows of the type take. */
static inline int hr_has_row_values(const hr_request_column *column, uint32_t type, uint32_t row_count)
{
    uint64_t width = hr_field_width(type);
    return width == 0 || (hr_span_bytes(column->values) == width * row_count && hr_span_bytes(column->offsets) == 0);
}

/* Whether the offsets of a variable-size column begin at 0, never run backwards and end with the values. */
static inline int hr_has_row_offsets(const hr_request_column *column, uint32_t type, uint32_t row_count)
{
    const uint8_t *at = column->offsets.at;
    uint32_t before = 0;
    if (hr_field_width(type) != 0) return 1;
    if (hr_span_bytes(column->offsets) != 4 * ((uint64_t)row_count + 1) || hr_load_u32(at) != 0) return 0;
    for (uint64_t i = 1; i <= row_count; i++) {
        uint32_t end = hr_load_u32(at + 4 * i);
        if (end < before) return 0;
        before = end;
    }
    return before == hr_span_bytes(column->values);
}

#endif
