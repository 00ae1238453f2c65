/* Messages that are one JSON object each, to columns; a message that is no event leaves no trace in them. */
#ifndef HR_EVENTS_H
#define HR_EVENTS_H

#include "hr_event_columns.h"
#include "hr_hash.h"
#include "hr_utf8.h"

enum { HR_EVENT_NAME_BYTES_MAX = 4096 };  /* of a name that is written with escapes; the names of columns are shorter */

typedef struct {
    hr_event_column *columns;
    uint32_t *index;              /* place + 1 by the hash of the name, 0 where free */
    uint32_t column_count, index_mask;
    int64_t bytes_max, message, row_count;
    locale_t plain;
} hr_events;

static inline int hr_event_is_named(const hr_event_column *column, const uint8_t *name, int64_t length)
{
    return column->name_length == length && memcmp(column->name, name, (size_t)length) == 0;
}

static inline void hr_events_index(hr_events *events)
{
    uint32_t i;
    for (i = 0; i < events->column_count; i++) {
        const hr_event_column *column = &events->columns[i];
        uint32_t slot = (uint32_t)hr_xxh3_64(column->name, (size_t)column->name_length) & events->index_mask;
        while (events->index[slot] != 0) slot = (slot + 1) & events->index_mask;
        events->index[slot] = i + 1;
    }
}

/* The column of a name, NULL where nobody asked for it. `hint` is where senders that keep an order will be. */
static inline hr_event_column *hr_events_find(const hr_events *events, const hr_json_span *span, uint32_t *hint)
{
    uint8_t plain[HR_EVENT_NAME_BYTES_MAX];
    const uint8_t *name = span->at;
    int64_t length = span->length;
    uint32_t slot;
    if (!span->is_plain) {
        if (length > HR_EVENT_NAME_BYTES_MAX) return NULL;
        length = hr_json_unescape(span, plain);
        name = plain;
        if (length < 0) return NULL;
    }
    if (*hint < events->column_count && hr_event_is_named(&events->columns[*hint], name, length))
        return &events->columns[(*hint)++];
    slot = (uint32_t)hr_xxh3_64(name, (size_t)length) & events->index_mask;
    for (; events->index[slot] != 0; slot = (slot + 1) & events->index_mask) {
        uint32_t place = events->index[slot] - 1;
        if (!hr_event_is_named(&events->columns[place], name, length)) continue;
        *hint = place + 1;
        return &events->columns[place];
    }
    return NULL;
}

static inline int hr_event_number(hr_json *json, hr_event_column *column, locale_t plain)
{
    uint8_t scalar = column->type.scalar;
    hr_json_span span;
    double real;
    int64_t whole;
    int status = hr_json_number(json, &span);
    if (status != HR_EVENT_OK) return status;
    if (scalar == HR_F32 || scalar == HR_F64) {
        status = hr_event_double(&span, plain, &real);
        return status != HR_EVENT_OK ? status : hr_event_put_double(column, real);
    }
    if (scalar == HR_BOOL || scalar == HR_STRING || scalar == HR_BYTES || !span.is_plain) return HR_EVENT_WRONG_TYPE;
    status = hr_event_whole(&span, &whole);
    return status != HR_EVENT_OK ? status : hr_event_put_whole(column, whole);
}

static inline int hr_event_string(hr_json *json, hr_event_column *column)
{
    uint8_t text[256];  /* the longest time, each of its 35 characters escaped by 6 */
    hr_json_span span;
    int64_t value = 0, length;
    int status = hr_json_string(json, &span);
    if (status != HR_EVENT_OK) return status;
    switch (column->type.scalar) {
    case HR_STRING:
    case HR_BYTES: return hr_event_put_text(column, &span);
    case HR_TIMESTAMP_US:
    case HR_DATE: break;
    default: return HR_EVENT_WRONG_TYPE;
    }
    if (span.length > (int64_t)sizeof(text)) return HR_EVENT_BAD_TIME;
    length = hr_json_unescape(&span, text);
    if (length < 0) return HR_EVENT_BAD_TIME;
    if (column->type.scalar == HR_DATE) status = hr_event_date(text, length, &value);
    else status = hr_event_time(text, length, &value);
    return status != HR_EVENT_OK ? status : hr_event_put_whole(column, value);
}

/* One value that is not null. */
static inline int hr_event_element(hr_json *json, hr_event_column *column, locale_t plain, int depth)
{
    uint8_t next = hr_json_next(json);
    int status;
    if (next == '"') return hr_event_string(json, column);
    if (hr_json_begins_number(next)) return hr_event_number(json, column, plain);
    if (column->type.scalar == HR_BOOL && (next == 't' || next == 'f')) {
        uint8_t value = next == 't';
        status = value ? hr_json_literal(json, "true", 4) : hr_json_literal(json, "false", 5);
        return status != HR_EVENT_OK ? status : hr_event_put(column, &value, 1);
    }
    status = hr_json_skip(json, depth);
    return status != HR_EVENT_OK ? status : HR_EVENT_WRONG_TYPE;
}

static inline int hr_event_list(hr_json *json, hr_event_column *column, locale_t plain)
{
    int64_t before = column->element_count;
    int status;
    if (hr_json_next(json) != '[') {
        status = hr_json_skip(json, 1);
        return status != HR_EVENT_OK ? status : HR_EVENT_WRONG_TYPE;
    }
    json->at++;
    hr_json_space(json);
    if (!hr_json_take(json, ']')) {
        for (;;) {
            hr_json_space(json);
            if (hr_json_next(json) == 'n') {
                status = hr_json_literal(json, "null", 4);
                return status != HR_EVENT_OK ? status : HR_EVENT_NULL_ELEMENT;
            }
            if ((status = hr_event_element(json, column, plain, 2)) != HR_EVENT_OK) return status;
            hr_json_space(json);
            if (hr_json_take(json, ']')) break;
            if (!hr_json_take(json, ',')) return HR_EVENT_MALFORMED;
        }
    }
    if (column->type.shape == HR_VARIABLE) return hr_event_end(&column->lists, column->element_count);
    return column->element_count - before == column->type.list_size ? HR_EVENT_OK : HR_EVENT_LIST_SIZE;
}

static inline int hr_event_value(hr_events *events, hr_json *json, hr_event_column *column)
{
    int status;
    if (column->seen == events->message) return HR_EVENT_DUPLICATE;
    column->seen = events->message;
    if (hr_json_next(json) == 'n') {
        status = hr_json_literal(json, "null", 4);
        if (status == HR_EVENT_OK) status = hr_event_put_null(column);
        return status != HR_EVENT_OK ? status : hr_event_put_valid(column, 0);
    }
    status = column->type.shape == HR_SINGLE ? hr_event_element(json, column, events->plain, 1)
                                             : hr_event_list(json, column, events->plain);
    return status != HR_EVENT_OK ? status : hr_event_put_valid(column, 1);
}

/* The members of an object; *column is at fault where one of them is. */
static inline int hr_event_members(hr_events *events, hr_json *json, int64_t *column)
{
    hr_json_span name;
    uint32_t hint = 0;
    int status;
    hr_json_space(json);
    if (hr_json_next(json) != '{') {
        status = hr_json_skip(json, 0);
        return status != HR_EVENT_OK ? status : HR_EVENT_NOT_OBJECT;
    }
    json->at++;
    hr_json_space(json);
    if (hr_json_take(json, '}')) return HR_EVENT_OK;
    for (;;) {
        hr_event_column *found;
        hr_json_space(json);
        if ((status = hr_json_string(json, &name)) != HR_EVENT_OK) return status;
        hr_json_space(json);
        if (!hr_json_take(json, ':')) return HR_EVENT_MALFORMED;
        hr_json_space(json);
        found = hr_events_find(events, &name, &hint);
        status = found == NULL ? hr_json_skip(json, 1) : hr_event_value(events, json, found);
        if (status != HR_EVENT_OK) {
            if (found != NULL) *column = found - events->columns;
            return status;
        }
        hr_json_space(json);
        if (hr_json_take(json, '}')) return HR_EVENT_OK;
        if (!hr_json_take(json, ',')) return HR_EVENT_MALFORMED;
    }
}

static inline int hr_event_read(hr_events *events, const uint8_t *data, int64_t length, int64_t *column)
{
    hr_json json = {data, data + length};
    uint32_t i;
    int status;
    if (length > events->bytes_max) return HR_EVENT_TOO_LARGE;
    if (!hr_is_utf8(data, (size_t)length)) return HR_EVENT_NOT_UTF8;
    status = hr_event_members(events, &json, column);
    if (status != HR_EVENT_OK) return status;
    hr_json_space(&json);
    if (json.at != json.end) return HR_EVENT_MALFORMED;
    for (i = 0; i < events->column_count; i++) {
        hr_event_column *missing = &events->columns[i];
        if (missing->seen == events->message) continue;
        status = hr_event_put_null(missing);
        if (status == HR_EVENT_OK) status = hr_event_put_valid(missing, 0);
        if (status != HR_EVENT_OK) return status;
    }
    return HR_EVENT_OK;
}

/* Takes one message: HR_EVENT_OK adds a row, anything else leaves the columns as they were. */
static inline int hr_event_take(hr_events *events, const uint8_t *data, int64_t length, int64_t *column)
{
    uint32_t i;
    int status;
    events->message++;
    *column = -1;
    for (i = 0; i < events->column_count; i++) hr_event_keep(&events->columns[i]);
    status = hr_event_read(events, data, length, column);
    if (status == HR_EVENT_OK) {
        events->row_count++;
        return status;
    }
    for (i = 0; i < events->column_count; i++) hr_event_undo(&events->columns[i], events->row_count);
    return status;
}

#endif
