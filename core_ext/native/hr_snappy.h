/* Snappy blocks, decompressed by their description; every read and copy is checked against its end first. */
#ifndef HR_SNAPPY_H
#define HR_SNAPPY_H

#include <stddef.h>

#include "hr_layout.h"

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

/* Whether the block is whole and gives exactly out_bytes. */
static inline int hr_snappy_decompress(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
    const uint8_t *end = in + in_bytes;
    uint8_t *to = out, *limit = out + out_bytes;
    uint64_t length = 0;
    int shift = 0, is_last = 0;
    while (!is_last) {  /* the varint of the length */
        if (in == end || shift > 28) return 0;
        is_last = *in < 0x80;
        length |= (uint64_t)(*in++ & 0x7F) << shift;
        shift += 7;
    }
    if (length != out_bytes) return 0;
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
