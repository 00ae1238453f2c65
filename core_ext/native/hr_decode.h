/* Stored rows and keys to Arrow buffers, column by column: checked whole, then measured, then written. */
#ifndef HR_DECODE_H
#define HR_DECODE_H

#include "hr_key.h"
#include "hr_row.h"

enum { HR_DECODE_NOT_UTF8 = 64, HR_DECODE_TOO_LARGE, HR_DECODE_BAD_PLACE, HR_DECODE_BAD_KEY };

/* Rows by their places in `data`, all of one schema. */
typedef struct {
    const hr_column *columns;
    uint32_t column_count, schema_id, fixed_bytes;
    const uint8_t *data;
    int64_t length, row_count;
    const int64_t *starts, *ends;
} hr_rows;

/* Buffers of one column. Of a list, child_offsets and values are those of its elements. Booleans are bits. */
typedef struct {
    uint8_t *validity, *values;
    int32_t *offsets, *child_offsets;
    int64_t element_count, byte_count, null_count;
} hr_buffers;

static inline const char *hr_decode_fault(int status)
{
    switch (status) {
    case HR_DECODE_NOT_UTF8: return "a string is not UTF-8";
    case HR_DECODE_TOO_LARGE: return "a column holds over 2 GiB; decode fewer rows at once";
    case HR_DECODE_BAD_PLACE: return "its place lies outside the bytes given";
    case HR_DECODE_BAD_KEY: return "its key is not one of these types";
    default: return hr_row_fault(status);
    }
}

/* Every row, once; what follows reads without another look. *row is the one at fault. */
static inline int hr_decode_check(const hr_rows *rows, int64_t *row)
{
    int64_t i;
    for (i = 0; i < rows->row_count; i++) {
        int64_t start = rows->starts[i], end = rows->ends[i];
        int status;
        *row = i;
        if (start < 0 || end < start || end > rows->length) return HR_DECODE_BAD_PLACE;
        status = hr_row_check(rows->data + start, (size_t)(end - start));
        if (status != HR_ROW_OK) return status;
        status = hr_row_check_schema(
            rows->data + start, (size_t)(end - start), rows->columns, rows->column_count, rows->schema_id,
            rows->fixed_bytes);
        if (status != HR_ROW_OK) return status;
    }
    return HR_ROW_OK;
}

/* The row where column c has a value, NULL where it has none. */
static inline const uint8_t *hr_decode_row(const hr_rows *rows, int64_t i, uint32_t c)
{
    const uint8_t *row = rows->data + rows->starts[i];
    if (hr_load_u16(row + HR_ROW_FLAGS) & HR_FLAG_TOMBSTONE) return NULL;
    return row[HR_ROW_BITMAP + c / 8] >> c % 8 & 1 ? NULL : row;
}

/* Value of a variable column that passed its check. */
static inline const uint8_t *hr_decode_heap(const hr_rows *rows, const uint8_t *row, uint32_t c, uint32_t *bytes)
{
    const uint8_t *slot = row + rows->columns[c].offset;
    *bytes = hr_load_u32(slot + 4);
    return row + rows->fixed_bytes + hr_load_u32(slot);
}

static inline int hr_decode_is_text_list(const hr_column *column)
{
    return column->shape == HR_VARIABLE && column->element_bytes == 0;
}

/* Sizes of the buffers of column c. */
static inline int hr_decode_measure(const hr_rows *rows, uint32_t c, hr_buffers *out)
{
    const hr_column *column = &rows->columns[c];
    int64_t i, elements = 0, bytes = 0;
    if (!column->is_variable) {
        out->element_count = rows->row_count * (column->shape == HR_FIXED ? column->list_size : 1);
        out->byte_count = column->scalar == HR_BOOL ? (out->element_count + 7) / 8
                                                    : out->element_count * column->element_bytes;
        return out->element_count > INT32_MAX ? HR_DECODE_TOO_LARGE : HR_ROW_OK;
    }
    for (i = 0; i < rows->row_count; i++) {
        uint32_t size;
        const uint8_t *row = hr_decode_row(rows, i, c), *value;
        if (row == NULL) continue;
        value = hr_decode_heap(rows, row, c, &size);
        if (size == 0) continue;
        if (column->shape == HR_SINGLE) bytes += size;
        else if (column->element_bytes != 0) elements += size / column->element_bytes;
        else {
            uint32_t count = hr_load_u32(value);
            elements += count;
            bytes += size - 4 - 4 * (int64_t)count;
        }
    }
    if (column->shape == HR_VARIABLE && column->element_bytes != 0)
        bytes = column->scalar == HR_BOOL ? (elements + 7) / 8 : elements * column->element_bytes;
    out->element_count = elements;
    out->byte_count = bytes;
    return elements > INT32_MAX || bytes > INT32_MAX ? HR_DECODE_TOO_LARGE : HR_ROW_OK;
}

static inline void hr_decode_elements(
    const hr_column *column, const uint8_t *from, int64_t count, int64_t at, uint8_t *values)
{
    int64_t k;
    if (column->scalar != HR_BOOL) {
        memcpy(values + at * column->element_bytes, from, (size_t)(count * column->element_bytes));
        return;
    }
    for (k = 0; k < count; k++)
        if (from[k]) values[(at + k) >> 3] |= (uint8_t)(1 << ((at + k) & 7));
}

static inline int hr_decode_texts(
    const hr_column *column, const uint8_t *value, hr_buffers *out, int64_t *element, int64_t *byte)
{
    uint32_t k, count = hr_load_u32(value), last = 0;
    const uint8_t *text = value + 4 + 4 * (size_t)count;
    for (k = 0; k < count; k++) {
        uint32_t end = hr_load_u32(value + 4 + 4 * (size_t)k);
        if (column->scalar == HR_STRING && !hr_is_utf8(text + last, end - last)) return HR_DECODE_NOT_UTF8;
        memcpy(out->values + *byte, text + last, end - last);
        *byte += end - last;
        out->child_offsets[++*element] = (int32_t)*byte;
        last = end;
    }
    return HR_ROW_OK;
}

/* Buffers of column c, all zero before. */
static inline int hr_decode_write(const hr_rows *rows, uint32_t c, hr_buffers *out, int64_t *at_row)
{
    const hr_column *column = &rows->columns[c];
    int64_t i, element = 0, byte = 0, width = column->shape == HR_FIXED ? column->list_size : 1;
    for (i = 0; i < rows->row_count; i++) {
        const uint8_t *row = hr_decode_row(rows, i, c), *value;
        uint32_t size = 0;
        int status = HR_ROW_OK;
        *at_row = i;
        if (row == NULL) out->null_count++;
        else out->validity[i >> 3] |= (uint8_t)(1 << (i & 7));
        if (!column->is_variable) {
            if (row != NULL) hr_decode_elements(column, row + column->offset, width, i * width, out->values);
            continue;
        }
        value = row != NULL ? hr_decode_heap(rows, row, c, &size) : NULL;
        if (size > 0 && column->shape == HR_SINGLE) {
            if (column->scalar == HR_STRING && !hr_is_utf8(value, size)) return HR_DECODE_NOT_UTF8;
            memcpy(out->values + byte, value, size);
            byte += size;
        } else if (size > 0 && hr_decode_is_text_list(column)) {
            status = hr_decode_texts(column, value, out, &element, &byte);
        } else if (size > 0) {
            hr_decode_elements(column, value, size / column->element_bytes, element, out->values);
            element += size / column->element_bytes;
        }
        if (status != HR_ROW_OK) return status;
        out->offsets[i + 1] = (int32_t)(column->shape == HR_SINGLE ? byte : element);
    }
    return HR_ROW_OK;
}

/* Entity keys inside storage keys, by their places. */
typedef struct {
    const uint8_t *tags;  /* of the parts */
    uint32_t part_count;
    const uint8_t *data;
    int64_t length, row_count;
    const int64_t *starts, *ends;
} hr_keys;

/* Checks every key and sums the bytes of each part that is a STRING or BYTES. */
static inline int hr_keys_measure(const hr_keys *keys, int64_t *byte_counts, int64_t *at_row)
{
    int64_t i;
    for (i = 0; i < keys->row_count; i++) {
        int64_t start = keys->starts[i], end = keys->ends[i];
        hr_key_part part = {0};
        uint32_t p;
        size_t at = 0, length;
        *at_row = i;
        if (start < 0 || end > keys->length || end - start < HR_ENTITY_ID_BYTES + HR_VIEW_ID_BYTES)
            return HR_DECODE_BAD_PLACE;
        length = (size_t)(end - start) - HR_ENTITY_ID_BYTES - HR_VIEW_ID_BYTES;
        for (p = 0; p < keys->part_count; p++) {
            at = hr_key_next(keys->data + start + HR_ENTITY_ID_BYTES, length, at, &part);
            if (at == 0 || part.tag != keys->tags[p]) return HR_DECODE_BAD_KEY;
            if (part.tag != HR_KEY_I64 && (byte_counts[p] += part.length) > INT32_MAX) return HR_DECODE_TOO_LARGE;
        }
        if (at != length) return HR_DECODE_BAD_KEY;
    }
    return HR_ROW_OK;
}

/* Part p of keys that hr_keys_measure has seen. */
static inline void hr_keys_write(const hr_keys *keys, uint32_t p, uint8_t *values, int32_t *offsets)
{
    int64_t i, byte = 0;
    for (i = 0; i < keys->row_count; i++) {
        const uint8_t *key = keys->data + keys->starts[i] + HR_ENTITY_ID_BYTES;
        size_t at = 0, length = (size_t)(keys->ends[i] - keys->starts[i]) - HR_ENTITY_ID_BYTES - HR_VIEW_ID_BYTES;
        hr_key_part part = {0};
        uint32_t k;
        for (k = 0; k <= p; k++) at = hr_key_next(key, length, at, &part);
        if (part.tag == HR_KEY_I64) {
            hr_store_u64(values + 8 * i, (uint64_t)part.integer);
            continue;
        }
        memcpy(values + byte, part.data, part.length);
        byte += part.length;
        offsets[i + 1] = (int32_t)byte;
    }
}

#endif
