/* Arrow columns seen through their buffers: every size is checked here, before the codecs read a value. */
#ifndef HR_ARROW_H
#define HR_ARROW_H

#include <stddef.h>

#include "hr_layout.h"
#include "hr_utf8.h"

enum { HR_ARROW_ELEMENTS_MAX = INT32_MAX };  /* 32-bit offsets address no more */

enum {
    HR_ARROW_OK = 0,
    HR_ARROW_BAD_LENGTH,
    HR_ARROW_BAD_OFFSET,
    HR_ARROW_SHORT_VALIDITY,
    HR_ARROW_SHORT_VALUES,
    HR_ARROW_SHORT_OFFSETS,
    HR_ARROW_BACKWARDS,
    HR_ARROW_PAST_END,
    HR_ARROW_NO_CHILD,
    HR_ARROW_NULL_ELEMENT,
    HR_ARROW_NOT_UTF8,
    HR_ARROW_ROW_TOO_LONG,
    HR_ARROW_NULL_PART,
    HR_ARROW_EMPTY_PART,
    HR_ARROW_KEY_TOO_LONG
};

/* One array; offset and length count elements. A pointer is NULL where the array has no such buffer. */
typedef struct hr_arrow {
    int64_t length, offset;
    const uint8_t *validity, *values, *offsets;
    int64_t validity_bytes, values_bytes, offsets_bytes;
    const struct hr_arrow *child;
} hr_arrow;

/* Where and why a batch was refused; row is -1 when the whole column is wrong. */
typedef struct {
    int status;
    int64_t column, row;
} hr_arrow_fault;

static inline int hr_bit(const uint8_t *bits, int64_t i) { return bits[i >> 3] >> (i & 7) & 1; }

static inline int hr_arrow_is_null(const hr_arrow *array, int64_t i)
{
    return array->validity != NULL && !hr_bit(array->validity, array->offset + i);
}

static inline int32_t hr_arrow_start(const hr_arrow *array, int64_t i)
{
    return hr_load_i32(array->offsets + 4 * (array->offset + i));
}

static inline int hr_arrow_check_frame(const hr_arrow *array)
{
    if (array->length < 0 || array->length > HR_ARROW_ELEMENTS_MAX) return HR_ARROW_BAD_LENGTH;
    if (array->offset < 0 || array->offset > HR_ARROW_ELEMENTS_MAX) return HR_ARROW_BAD_OFFSET;
    if (array->validity != NULL && (array->offset + array->length + 7) / 8 > array->validity_bytes)
        return HR_ARROW_SHORT_VALIDITY;
    return HR_ARROW_OK;
}

/* Fixed-width elements; BOOL is bit-packed in Arrow. */
static inline int hr_arrow_check_fixed(const hr_arrow *array, uint8_t scalar, uint8_t element_bytes)
{
    int64_t end = array->offset + array->length;
    int status = hr_arrow_check_frame(array);
    if (status != HR_ARROW_OK) return status;
    if (array->length > 0 && (scalar == HR_BOOL ? (end + 7) / 8 : end * element_bytes) > array->values_bytes)
        return HR_ARROW_SHORT_VALUES;
    return HR_ARROW_OK;
}

/* 32-bit offsets, none running backwards, none past `limit`. *row is the element at fault. */
static inline int hr_arrow_check_offsets(const hr_arrow *array, int64_t limit, int64_t *row)
{
    int64_t i;
    int32_t start, end;
    int status = hr_arrow_check_frame(array);
    if (status != HR_ARROW_OK || array->length == 0) return status;
    if ((array->offset + array->length + 1) * 4 > array->offsets_bytes) return HR_ARROW_SHORT_OFFSETS;
    start = hr_arrow_start(array, 0);
    for (i = 0; i < array->length; i++, start = end) {
        end = hr_arrow_start(array, i + 1);
        *row = i;
        if (start < 0 || end < start) return HR_ARROW_BACKWARDS;
        if (end > limit) return HR_ARROW_PAST_END;
    }
    *row = -1;
    return HR_ARROW_OK;
}

/* STRING or BYTES values. */
static inline int hr_arrow_check_binary(const hr_arrow *array, uint8_t scalar, int64_t *row)
{
    int64_t i;
    int status = hr_arrow_check_offsets(array, array->values_bytes, row);
    if (status != HR_ARROW_OK || scalar != HR_STRING) return status;
    for (i = 0; i < array->length; i++) {
        int32_t start = hr_arrow_start(array, i), end = hr_arrow_start(array, i + 1);
        *row = i;
        if (end > start && !hr_arrow_is_null(array, i) && !hr_is_utf8(array->values + start, (size_t)(end - start)))
            return HR_ARROW_NOT_UTF8;
    }
    *row = -1;
    return HR_ARROW_OK;
}

/* First element of list i in the child, and the element count. A fixed list has no offsets. */
static inline int64_t hr_arrow_list(const hr_arrow *array, const hr_column *column, int64_t i, int64_t *count)
{
    int64_t start;
    if (column->shape == HR_FIXED) {
        *count = column->list_size;
        return (array->offset + i) * column->list_size;
    }
    start = hr_arrow_start(array, i);
    *count = hr_arrow_start(array, i + 1) - start;
    return start;
}

/* Elements of lists that are not null must not be null themselves. */
static inline int hr_arrow_check_elements(const hr_arrow *array, const hr_column *column, int64_t *row)
{
    int64_t i, k, count, start;
    if (array->child->validity == NULL) return HR_ARROW_OK;
    for (i = 0; i < array->length; i++) {
        if (hr_arrow_is_null(array, i)) continue;
        start = hr_arrow_list(array, column, i, &count);
        *row = i;
        for (k = 0; k < count; k++)
            if (hr_arrow_is_null(array->child, start + k)) return HR_ARROW_NULL_ELEMENT;
    }
    *row = -1;
    return HR_ARROW_OK;
}

/* Everything that encoding `row_count` values of `column` will read. */
static inline int hr_arrow_check(const hr_arrow *array, const hr_column *column, int64_t row_count, int64_t *row)
{
    const hr_arrow *child = array->child;
    int64_t child_row = -1;
    int status = HR_ARROW_OK;
    *row = -1;
    if (array->length != row_count) return HR_ARROW_BAD_LENGTH;
    if (column->shape == HR_SINGLE) {
        if (column->is_variable) return hr_arrow_check_binary(array, column->scalar, row);
        return hr_arrow_check_fixed(array, column->scalar, column->element_bytes);
    }
    if (child == NULL) return HR_ARROW_NO_CHILD;
    if (column->element_bytes == 0) status = hr_arrow_check_binary(child, column->scalar, &child_row);
    else status = hr_arrow_check_fixed(child, column->scalar, column->element_bytes);
    if (status != HR_ARROW_OK) return status;
    if (column->shape == HR_VARIABLE) status = hr_arrow_check_offsets(array, child->length, row);
    else status = hr_arrow_check_frame(array);
    if (status != HR_ARROW_OK) return status;
    if (column->shape == HR_FIXED && (array->offset + array->length) * column->list_size > child->length)
        return HR_ARROW_PAST_END;
    return hr_arrow_check_elements(array, column, row);
}

#endif
