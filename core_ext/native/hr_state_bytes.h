/* Bytes of window states: a reader that checks every read and takes canonical forms alone, and a bounded writer. */
#ifndef HR_STATE_BYTES_H
#define HR_STATE_BYTES_H

#include "hr_state_value.h"

typedef unsigned __int128 hr_u128;

typedef struct {
    const uint8_t *at, *end;
    int is_bad;
} hr_source;

/* `at` runs on behind `end`, so that the length is known even where nothing fits; nothing is written there. */
typedef struct {
    uint8_t *start;
    size_t used, capacity;
} hr_sink;

static inline int hr_bit_length(hr_u128 w)
{
    uint64_t high = (uint64_t)(w >> 64), low = (uint64_t)w;
    if (high != 0) return 128 - __builtin_clzll(high);
    return low == 0 ? 0 : 64 - __builtin_clzll(low);
}

static inline const uint8_t *hr_take(hr_source *source, size_t count)
{
    const uint8_t *at = source->at;
    if ((size_t)(source->end - at) < count) {
        source->is_bad = 1;
        return NULL;
    }
    source->at += count;
    return at;
}

/* Seven bits a byte, low ones first; the last byte is not 0 unless it is the only one. */
static inline hr_u128 hr_take_wide(hr_source *source, int bits)
{
    hr_u128 value = 0;
    int shift;
    for (shift = 0; shift < bits && source->at < source->end; shift += 7) {
        uint8_t byte = *source->at++;
        hr_u128 part = byte & 0x7F;
        if (shift + hr_bit_length(part) > bits) break;
        value |= part << shift;
        if (byte < 0x80) {
            if (byte == 0 && shift > 0) break;
            return value;
        }
    }
    source->is_bad = 1;
    return 0;
}

static inline uint64_t hr_take_number(hr_source *source)
{
    if (source->at < source->end && *source->at < 0x80) return *source->at++;
    return (uint64_t)hr_take_wide(source, 64);
}

/* A count: at most 2^63 - 1. */
static inline int64_t hr_take_count(hr_source *source)
{
    uint64_t count = hr_take_number(source);
    if (count > INT64_MAX) source->is_bad = 1;
    return (int64_t)(count & INT64_MAX);
}

static inline int64_t hr_take_signed(hr_source *source)
{
    uint64_t folded = hr_take_number(source);
    return (int64_t)(folded >> 1 ^ (0 - (folded & 1)));
}

static inline void hr_put(hr_sink *sink, const void *bytes, size_t count)
{
    if (count > 0 && sink->used <= sink->capacity && sink->capacity - sink->used >= count)
        memcpy(sink->start + sink->used, bytes, count);
    sink->used += count;
}

static inline void hr_put_byte(hr_sink *sink, uint8_t byte)
{
    if (sink->used < sink->capacity) sink->start[sink->used] = byte;
    sink->used++;
}

static inline void hr_put_number(hr_sink *sink, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) hr_put_byte(sink, (uint8_t)(value | 0x80));
    hr_put_byte(sink, (uint8_t)value);
}

static inline void hr_put_wide(hr_sink *sink, hr_u128 value)
{
    for (; value >= 0x80; value >>= 7) hr_put_byte(sink, (uint8_t)((uint8_t)value | 0x80));
    hr_put_byte(sink, (uint8_t)value);
}

static inline void hr_put_signed(hr_sink *sink, int64_t value)
{
    hr_put_number(sink, (uint64_t)value << 1 ^ (uint64_t)(value >> 63));
}

/* ---- one value: BOOL a byte; whole numbers and times signed; F32 4 bytes, F64 8; texts after their length ---- */

static inline void hr_put_value(hr_sink *sink, uint8_t scalar, const hr_value *value)
{
    float narrow;
    uint32_t bits;
    uint64_t wide;
    if (hr_scalar_is_text(scalar)) {
        hr_put_number(sink, value->length);
        hr_put(sink, value->bytes, value->length);
    } else if (scalar == HR_F64) {
        wide = value->f == value->f ? hr_float_bits(value->f) : HR_NAN_BITS;
        hr_put(sink, &wide, 8);
    } else if (scalar == HR_F32) {
        narrow = (float)value->f;
        memcpy(&bits, &narrow, 4);
        if (narrow != narrow) bits = 0x7FC00000U;
        hr_put(sink, &bits, 4);
    } else if (scalar == HR_BOOL) {
        hr_put_byte(sink, (uint8_t)value->i);
    } else {
        hr_put_signed(sink, value->i);
    }
}

/* Texts point into the source. */
static inline hr_value hr_take_value(hr_source *source, uint8_t scalar)
{
    const uint8_t *at;
    float narrow;
    int64_t whole;
    if (hr_scalar_is_text(scalar)) {
        uint64_t length = hr_take_number(source);
        if (length > UINT32_MAX) source->is_bad = 1;
        at = hr_take(source, (size_t)length);
        return hr_value_text(at, at == NULL ? 0 : (uint32_t)length);
    }
    if (hr_scalar_is_float(scalar)) {
        double wide = 0;
        at = hr_take(source, scalar == HR_F64 ? 8 : 4);
        if (at == NULL) return hr_value_float(0);
        if (scalar == HR_F64) {
            memcpy(&wide, at, 8);
            if (wide != wide && hr_load_u64(at) != HR_NAN_BITS) source->is_bad = 1;
        } else {
            memcpy(&narrow, at, 4);
            wide = narrow;
            if (narrow != narrow && hr_load_u32(at) != 0x7FC00000U) source->is_bad = 1;
        }
        return hr_value_float(wide == wide ? wide : hr_float_of(HR_NAN_BITS));
    }
    if (scalar == HR_BOOL) {
        at = hr_take(source, 1);
        if (at != NULL && *at > 1) source->is_bad = 1;
        return hr_value_whole(at == NULL ? 0 : *at & 1);
    }
    whole = hr_take_signed(source);
    if ((scalar == HR_I32 || scalar == HR_DATE) && whole != (int32_t)whole) source->is_bad = 1;
    return hr_value_whole(whole);
}

#endif
