/* Text in expressions: views of bytes, an arena for what is made, and functions that count code points. */
#ifndef HR_EXPRESSION_TEXT_H
#define HR_EXPRESSION_TEXT_H

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

#include "hr_expression.h"

typedef struct {
    const uint8_t *at;
    uint64_t length;
} hr_text;

/* Memory of one block of rows: a chain of chunks, so that pointers into it stay; emptied before the next block. */
typedef struct hr_text_chunk {
    struct hr_text_chunk *next;
    size_t room, used;
    uint8_t bytes[];
} hr_text_chunk;

typedef struct {
    hr_text_chunk *first;
    int failed;  /* malloc gave nothing */
} hr_text_arena;

enum { HR_ARENA_CHUNK_BYTES = 64 * 1024 };

static inline uint8_t *hr_text_arena_take(hr_text_arena *arena, size_t size)
{
    hr_text_chunk *chunk = arena->first;
    if (chunk == NULL || chunk->room - chunk->used < size) {
        size_t room = size > HR_ARENA_CHUNK_BYTES ? size : HR_ARENA_CHUNK_BYTES;
        chunk = (hr_text_chunk *)malloc(sizeof(hr_text_chunk) + room);
        if (chunk == NULL) { arena->failed = 1; return NULL; }
        chunk->next = arena->first, chunk->room = room, chunk->used = 0;
        arena->first = chunk;
    }
    chunk->used += size;
    return chunk->bytes + chunk->used - size;
}

/* Keeps one chunk for the next block, which may find the memory that this one did not. */
static inline void hr_text_arena_empty(hr_text_arena *arena)
{
    arena->failed = 0;
    while (arena->first != NULL && arena->first->next != NULL) {
        hr_text_chunk *next = arena->first->next;
        free(arena->first);
        arena->first = next;
    }
    if (arena->first != NULL) arena->first->used = 0;
}

static inline void hr_text_arena_free(hr_text_arena *arena)
{
    hr_text_arena_empty(arena);
    free(arena->first);
    arena->first = NULL;
}

static inline int hr_text_compare(hr_text a, hr_text b)
{
    size_t both = a.length < b.length ? a.length : b.length;
    int order = both == 0 ? 0 : memcmp(a.at, b.at, both);
    if (order != 0) return order;
    return a.length < b.length ? -1 : a.length > b.length;
}

static inline int hr_text_equal(hr_text a, hr_text b)
{
    return a.length == b.length && (a.length == 0 || memcmp(a.at, b.at, a.length) == 0);
}

static inline int64_t hr_text_length(hr_text a)
{
    int64_t count = 0;
    uint64_t i;
    for (i = 0; i < a.length; i++) count += (a.at[i] & 0xC0) != 0x80;
    return count;
}

/* Code points start to start + count, counted from 1, as far as they exist. */
static inline hr_text hr_text_part(hr_text a, int64_t start, int64_t count)
{
    hr_text part = {a.at, 0};
    int64_t end, position = 0;
    uint64_t i, first = a.length, last = a.length;
    if (__builtin_add_overflow(start, count, &end)) end = count > 0 ? INT64_MAX : INT64_MIN;
    if (end <= start || end <= 1) return part;
    for (i = 0; i < a.length; i++) {
        if ((a.at[i] & 0xC0) == 0x80) continue;
        position++;
        if (position >= start && first == a.length) first = i;
        if (position >= end) { last = i; break; }
    }
    if (first >= last) return part;
    part.at = a.at + first, part.length = last - first;
    return part;
}

static inline int hr_is_blank(uint8_t byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

static inline hr_text hr_text_trimmed(hr_text a)
{
    while (a.length > 0 && hr_is_blank(a.at[0])) a.at++, a.length--;
    while (a.length > 0 && hr_is_blank(a.at[a.length - 1])) a.length--;
    return a;
}

static inline int hr_text_starts(hr_text a, hr_text b)
{
    return b.length == 0 || (b.length <= a.length && memcmp(a.at, b.at, b.length) == 0);
}

static inline int hr_text_ends(hr_text a, hr_text b)
{
    return b.length == 0 || (b.length <= a.length && memcmp(a.at + a.length - b.length, b.at, b.length) == 0);
}

/* Where b next stands in a at `from` or after; a.length where it does not. b is not empty. */
static inline uint64_t hr_text_find(hr_text a, hr_text b, uint64_t from)
{
    while (from < a.length && b.length <= a.length - from) {
        const uint8_t *hit = (const uint8_t *)memchr(a.at + from, b.at[0], a.length - from - b.length + 1);
        if (hit == NULL) break;
        from = (uint64_t)(hit - a.at);
        if (memcmp(hit, b.at, b.length) == 0) return from;
        from++;
    }
    return a.length;
}

/* The following make new text; 0 where it would be longer than HR_TEXT_BYTES_MAX or there is no memory. */
static inline int hr_text_cased(hr_text_arena *arena, hr_text a, uint8_t first, uint8_t last, hr_text *made)
{
    uint8_t *to;
    uint64_t i;
    if (a.length > HR_TEXT_BYTES_MAX) return 0;
    to = hr_text_arena_take(arena, a.length);
    if (to == NULL) return 0;
    for (i = 0; i < a.length; i++) to[i] = a.at[i] >= first && a.at[i] <= last ? a.at[i] ^ 0x20 : a.at[i];
    made->at = to, made->length = a.length;
    return 1;
}

static inline int hr_text_joined(hr_text_arena *arena, hr_text a, hr_text b, hr_text *made)
{
    uint8_t *to;
    if (a.length > HR_TEXT_BYTES_MAX || b.length > HR_TEXT_BYTES_MAX - a.length) return 0;
    to = hr_text_arena_take(arena, a.length + b.length);
    if (to == NULL) return 0;
    if (a.length > 0) memcpy(to, a.at, a.length);
    if (b.length > 0) memcpy(to + a.length, b.at, b.length);
    made->at = to, made->length = a.length + b.length;
    return 1;
}

static inline int hr_text_replaced(hr_text_arena *arena, hr_text a, hr_text from, hr_text to, hr_text *made)
{
    uint64_t hits = 0, at, last, grown;
    uint8_t *out;
    *made = a;
    if (from.length == 0) return a.length <= HR_TEXT_BYTES_MAX;
    if (a.length > HR_TEXT_BYTES_MAX) return 0;
    for (at = hr_text_find(a, from, 0); at < a.length; at = hr_text_find(a, from, at + from.length)) hits++;
    if (hits == 0) return 1;
    if (to.length > HR_TEXT_BYTES_MAX) return 0;
    grown = a.length - hits * from.length + hits * to.length;
    if (grown > HR_TEXT_BYTES_MAX) return 0;
    out = hr_text_arena_take(arena, grown);
    if (out == NULL) return 0;
    made->at = out, made->length = grown;
    for (last = 0, at = hr_text_find(a, from, 0); at < a.length; at = hr_text_find(a, from, last)) {
        memcpy(out, a.at + last, at - last);
        out += at - last;
        if (to.length > 0) memcpy(out, to.at, to.length);
        out += to.length;
        last = at + from.length;
    }
    if (a.length > last) memcpy(out, a.at + last, a.length - last);
    return 1;
}

static inline int hr_text_of_int(hr_text_arena *arena, int64_t value, hr_text *made)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)value);
    uint8_t *to = hr_text_arena_take(arena, (size_t)length);
    if (to == NULL) return 0;
    memcpy(to, digits, (size_t)length);
    made->at = to, made->length = (uint64_t)length;
    return 1;
}

static inline uint64_t hr_digits(hr_text a, uint64_t from)
{
    while (from < a.length && a.at[from] >= '0' && a.at[from] <= '9') from++;
    return from;
}

/* [+-]digits within i64. */
static inline int hr_text_to_int(hr_text a, int64_t *value)
{
    uint64_t i = a.length > 0 && (a.at[0] == '-' || a.at[0] == '+');
    int negative = i && a.at[0] == '-';
    int64_t found = 0;
    if (a.length > HR_NUMBER_TEXT_MAX || i == a.length || hr_digits(a, i) != a.length) return 0;
    for (; i < a.length; i++) {
        int digit = a.at[i] - '0';
        if (__builtin_mul_overflow(found, 10, &found)) return 0;
        if (__builtin_add_overflow(found, negative ? -digit : digit, &found)) return 0;
    }
    *value = found;
    return 1;
}

/* [+-] digits [. digits] [e[+-]digits], at least one digit before or after the point; correctly rounded. `c_locale`
 * is the locale "C": the decimal point must not follow the process. */
static inline int hr_text_to_float(hr_text a, locale_t c_locale, double *value)
{
    char copy[HR_NUMBER_TEXT_MAX + 1];
    uint64_t i = a.length > 0 && (a.at[0] == '-' || a.at[0] == '+'), whole, end;
    if (a.length > HR_NUMBER_TEXT_MAX) return 0;
    whole = end = hr_digits(a, i);
    if (end < a.length && a.at[end] == '.') {
        end = hr_digits(a, end + 1);
        if (end == whole + 1 && whole == i) return 0;
    } else if (whole == i) {
        return 0;
    }
    if (end < a.length && (a.at[end] == 'e' || a.at[end] == 'E')) {
        uint64_t power = end + 1;
        if (power < a.length && (a.at[power] == '-' || a.at[power] == '+')) power++;
        end = hr_digits(a, power);
        if (end == power) return 0;
    }
    if (end != a.length) return 0;
    memcpy(copy, a.at, a.length);
    copy[a.length] = 0;
    *value = strtod_l(copy, NULL, c_locale);
    return isfinite(*value) ? 1 : 0;
}

#endif
