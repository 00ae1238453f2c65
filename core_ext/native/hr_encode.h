/* Rows from Arrow columns: measured whole first, then written block by block so that rows stay in cache. */
#ifndef HR_ENCODE_H
#define HR_ENCODE_H

#include "hr_arrow.h"

enum { HR_ENCODE_BLOCK_BYTES = 16 << 10 };  /* rows written together; half of a 32 KiB first-level cache */

/* A batch being written. starts has row_count + 1 entries; heap_ends holds each row's used heap bytes. */
typedef struct {
    const hr_column *columns;
    const hr_arrow *arrays;
    const int64_t *event_times;
    uint32_t column_count, schema_id, fixed_bytes;
    int64_t row_count;
    uint64_t *starts;
    uint32_t *heap_ends;
    uint8_t *bytes;
} hr_batch;

static inline uint32_t hr_align(uint32_t value, uint32_t step) { return (value + step - 1) & ~(step - 1); }

static inline uint32_t hr_row_bytes(uint32_t fixed_bytes, uint32_t heap_bytes)
{
    return hr_align(fixed_bytes + heap_bytes, 4) + HR_ROW_CRC_BYTES;
}

/* Heap bytes of value i, in *start its place when `used` bytes are taken. */
static inline uint64_t hr_value_bytes(
    const hr_arrow *array, const hr_column *column, int64_t i, uint32_t used, uint32_t *start)
{
    int64_t first, count;
    uint64_t bytes;
    *start = 0;
    if (hr_arrow_is_null(array, i)) return 0;
    first = hr_arrow_list(array, column, i, &count);
    if (count == 0) return 0;
    *start = used;
    if (column->shape == HR_SINGLE) return (uint64_t)count;
    if (column->element_bytes != 0) {
        *start = hr_align(used, 8);
        return (uint64_t)count * column->element_bytes;
    }
    bytes = (uint64_t)hr_arrow_start(array->child, first + count) - (uint64_t)hr_arrow_start(array->child, first);
    return 4 + 4 * (uint64_t)count + bytes;
}

/* Checks all columns and fills starts and heap_ends; nothing else is written. */
static inline hr_arrow_fault hr_encode_measure(hr_batch *batch)
{
    hr_arrow_fault fault = {HR_ARROW_OK, 0, -1};
    uint32_t start, room = HR_ROW_BYTES_MAX - HR_ROW_CRC_BYTES - batch->fixed_bytes;
    uint64_t bytes;
    int64_t c, i;
    for (c = 0; c < batch->column_count; c++) {
        fault.column = c;
        fault.status = hr_arrow_check(&batch->arrays[c], &batch->columns[c], batch->row_count, &fault.row);
        if (fault.status != HR_ARROW_OK) return fault;
        if (!batch->columns[c].is_variable) continue;
        for (i = 0; i < batch->row_count; i++) {
            bytes = hr_value_bytes(&batch->arrays[c], &batch->columns[c], i, batch->heap_ends[i], &start);
            if (bytes == 0) continue;
            if (bytes > room || start > room - bytes) return (hr_arrow_fault){HR_ARROW_ROW_TOO_LONG, c, i};
            batch->heap_ends[i] = start + (uint32_t)bytes;
        }
    }
    batch->starts[0] = 0;
    for (i = 0; i < batch->row_count; i++)
        batch->starts[i + 1] = batch->starts[i] + hr_row_bytes(batch->fixed_bytes, batch->heap_ends[i]);
    return fault;
}

static inline void hr_encode_headers(const hr_batch *batch, int64_t begin, int64_t end)
{
    int64_t i;
    for (i = begin; i < end; i++) {
        uint8_t *row = batch->bytes + batch->starts[i];
        row[0] = HR_ROW_MAGIC;
        row[1] = HR_ROW_LAYOUT;
        hr_store_u32(row + HR_ROW_LENGTH, (uint32_t)(batch->starts[i + 1] - batch->starts[i]));
        hr_store_u32(row + HR_ROW_SCHEMA_ID, batch->schema_id);
        hr_store_u64(row + HR_ROW_EVENT_TIME, (uint64_t)batch->event_times[i]);
        hr_store_u32(row + HR_ROW_HEAP, batch->fixed_bytes);
    }
}

/* Elements [first, first + count) of fixed width to `to`. */
static inline void hr_encode_elements(
    uint8_t *to, const hr_arrow *array, const hr_column *column, int64_t first, int64_t count)
{
    int64_t k;
    first += array->offset;
    if (column->scalar == HR_BOOL) {
        for (k = 0; k < count; k++) to[k] = (uint8_t)hr_bit(array->values, first + k);
        return;
    }
    memcpy(to, array->values + first * column->element_bytes, (size_t)(count * column->element_bytes));
}

static inline void hr_encode_single(
    const hr_batch *batch, const hr_arrow *array, const hr_column *column, int64_t begin, int64_t end)
{
    const uint64_t *starts = batch->starts;
    const uint8_t *from = array->values + (array->offset + begin) * column->element_bytes;
    uint8_t *to = batch->bytes + column->offset;
    int64_t i;
    if (column->scalar == HR_BOOL)
        for (i = begin; i < end; i++) to[starts[i]] = (uint8_t)hr_bit(array->values, array->offset + i);
    else if (column->element_bytes == 4)
        for (i = begin; i < end; i++, from += 4) hr_store_u32(to + starts[i], hr_load_u32(from));
    else
        for (i = begin; i < end; i++, from += 8) hr_store_u64(to + starts[i], hr_load_u64(from));
}

static inline void hr_encode_fixed_lists(
    const hr_batch *batch, const hr_arrow *array, const hr_column *column, int64_t begin, int64_t end)
{
    int64_t i, first, count;
    for (i = begin; i < end; i++) {
        first = hr_arrow_list(array, column, i, &count);
        hr_encode_elements(batch->bytes + batch->starts[i] + column->offset, array->child, column, first, count);
    }
}

/* A list of STRING or BYTES: u32 count, count u32 end positions, the bytes. */
static inline void hr_encode_parts(uint8_t *to, const hr_arrow *array, int64_t first, int64_t count)
{
    int32_t begin = hr_arrow_start(array, first);
    int64_t k;
    hr_store_u32(to, (uint32_t)count);
    for (k = 1; k <= count; k++) hr_store_u32(to + 4 * k, (uint32_t)(hr_arrow_start(array, first + k) - begin));
    if (hr_arrow_start(array, first + count) > begin)
        memcpy(to + 4 + 4 * count, array->values + begin, (size_t)(hr_arrow_start(array, first + count) - begin));
}

static inline void hr_encode_variable(
    const hr_batch *batch, const hr_arrow *array, const hr_column *column, int64_t begin, int64_t end)
{
    int64_t i, first, count;
    uint32_t start;
    for (i = begin; i < end; i++) {
        uint8_t *row = batch->bytes + batch->starts[i], *to;
        uint32_t bytes = (uint32_t)hr_value_bytes(array, column, i, batch->heap_ends[i], &start);
        if (bytes == 0) continue;
        batch->heap_ends[i] = start + bytes;
        hr_store_u32(row + column->offset, start);
        hr_store_u32(row + column->offset + 4, bytes);
        to = row + batch->fixed_bytes + start;
        first = hr_arrow_list(array, column, i, &count);
        if (column->shape == HR_SINGLE) memcpy(to, array->values + first, bytes);
        else if (column->element_bytes != 0) hr_encode_elements(to, array->child, column, first, count);
        else hr_encode_parts(to, array->child, first, count);
    }
}

/* Sets the bit and clears the value of every null: Arrow leaves anything in the place of one. */
static inline void hr_encode_nulls(
    const hr_batch *batch, const hr_arrow *array, int64_t c, int64_t begin, int64_t end)
{
    const hr_column *column = &batch->columns[c];
    int64_t i;
    for (i = begin; i < end; i++) {
        uint8_t *row = batch->bytes + batch->starts[i];
        if ((array->offset + i) % 8 == 0 && end - i >= 8 && array->validity[(array->offset + i) / 8] == 0xFF) {
            i += 7;
            continue;
        }
        if (!hr_arrow_is_null(array, i)) continue;
        memset(row + column->offset, 0, column->slot_bytes);
        row[HR_ROW_BITMAP + c / 8] |= (uint8_t)(1 << c % 8);
        row[HR_ROW_FLAGS] |= HR_FLAG_HAS_NULLS;
    }
}

/* Writes measured rows into zeroed bytes. heap_ends must be zero again: they are counted a second time. */
static inline void hr_encode_write(const hr_batch *batch)
{
    int64_t block = HR_ENCODE_BLOCK_BYTES / batch->fixed_bytes, begin, end, c;
    if (block < 8) block = 8;
    for (begin = 0; begin < batch->row_count; begin = end) {
        end = batch->row_count - begin > block ? begin + block : batch->row_count;
        hr_encode_headers(batch, begin, end);
        for (c = 0; c < batch->column_count; c++) {
            const hr_column *column = &batch->columns[c];
            const hr_arrow *array = &batch->arrays[c];
            if (column->is_variable) hr_encode_variable(batch, array, column, begin, end);
            else if (column->shape == HR_FIXED) hr_encode_fixed_lists(batch, array, column, begin, end);
            else hr_encode_single(batch, array, column, begin, end);
            if (array->validity != NULL) hr_encode_nulls(batch, array, c, begin, end);
        }
    }
}

#endif
