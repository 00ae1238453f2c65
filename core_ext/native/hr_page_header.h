/* Headers of Parquet pages: the Thrift compact protocol as far as they use it, checked byte by byte. */
#ifndef HR_PAGE_HEADER_H
#define HR_PAGE_HEADER_H

#include <stddef.h>

#include "hr_layout.h"

enum { HR_PAGE_DATA = 0, HR_PAGE_DICTIONARY = 2 };
enum { HR_ENCODING_PLAIN = 0, HR_ENCODING_OLD_DICTIONARY = 2, HR_ENCODING_RLE = 3, HR_ENCODING_DICTIONARY = 8 };
enum {
    HR_THRIFT_TRUE = 1, HR_THRIFT_FALSE = 2, HR_THRIFT_BYTE = 3, HR_THRIFT_I32 = 5, HR_THRIFT_I64 = 6,
    HR_THRIFT_DOUBLE = 7, HR_THRIFT_BINARY = 8, HR_THRIFT_STRUCT = 12,
    HR_THRIFT_DEPTH_MAX = 8  /* of structs within structs that are skipped */
};

typedef struct {
    const uint8_t *at, *end;
    int is_broken;
} hr_thrift;

/* Sizes in bytes; an encoding is -1 where the page has none. */
typedef struct {
    int64_t type, plain_bytes, stored_bytes, value_count, encoding, level_encoding, repeat_encoding;
} hr_page_header;

static inline uint8_t hr_thrift_byte(hr_thrift *in)
{
    if (in->at == in->end) {
        in->is_broken = 1;
        return 0;
    }
    return *in->at++;
}

static inline uint64_t hr_thrift_varint(hr_thrift *in)
{
    uint64_t value = 0;
    int shift;
    for (shift = 0; shift < 64; shift += 7) {
        uint8_t byte = hr_thrift_byte(in);
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return value;
    }
    in->is_broken = 1;
    return 0;
}

static inline int64_t hr_thrift_integer(hr_thrift *in)
{
    uint64_t value = hr_thrift_varint(in);
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

/* Type of the next field, 0 at the end of the struct; *id goes on from the field before. */
static inline int hr_thrift_field(hr_thrift *in, int64_t *id)
{
    uint8_t head = hr_thrift_byte(in);
    if (in->is_broken || head == 0) return 0;
    *id = head >> 4 != 0 ? *id + (head >> 4) : (int16_t)hr_thrift_integer(in);
    return head & 0x0F;
}

static inline void hr_thrift_skip(hr_thrift *in, int type, int depth)
{
    uint64_t count;
    int64_t id = 0;
    if (type == HR_THRIFT_TRUE || type == HR_THRIFT_FALSE) return;
    if (type == HR_THRIFT_BYTE) {
        hr_thrift_byte(in);
    } else if (type > HR_THRIFT_BYTE && type <= HR_THRIFT_I64) {
        hr_thrift_varint(in);
    } else if (type == HR_THRIFT_DOUBLE || type == HR_THRIFT_BINARY) {
        count = type == HR_THRIFT_DOUBLE ? 8 : hr_thrift_varint(in);
        if (in->is_broken || count > (uint64_t)(in->end - in->at)) in->is_broken = 1;
        else in->at += count;
    } else if (type == HR_THRIFT_STRUCT && depth < HR_THRIFT_DEPTH_MAX) {
        while ((type = hr_thrift_field(in, &id)) != 0 && !in->is_broken) hr_thrift_skip(in, type, depth + 1);
    } else {
        in->is_broken = 1;  /* page headers hold no list, set or map */
    }
}

/* Counts and encodings of a data page or a dictionary page. */
static inline void hr_page_inner(hr_thrift *in, hr_page_header *header)
{
    int64_t id = 0;
    int type;
    while ((type = hr_thrift_field(in, &id)) != 0 && !in->is_broken) {
        int64_t *to = id == 1 ? &header->value_count : id == 2 ? &header->encoding : NULL;
        if (id == 3) to = &header->level_encoding;
        if (id == 4) to = &header->repeat_encoding;
        if (to == NULL || type != HR_THRIFT_I32) hr_thrift_skip(in, type, 0);
        else *to = hr_thrift_integer(in);
    }
}

/* Reads a header and returns its size, 0 where there is no whole one or its sizes make no sense. */
static inline size_t hr_page_header_read(const uint8_t *at, size_t left, hr_page_header *header)
{
    hr_thrift in = {at, at + left, 0};
    int64_t id = 0;
    int type;
    *header = (hr_page_header){-1, -1, -1, -1, -1, -1, -1};
    while ((type = hr_thrift_field(&in, &id)) != 0 && !in.is_broken) {
        int64_t *to = id == 1 ? &header->type : id == 2 ? &header->plain_bytes : id == 3 ? &header->stored_bytes : NULL;
        if (to != NULL && type == HR_THRIFT_I32) *to = hr_thrift_integer(&in);
        else if ((id == 5 || id == 7) && type == HR_THRIFT_STRUCT) hr_page_inner(&in, header);
        else hr_thrift_skip(&in, type, 0);
    }
    left = (size_t)(in.end - in.at);
    if (in.is_broken || header->plain_bytes < 0 || header->stored_bytes < 0 || (uint64_t)header->stored_bytes > left)
        return 0;
    return (size_t)(in.at - at);
}

#endif
