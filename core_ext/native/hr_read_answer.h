/* Reads a GetOnlineFeaturesResponse, as clients do: spans first, then one copy of every block to an aligned place.
 * Accepts what protobuf's own parser accepts; core_ext/twin/answers.py is the oracle. */
#ifndef HR_READ_ANSWER_H
#define HR_READ_ANSWER_H

#include "hr_layout.h"
#include "hr_wire.h"

enum { HR_BLOCK_VALUES = 0, HR_BLOCK_OFFSETS = 1, HR_BLOCK_STATUSES = 2, HR_BLOCK_EVENT_TIMES = 3, HR_BLOCK_COUNT = 4 };
enum { HR_BLOCK_ALIGNMENT = 64 };  /* what Arrow recommends for its buffers */

/* One column; spans point into the answer. */
typedef struct {
    hr_span name, blocks[HR_BLOCK_COUNT];
    uint64_t starts[HR_BLOCK_COUNT];  /* of the blocks, once placed */
    int32_t scalar, shape, list_size;
} hr_answer_column;

typedef struct {
    int64_t row_count, registry_revision, read_time_us;
    uint64_t column_count;
} hr_answer_head;

static inline int hr_read_value_type(hr_span in, hr_answer_column *column)
{
    uint32_t field, type;
    while (in.at < in.end) {
        uint64_t value;
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

/* Fields of FeatureColumn: name 1, the blocks 2 to 5, value_type 6. The last of a repeated field stands; the parts of
 * a repeated value_type are merged. */
static inline int hr_read_answer_column(hr_span in, hr_answer_column *column)
{
    uint32_t field, type;
    memset(column, 0, sizeof *column);
    while (in.at < in.end) {
        hr_span bytes;
        if (!hr_read_tag(&in, &field, &type)) return 0;
        if (type != HR_WIRE_LEN || field > 6) {
            if (!hr_skip_field(&in, field, type, 1)) return 0;
            continue;
        }
        if (!hr_read_bytes(&in, &bytes)) return 0;
        if (field == 6) {
            if (!hr_read_value_type(bytes, column)) return 0;
        } else if (field == 1) {
            if (!hr_is_utf8(bytes.at, hr_span_bytes(bytes))) return 0;
            column->name = bytes;
        } else {
            column->blocks[field - 2] = bytes;
        }
    }
    return 1;
}

/* The fields of the answer itself; `columns` of NULL counts them, else it has room for as many as were counted. */
static inline int hr_read_answer(hr_span in, hr_answer_head *head, hr_answer_column *columns)
{
    uint32_t field, type;
    memset(head, 0, sizeof *head);
    while (in.at < in.end) {
        uint64_t value;
        hr_span bytes;
        if (!hr_read_tag(&in, &field, &type)) return 0;
        if (field == 1 && type == HR_WIRE_LEN) {
            if (!hr_read_bytes(&in, &bytes)) return 0;
            if (columns != NULL && !hr_read_answer_column(bytes, &columns[head->column_count])) return 0;
            head->column_count++;
        } else if (type == HR_WIRE_VARINT && field >= 2 && field <= 4) {
            if (!hr_read_varint(&in, &value)) return 0;
            if (field == 2) head->row_count = (int64_t)value;
            else if (field == 3) head->registry_revision = (int64_t)value;
            else head->read_time_us = (int64_t)value;
        } else if (!hr_skip_field(&in, field, type, 0)) {
            return 0;
        }
    }
    return 1;
}

/* Gives every block its aligned place and returns the bytes of all of them. */
static inline uint64_t hr_place_blocks(hr_answer_column *columns, uint64_t column_count)
{
    uint64_t end = 0;
    for (uint64_t i = 0; i < column_count; i++)
        for (int k = 0; k < HR_BLOCK_COUNT; k++) {
            columns[i].starts[k] = end;
            end += hr_span_bytes(columns[i].blocks[k]);
            end = (end + HR_BLOCK_ALIGNMENT - 1) & ~(uint64_t)(HR_BLOCK_ALIGNMENT - 1);
        }
    return end;
}

static inline void hr_copy_blocks(const hr_answer_column *columns, uint64_t column_count, uint8_t *out)
{
    for (uint64_t i = 0; i < column_count; i++)
        for (int k = 0; k < HR_BLOCK_COUNT; k++) {
            size_t bytes = hr_span_bytes(columns[i].blocks[k]);
            if (bytes > 0) memcpy(out + columns[i].starts[k], columns[i].blocks[k].at, bytes);
        }
}

/* Whether the blocks have the sizes that the rows and the width of a slot ask for; slot_bytes 0 means that it varies:
 * then the offsets begin at 0, never run backwards and end with the values. */
static inline int hr_check_blocks(const hr_answer_column *column, int64_t row_count, uint64_t slot_bytes)
{
    const uint8_t *offsets = column->blocks[HR_BLOCK_OFFSETS].at;
    uint64_t rows = (uint64_t)row_count, bytes[HR_BLOCK_COUNT];
    uint32_t before = 0;
    for (int k = 0; k < HR_BLOCK_COUNT; k++) bytes[k] = hr_span_bytes(column->blocks[k]);
    if (row_count < 0 || bytes[HR_BLOCK_STATUSES] != rows) return 0;  /* so rows fit into the answer */
    if (bytes[HR_BLOCK_EVENT_TIMES] != 0 && bytes[HR_BLOCK_EVENT_TIMES] != 8 * rows) return 0;
    if (slot_bytes != 0) return bytes[HR_BLOCK_OFFSETS] == 0 && bytes[HR_BLOCK_VALUES] == rows * slot_bytes;
    if (bytes[HR_BLOCK_OFFSETS] != 4 * (rows + 1) || hr_load_u32(offsets) != 0) return 0;
    for (uint64_t i = 1; i <= rows; i++) {
        uint32_t end = hr_load_u32(offsets + 4 * i);
        if (end < before) return 0;
        before = end;
    }
    return before == bytes[HR_BLOCK_VALUES];
}

#endif
