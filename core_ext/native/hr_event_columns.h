/* Columns that grow by one value per event, and go back where an event turns out to be none. */
#ifndef HR_EVENT_COLUMNS_H
#define HR_EVENT_COLUMNS_H

#include "hr_event_scalar.h"

enum { HR_GROW_BYTES_MIN = 4096 };
#define HR_GROW_BYTES_MAX ((int64_t)1 << 30)  /* 32-bit offsets reach twice as far */

typedef struct {
    uint8_t *bytes;
    int64_t length, room;
} hr_grow;

/* Room for `more` bytes; NULL without memory. */
static inline uint8_t *hr_grow_room(hr_grow *grow, int64_t more)
{
    if (grow->bytes == NULL || grow->room - grow->length < more) {
        int64_t room = grow->room < HR_GROW_BYTES_MIN ? HR_GROW_BYTES_MIN : grow->room;
        uint8_t *bytes;
        if (more > HR_GROW_BYTES_MAX - grow->length) return NULL;
        while (room - grow->length < more) room *= 2;
        bytes = (uint8_t *)realloc(grow->bytes, (size_t)room);
        if (bytes == NULL) return NULL;
        grow->bytes = bytes;
        grow->room = room;
    }
    return grow->bytes + grow->length;
}

/* One column. `valid` and values of BOOL hold a byte each until they are packed; `lists` and `texts` hold i32 ends. */
typedef struct {
    hr_column type;
    const uint8_t *name;
    int64_t name_length;
    int64_t seen;                 /* number of the message that set it last, from 1 */
    int64_t element_count;
    hr_grow valid, lists, texts, data;
    int64_t kept_lists, kept_texts, kept_data, kept_elements;  /* before the message under way */
} hr_event_column;

static inline void hr_event_free(hr_event_column *column)
{
    free(column->valid.bytes);
    free(column->lists.bytes);
    free(column->texts.bytes);
    free(column->data.bytes);
}

static inline void hr_event_keep(hr_event_column *column)
{
    column->kept_lists = column->lists.length;
    column->kept_texts = column->texts.length;
    column->kept_data = column->data.length;
    column->kept_elements = column->element_count;
}

static inline void hr_event_undo(hr_event_column *column, int64_t row_count)
{
    column->valid.length = row_count;
    column->lists.length = column->kept_lists;
    column->texts.length = column->kept_texts;
    column->data.length = column->kept_data;
    column->element_count = column->kept_elements;
}

static inline int hr_event_end(hr_grow *ends, int64_t end)
{
    uint8_t *to = hr_grow_room(ends, 4);
    if (to == NULL) return HR_EVENT_NO_MEMORY;
    hr_store_u32(to, (uint32_t)end);
    ends->length += 4;
    return HR_EVENT_OK;
}

/* Appends an element of `width` bytes. */
static inline int hr_event_put(hr_event_column *column, const void *value, int64_t width)
{
    uint8_t *to = hr_grow_room(&column->data, width);
    if (to == NULL) return HR_EVENT_NO_MEMORY;
    memcpy(to, value, (size_t)width);
    column->data.length += width;
    column->element_count++;
    return HR_EVENT_OK;
}

static inline int hr_event_put_whole(hr_event_column *column, int64_t value)
{
    int32_t narrow = (int32_t)value;
    if (column->type.element_bytes == 8) return hr_event_put(column, &value, 8);
    if (value != narrow) return HR_EVENT_OUT_OF_RANGE;
    return hr_event_put(column, &narrow, 4);
}

static inline int hr_event_put_double(hr_event_column *column, double value)
{
    float narrow;
    if (column->type.scalar == HR_F64) return hr_event_put(column, &value, 8);
    narrow = (float)value;
    if (isinf(narrow)) return HR_EVENT_OUT_OF_RANGE;
    return hr_event_put(column, &narrow, 4);
}

static inline int hr_event_put_text(hr_event_column *column, const hr_json_span *span)
{
    uint8_t *to = hr_grow_room(&column->data, span->length + 1);
    int64_t length;
    if (to == NULL) return HR_EVENT_NO_MEMORY;
    length = hr_json_unescape(span, to);
    if (length < 0) return HR_EVENT_BAD_TEXT;
    if (column->type.scalar == HR_BYTES) length = hr_event_base64(to, length);
    if (length < 0) return HR_EVENT_BAD_BASE64;
    column->data.length += length;
    column->element_count++;
    return hr_event_end(&column->texts, column->data.length);
}

/* Null: fixed slots hold zeros. */
static inline int hr_event_put_null(hr_event_column *column)
{
    const hr_column *type = &column->type;
    int64_t elements = type->shape == HR_FIXED ? type->list_size : type->shape == HR_SINGLE;
    int64_t width = type->scalar == HR_BOOL ? 1 : type->element_bytes;
    uint8_t *to = hr_grow_room(&column->data, elements * width);
    int status = HR_EVENT_OK;
    if (to == NULL) return HR_EVENT_NO_MEMORY;
    memset(to, 0, (size_t)(elements * width));
    column->data.length += elements * width;
    column->element_count += elements;
    if (type->shape == HR_SINGLE && width == 0) status = hr_event_end(&column->texts, column->data.length);
    if (type->shape == HR_VARIABLE) status = hr_event_end(&column->lists, column->element_count);
    return status;
}

static inline int hr_event_put_valid(hr_event_column *column, uint8_t is_valid)
{
    uint8_t *to = hr_grow_room(&column->valid, 1);
    if (to == NULL) return HR_EVENT_NO_MEMORY;
    *to = is_valid;
    column->valid.length++;
    return HR_EVENT_OK;
}

/* One bit a byte, the lowest first, as Arrow has them; gives the number of zeros. */
static inline int64_t hr_event_pack(const uint8_t *bytes, int64_t count, uint8_t *bits)
{
    int64_t i, zeros = 0;
    for (i = 0; i < count; i++) {
        if ((i & 7) == 0) bits[i >> 3] = 0;
        bits[i >> 3] |= (uint8_t)(bytes[i] << (i & 7));
        zeros += !bytes[i];
    }
    return zeros;
}

#endif
