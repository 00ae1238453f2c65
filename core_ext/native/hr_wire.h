/* Reading and writing the protobuf wire format (protobuf.dev/programming-guides/encoding), bounds first. */
#ifndef HR_WIRE_H
#define HR_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "hr_utf8.h"

enum { HR_WIRE_VARINT = 0, HR_WIRE_I64 = 1, HR_WIRE_LEN = 2, HR_WIRE_GROUP = 3, HR_WIRE_GROUP_END = 4, HR_WIRE_I32 = 5 };
enum { HR_WIRE_DEPTH_MAX = 100 };  /* nesting of messages and groups that protobuf parsers accept */

/* A span of bytes being read; `at` never passes `end`. */
typedef struct {
    const uint8_t *at, *end;
} hr_span;

static inline size_t hr_span_bytes(hr_span span) { return (size_t)(span.end - span.at); }

/* Every reader returns 1, or 0 when the bytes end early or are malformed: in what they accept they agree with
 * protobuf's own parser, which drops the bits above 64 of a ten-byte varint and takes tags and lengths of at
 * most five bytes. */
static inline int hr_read_varint_long(hr_span *in, uint64_t *value)
{
    uint64_t read = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        uint8_t byte;
        if (in->at == in->end) return 0;
        byte = *in->at++;
        read |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            *value = read;
            return 1;
        }
    }
    return 0;
}

static inline int hr_read_varint(hr_span *in, uint64_t *value)
{
    if (in->at < in->end && *in->at < 0x80) {
        *value = *in->at++;
        return 1;
    }
    return hr_read_varint_long(in, value);
}

/* A tag or a length. */
static inline int hr_read_short_varint(hr_span *in, uint32_t *value)
{
    const uint8_t *start = in->at;
    uint64_t read;
    if (!hr_read_varint(in, &read) || in->at - start > 5 || read > UINT32_MAX) return 0;
    *value = (uint32_t)read;
    return 1;
}

static inline int hr_read_bytes(hr_span *in, hr_span *bytes)
{
    uint32_t length;
    if (!hr_read_short_varint(in, &length) || length > hr_span_bytes(*in)) return 0;
    bytes->at = in->at;
    bytes->end = in->at += length;
    return 1;
}

static inline int hr_read_any_tag(hr_span *in, uint32_t *field, uint32_t *type)
{
    uint32_t tag;
    if (!hr_read_short_varint(in, &tag)) return 0;
    *field = tag >> 3;
    *type = tag & 7;
    return 1;
}

/* Field number, 1 to 2^29-1, and wire type. */
static inline int hr_read_tag(hr_span *in, uint32_t *field, uint32_t *type)
{
    return hr_read_any_tag(in, field, type) && *field > 0;
}

static inline int hr_skip_scalar(hr_span *in, uint32_t type)
{
    uint64_t ignored;
    hr_span bytes;
    size_t width = type == HR_WIRE_I64 ? 8 : 4;
    if (type == HR_WIRE_VARINT) return hr_read_varint(in, &ignored);
    if (type == HR_WIRE_LEN) return hr_read_bytes(in, &bytes);
    if (type != HR_WIRE_I64 && type != HR_WIRE_I32) return 0;
    if (hr_span_bytes(*in) < width) return 0;
    in->at += width;
    return 1;
}

/* Skips one field of unknown number in a message nested `level` deep, groups included, without recursion. */
static inline int hr_skip_field(hr_span *in, uint32_t field, uint32_t type, uint32_t level)
{
    uint32_t open[HR_WIRE_DEPTH_MAX], depth = 0;
    for (;;) {
        if (type == HR_WIRE_GROUP) {
            if (depth + level >= HR_WIRE_DEPTH_MAX) return 0;
            open[depth++] = field;
        } else if (type == HR_WIRE_GROUP_END) {
            if (depth == 0 || open[--depth] != field) return 0;
        } else if (!hr_skip_scalar(in, type)) {
            return 0;
        }
        if (depth == 0) return 1;
        if (!hr_read_any_tag(in, &field, &type)) return 0;  /* within groups field 0 is let pass, too */
    }
}

static inline uint32_t hr_varint_bytes(uint64_t value)
{
    uint32_t bytes = 1;
    while (value >= 0x80) value >>= 7, bytes++;
    return bytes;
}

static inline uint8_t *hr_write_varint(uint8_t *out, uint64_t value)
{
    while (value >= 0x80) {
        *out++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *out++ = (uint8_t)value;
    return out;
}

enum { HR_LENGTH_BYTES_MAX = 11 };  /* of what follows */

/* Tag and length of a length-delimited field below number 16. */
static inline uint8_t *hr_write_length(uint8_t *out, uint32_t field, uint64_t length)
{
    *out++ = (uint8_t)(field << 3 | HR_WIRE_LEN);
    return hr_write_varint(out, length);
}

static inline uint64_t hr_length_bytes(uint64_t length) { return 1 + hr_varint_bytes(length) + length; }

#endif
