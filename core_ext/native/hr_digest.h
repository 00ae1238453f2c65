/* Canonical bytes of result rows, for digests that no file format, chunking or NaN payload can change.
 *
 * Row: per column the status byte, then the value. Fixed width: the little-endian slot, zeros when empty. STRING and
 * BYTES: u32 length, bytes. Variable list: u32 count, elements; elements of STRING and BYTES as above. Empty variable
 * values have length or count 0. Every NaN is the quiet one without sign and payload; -0.0 is kept. */
#ifndef HR_DIGEST_H
#define HR_DIGEST_H

#include "hr_arrow.h"
#include "hr_hash.h"

/* Bytes of element i of STRING or BYTES. */
static inline int64_t hr_digest_text_bytes(const hr_arrow *array, int64_t i)
{
    return 4 + (int64_t)hr_arrow_start(array, i + 1) - hr_arrow_start(array, i);
}

static inline uint8_t *hr_digest_text(const hr_arrow *array, int64_t i, uint8_t *to)
{
    int32_t start = hr_arrow_start(array, i), length = hr_arrow_start(array, i + 1) - start;
    hr_store_u32(to, (uint32_t)length);
    if (length > 0) memcpy(to + 4, array->values + start, (size_t)length);
    return to + 4 + length;
}

/* One element of fixed width; `i` counts from the array's own offset. */
static inline uint8_t *hr_digest_element(const hr_column *column, const hr_arrow *array, int64_t i, uint8_t *to)
{
    uint32_t bits;
    uint64_t wide;
    if (column->scalar == HR_BOOL) {
        *to = (uint8_t)hr_bit(array->values, array->offset + i);
        return to + 1;
    }
    if (column->element_bytes == 4) {
        bits = hr_load_u32(array->values + 4 * (array->offset + i));
        if (column->scalar == HR_F32 && (bits & 0x7FFFFFFFU) > 0x7F800000U) bits = 0x7FC00000U;
        memcpy(to, &bits, 4);
        return to + 4;
    }
    wide = hr_load_u64(array->values + 8 * (array->offset + i));
    if (column->scalar == HR_F64 && (wide & 0x7FFFFFFFFFFFFFFFULL) > 0x7FF0000000000000ULL)
        wide = 0x7FF8000000000000ULL;
    hr_store_u64(to, wide);
    return to + 8;
}

/* Bytes of a value without its status; null means an empty slot. */
static inline int64_t hr_digest_value_bytes(const hr_column *column, const hr_arrow *array, int64_t i)
{
    int64_t k, start, count, bytes;
    if (column->shape == HR_FIXED) return (int64_t)column->list_size * column->element_bytes;
    if (column->shape == HR_SINGLE && column->element_bytes > 0) return column->element_bytes;
    if (hr_arrow_is_null(array, i)) return 4;
    if (column->shape == HR_SINGLE) return hr_digest_text_bytes(array, i);
    start = hr_arrow_list(array, column, i, &count);
    if (column->element_bytes > 0) return 4 + count * column->element_bytes;
    for (bytes = 4, k = 0; k < count; k++) bytes += hr_digest_text_bytes(array->child, start + k);
    return bytes;
}

static inline uint8_t *hr_digest_value(const hr_column *column, const hr_arrow *array, int64_t i, uint8_t *to)
{
    int64_t k, start, count, bytes;
    if (hr_arrow_is_null(array, i)) {
        bytes = hr_digest_value_bytes(column, array, i);
        memset(to, 0, (size_t)bytes);
        return to + bytes;
    }
    if (column->shape == HR_SINGLE)
        return column->element_bytes > 0 ? hr_digest_element(column, array, i, to) : hr_digest_text(array, i, to);
    start = hr_arrow_list(array, column, i, &count);
    if (column->shape == HR_VARIABLE) {
        hr_store_u32(to, (uint32_t)count);
        to += 4;
    }
    for (k = 0; k < count; k++)
        to = column->element_bytes > 0 ? hr_digest_element(column, array->child, start + k, to)
                                       : hr_digest_text(array->child, start + k, to);
    return to;
}

/* Adds the bytes of rows [start, start + count) of one column to lengths. */
static inline void hr_digest_measure(
    const hr_column *column, const hr_arrow *array, int64_t start, int64_t count, int64_t *lengths)
{
    int64_t i;
    if (column->shape == HR_SINGLE && column->element_bytes > 0) {
        for (i = 0; i < count; i++) lengths[i] += 1 + column->element_bytes;
        return;
    }
    for (i = 0; i < count; i++) lengths[i] += 1 + hr_digest_value_bytes(column, array, start + i);
}

/* Canonical bytes of a row where none of its columns varies in size, else 0. */
static inline size_t hr_digest_row_bytes(const hr_column *columns, int64_t column_count)
{
    size_t bytes = 0;
    int64_t c;
    for (c = 0; c < column_count; c++) {
        if (columns[c].is_variable || columns[c].shape != HR_SINGLE) return 0;
        bytes += 1 + (size_t)columns[c].element_bytes;
    }
    return bytes;
}

/* Rows of one column of values of 4 or 8 bytes, the first at `to` and each `row_bytes` behind the one before; `width`
 * is a constant wherever this is called. Returns the sum of the cells' hashes. A cell is hashed from what it is made
 * of, as bytes that were just written in pieces are slow to read at once. */
static inline uint64_t hr_digest_write_plain(
    const hr_column *column, const hr_arrow *array, const uint8_t *statuses, int64_t start, int64_t count, uint8_t *to,
    size_t row_bytes, uint32_t width)
{
    int64_t i;
    uint64_t sum = 0, value = 0;
    for (i = 0; i < count; i++, to += row_bytes) {
        uint8_t status = statuses[start + i];
        hr_digest_element(column, array, start + i, (uint8_t *)&value);
        if (array->validity != NULL && hr_arrow_is_null(array, start + i)) value = 0;
        *to = status;
        memcpy(to + 1, &value, width);
        sum += width == 4 ? hr_xxh3_4_to_8((uint32_t)value << 8 | status, (uint32_t)value, 5)
                          : hr_xxh3_9_to_16(value << 8 | status, value, 9);
    }
    return sum;
}

/* The same for columns of any single value of fixed width. */
static inline uint64_t hr_digest_write_single(
    const hr_column *column, const hr_arrow *array, const uint8_t *statuses, int64_t start, int64_t count, uint8_t *to,
    size_t row_bytes)
{
    int64_t i;
    uint64_t sum = 0;
    if (column->scalar == HR_F32)  /* most features are */
        return hr_digest_write_plain(column, array, statuses, start, count, to, row_bytes, 4);
    if (column->element_bytes == 8)
        return hr_digest_write_plain(column, array, statuses, start, count, to, row_bytes, 8);
    for (i = 0; i < count; i++, to += row_bytes) {
        *to = statuses[start + i];
        sum += hr_xxh3_64(to, (size_t)(hr_digest_value(column, array, start + i, to + 1) - to));
    }
    return sum;
}

/* Writes the rows of one column at cursors, moves them behind, and returns the sum of the cells' hashes. */
static inline uint64_t hr_digest_write(
    const hr_column *column, const hr_arrow *array, const uint8_t *statuses, int64_t start, int64_t count,
    uint8_t **cursors)
{
    int64_t i;
    uint64_t sum = 0;
    if (column->shape == HR_SINGLE && column->element_bytes > 0) {
        for (i = 0; i < count; i++) {
            sum += hr_digest_write_single(column, array, statuses, start + i, 1, cursors[i], 0);
            cursors[i] += 1 + column->element_bytes;
        }
        return sum;
    }
    for (i = 0; i < count; i++) {
        uint8_t *to = cursors[i];
        *to = statuses[start + i];
        cursors[i] = hr_digest_value(column, array, start + i, to + 1);
        sum += hr_xxh3_64(to, (size_t)(cursors[i] - to));
    }
    return sum;
}

#endif
