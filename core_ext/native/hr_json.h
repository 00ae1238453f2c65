/* JSON (RFC 8259), value by value, from bytes that are known to be UTF-8; no byte is read past the end. */
#ifndef HR_JSON_H
#define HR_JSON_H

#include <stddef.h>

#include "hr_layout.h"

enum { HR_JSON_DEPTH_MAX = 32 };  /* objects and arrays inside one another, the outermost included */

/* Why a message is no event; core_ext/events.pyx and its twin give them words. */
enum {
    HR_EVENT_OK = 0,
    HR_EVENT_TOO_LARGE,
    HR_EVENT_NOT_UTF8,
    HR_EVENT_MALFORMED,
    HR_EVENT_TOO_DEEP,
    HR_EVENT_NOT_OBJECT,
    HR_EVENT_DUPLICATE,
    HR_EVENT_WRONG_TYPE,
    HR_EVENT_OUT_OF_RANGE,
    HR_EVENT_BAD_TIME,
    HR_EVENT_NAIVE_TIME,
    HR_EVENT_BAD_BASE64,
    HR_EVENT_BAD_TEXT,
    HR_EVENT_NULL_ELEMENT,
    HR_EVENT_LIST_SIZE,
    HR_EVENT_NO_MEMORY
};

typedef struct {
    const uint8_t *at, *end;
} hr_json;

/* Bytes between quotes, or of a number. `is_plain`: a text without escapes, a number without fraction and exponent. */
typedef struct {
    const uint8_t *at;
    int64_t length;
    int is_plain;
} hr_json_span;

static inline void hr_json_space(hr_json *json)
{
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\n' || *json->at == '\r' || *json->at == '\t'))
        json->at++;
}

/* The next byte, 0 at the end: no JSON value begins with it. */
static inline uint8_t hr_json_next(const hr_json *json) { return json->at < json->end ? *json->at : 0; }

static inline int hr_json_take(hr_json *json, uint8_t byte)
{
    if (hr_json_next(json) != byte) return 0;
    json->at++;
    return 1;
}

static inline int hr_json_literal(hr_json *json, const char *text, ptrdiff_t length)
{
    if (json->end - json->at < length || memcmp(json->at, text, (size_t)length) != 0) return HR_EVENT_MALFORMED;
    json->at += length;
    return HR_EVENT_OK;
}

static inline int hr_json_hex(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

static inline int hr_json_escape(hr_json *json)
{
    int i;
    uint8_t kind = hr_json_next(json);
    if (kind == 0 || strchr("\"\\/bfnrtu", kind) == NULL) return HR_EVENT_MALFORMED;
    json->at++;
    for (i = 0; kind == 'u' && i < 4; i++, json->at++)
        if (hr_json_hex(hr_json_next(json)) < 0) return HR_EVENT_MALFORMED;
    return HR_EVENT_OK;
}

/* A string, with its syntax checked; *span is what stands between the quotes. */
static inline int hr_json_string(hr_json *json, hr_json_span *span)
{
    if (!hr_json_take(json, '"')) return HR_EVENT_MALFORMED;
    span->at = json->at;
    span->is_plain = 1;
    while (json->at < json->end) {
        uint8_t byte = *json->at++;
        if (byte == '"') {
            span->length = json->at - 1 - span->at;
            return HR_EVENT_OK;
        }
        if (byte < 0x20) return HR_EVENT_MALFORMED;
        if (byte == '\\') {
            span->is_plain = 0;
            if (hr_json_escape(json) != HR_EVENT_OK) return HR_EVENT_MALFORMED;
        }
    }
    return HR_EVENT_MALFORMED;
}

static inline int64_t hr_json_digits(hr_json *json)
{
    const uint8_t *start = json->at;
    while (json->at < json->end && *json->at >= '0' && *json->at <= '9') json->at++;
    return json->at - start;
}

static inline int hr_json_number(hr_json *json, hr_json_span *span)
{
    span->at = json->at;
    span->is_plain = 1;
    hr_json_take(json, '-');
    if (!hr_json_take(json, '0') && hr_json_digits(json) == 0) return HR_EVENT_MALFORMED;
    if (hr_json_take(json, '.')) {
        span->is_plain = 0;
        if (hr_json_digits(json) == 0) return HR_EVENT_MALFORMED;
    }
    if (hr_json_take(json, 'e') || hr_json_take(json, 'E')) {
        span->is_plain = 0;
        if (!hr_json_take(json, '+')) hr_json_take(json, '-');
        if (hr_json_digits(json) == 0) return HR_EVENT_MALFORMED;
    }
    span->length = json->at - span->at;
    return HR_EVENT_OK;
}

static inline int hr_json_begins_number(uint8_t byte) { return byte == '-' || (byte >= '0' && byte <= '9'); }

/* A value that nobody asked for; its syntax is checked all the same. `depth` counts what it lies in. */
static inline int hr_json_skip(hr_json *json, int depth)
{
    hr_json_span span;
    uint8_t open = hr_json_next(json), close = open == '{' ? '}' : ']';
    int status;
    switch (open) {
    case '"': return hr_json_string(json, &span);
    case 't': return hr_json_literal(json, "true", 4);
    case 'f': return hr_json_literal(json, "false", 5);
    case 'n': return hr_json_literal(json, "null", 4);
    case '{':
    case '[': break;
    default: return hr_json_number(json, &span);
    }
    if (depth >= HR_JSON_DEPTH_MAX) return HR_EVENT_TOO_DEEP;
    json->at++;
    hr_json_space(json);
    if (hr_json_take(json, close)) return HR_EVENT_OK;
    for (;;) {
        hr_json_space(json);
        if (open == '{') {
            if ((status = hr_json_string(json, &span)) != HR_EVENT_OK) return status;
            hr_json_space(json);
            if (!hr_json_take(json, ':')) return HR_EVENT_MALFORMED;
            hr_json_space(json);
        }
        if ((status = hr_json_skip(json, depth + 1)) != HR_EVENT_OK) return status;
        hr_json_space(json);
        if (hr_json_take(json, close)) return HR_EVENT_OK;
        if (!hr_json_take(json, ',')) return HR_EVENT_MALFORMED;
    }
}

static inline uint32_t hr_json_unit(const uint8_t *at)  /* four hex digits that were checked */
{
    return (uint32_t)(hr_json_hex(at[0]) << 12 | hr_json_hex(at[1]) << 8 | hr_json_hex(at[2]) << 4 | hr_json_hex(at[3]));
}

static inline uint8_t *hr_json_utf8(uint32_t point, uint8_t *to)
{
    if (point < 0x80) {
        *to++ = (uint8_t)point;
        return to;
    }
    if (point < 0x800) {
        *to++ = (uint8_t)(0xC0 | point >> 6);
    } else {
        if (point < 0x10000) {
            *to++ = (uint8_t)(0xE0 | point >> 12);
        } else {
            *to++ = (uint8_t)(0xF0 | point >> 18);
            *to++ = (uint8_t)(0x80 | (point >> 12 & 0x3F));
        }
        *to++ = (uint8_t)(0x80 | (point >> 6 & 0x3F));
    }
    *to++ = (uint8_t)(0x80 | (point & 0x3F));
    return to;
}

/* A checked string as it is meant, never longer than it is written; -1 for half a surrogate pair. */
static inline int64_t hr_json_unescape(const hr_json_span *span, uint8_t *to)
{
    static const char names[] = "bfnrt", meanings[] = "\b\f\n\r\t";
    const uint8_t *at = span->at, *end = at + span->length;
    const uint8_t *start = to;
    if (span->is_plain) {
        if (span->length > 0) memcpy(to, at, (size_t)span->length);
        return span->length;
    }
    while (at < end) {
        const char *name;
        uint32_t point;
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        name = strchr(names, at[1]);
        if (at[1] != 'u') {
            *to++ = name != NULL ? (uint8_t)meanings[name - names] : at[1];
            at += 2;
            continue;
        }
        point = hr_json_unit(at + 2);
        at += 6;
        if (point >= 0xD800 && point < 0xE000) {
            uint32_t low;
            if (point >= 0xDC00 || end - at < 6 || at[0] != '\\' || at[1] != 'u') return -1;
            low = hr_json_unit(at + 2);
            if (low < 0xDC00 || low >= 0xE000) return -1;
            point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
            at += 6;
        }
        to = hr_json_utf8(point, to);
    }
    return to - start;
}

#endif
