/* Snappy blocks, decompressed by their description; every read and copy is checked against its end first. */
#ifndef HR_SNAPPY_H
#define HR_SNAPPY_H

#include <stddef.h>

#include "hr_layout.h"

enum {
    HR_SNAPPY_STRETCH = 1 << 16,     /* bytes that are compressed on their own */
    HR_SNAPPY_LITERAL_16 = 61 << 2,  /* the tag of a literal whose length is a number of 16 bits */
    HR_SNAPPY_GAP = 3                /* that tag and number */
};

/* Copies `count` bytes from `distance` back; both ends were checked, and a short distance repeats what it writes. */
static inline void hr_snappy_repeat(uint8_t *to, const uint8_t *limit, size_t distance, size_t count)
{
    const uint8_t *from = to - distance;
    size_t i;
    if (distance >= 8 && (size_t)(limit - to) >= count + 8) {
        for (i = 0; i < count; i += 8) hr_store_u64(to + i, hr_load_u64(from + i));  /* may write 7 bytes too many */
        return;
    }
    for (i = 0; i < count; i++) to[i] = from[i];
}

/* Where a block goes on behind its length, NULL where that is not out_bytes. */
static inline const uint8_t *hr_snappy_head(const uint8_t *in, const uint8_t *end, size_t out_bytes)
{
    uint64_t length = 0;
    int shift = 0, is_last = 0;
    while (!is_last) {
        if (in == end || shift > 28) return NULL;
        is_last = *in < 0x80;
        length |= (uint64_t)(*in++ & 0x7F) << shift;
        shift += 7;
    }
    return length == out_bytes ? in : NULL;
}

/* What does not shrink is stored as literals of HR_SNAPPY_STRETCH bytes, each behind a head of HR_SNAPPY_GAP. Of such a
 * block this gives the first byte: byte i lies at first + i + i / HR_SNAPPY_STRETCH * HR_SNAPPY_GAP. Of others NULL. */
static inline const uint8_t *hr_snappy_literals(const uint8_t *in, size_t in_bytes, size_t out_bytes)
{
    const uint8_t *end = in + in_bytes, *first;
    size_t left = out_bytes, count;
    in = hr_snappy_head(in, end, out_bytes);
    if (in == NULL || left == 0) return NULL;
    for (first = in + HR_SNAPPY_GAP; left > 0; left -= count, in += count) {
        count = left < HR_SNAPPY_STRETCH ? left : HR_SNAPPY_STRETCH;
        if ((size_t)(end - in) < HR_SNAPPY_GAP + count || in[0] != HR_SNAPPY_LITERAL_16) return NULL;
        if ((size_t)hr_load_u16(in + 1) + 1 != count) return NULL;
        in += HR_SNAPPY_GAP;
    }
    return in == end ? first : NULL;
}

/* Whether the block is whole and gives exactly out_bytes. */
static inline int hr_snappy_decompress(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
    const uint8_t *end = in + in_bytes;
    uint8_t *to = out, *limit = out + out_bytes;
    int shift;
    in = hr_snappy_head(in, end, out_bytes);
    if (in == NULL) return 0;
    while (in < end) {
        uint8_t tag = *in++;
        size_t count = (size_t)(tag >> 2) + 1, distance = 0, extra;
        if ((tag & 3) == 0) {
            if (count > 60) {
                extra = count - 60;
                if ((size_t)(end - in) < extra) return 0;
                for (count = 0, shift = 0; extra > 0; extra--, shift += 8) count |= (size_t)*in++ << shift;
                count++;
            }
            if ((size_t)(end - in) < count || (size_t)(limit - to) < count) return 0;
            if (count <= 16 && end - in >= 16 && limit - to >= 16) {  /* most are: two moves cost less than a call */
                hr_store_u64(to, hr_load_u64(in));
                hr_store_u64(to + 8, hr_load_u64(in + 8));
            } else {
                memcpy(to, in, count);
            }
            in += count, to += count;
            continue;
        }
        extra = (tag & 3) == 3 ? 4 : tag & 3;
        if ((size_t)(end - in) < extra) return 0;
        if ((tag & 3) == 1) {
            count = (size_t)(tag >> 2 & 7) + 4;
            distance = (size_t)(tag >> 5) << 8 | in[0];
        } else {
            distance = (tag & 3) == 2 ? hr_load_u16(in) : hr_load_u32(in);
        }
        in += extra;
        if (distance == 0 || distance > (size_t)(to - out) || (size_t)(limit - to) < count) return 0;
        hr_snappy_repeat(to, limit, distance, count);
        to += count;
    }
    return to == limit;
}

#endif
