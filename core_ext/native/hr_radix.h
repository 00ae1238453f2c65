/* Pairs ordered by an unsigned key: counting sorts by up to 12 bits, which keep the order of equal keys. */
#ifndef HR_RADIX_H
#define HR_RADIX_H

#include <stdint.h>
#include <string.h>

enum { HR_RADIX_BITS = 12, HR_RADIX_BINS = 1 << HR_RADIX_BITS };

typedef struct {
    uint64_t key, value;
} hr_radix_pair;

/* Sorts in place; `room` holds as many pairs. High bits in which all keys agree cost nothing. */
static inline void hr_radix_sort(hr_radix_pair *pairs, hr_radix_pair *room, int64_t count)
{
    uint64_t differing = 0, mask, at, held, offsets[HR_RADIX_BINS];
    hr_radix_pair *from = pairs, *to = room, *swap;
    int64_t i;
    int shift, width, bits;
    for (i = 1; i < count; i++) differing |= pairs[i].key ^ pairs[0].key;
    if (differing == 0) return;
    width = 64 - __builtin_clzll(differing);
    bits = (width + HR_RADIX_BITS - 1) / HR_RADIX_BITS;
    bits = (width + bits - 1) / bits;  /* the same number of passes, as even as they can be */
    mask = (1ULL << bits) - 1;
    for (shift = 0; shift < width; shift += bits) {
        memset(offsets, 0, sizeof(offsets));
        for (i = 0; i < count; i++) offsets[from[i].key >> shift & mask]++;
        for (i = 0, at = 0; i < HR_RADIX_BINS; i++) held = offsets[i], offsets[i] = at, at += held;
        for (i = 0; i < count; i++) to[offsets[from[i].key >> shift & mask]++] = from[i];
        swap = from, from = to, to = swap;
    }
    if (from != pairs) memcpy(pairs, from, (size_t)count * sizeof(*pairs));
}

/* The same for numbers, by their bits from `low` on. */
static inline void hr_radix_sort_numbers(uint64_t *numbers, uint64_t *room, int64_t count, int low)
{
    uint64_t differing = 0, mask, at, held, offsets[HR_RADIX_BINS];
    uint64_t *from = numbers, *to = room, *swap;
    int64_t i;
    int shift, width, bits;
    for (i = 1; i < count; i++) differing |= numbers[i] ^ numbers[0];
    differing >>= low;
    if (differing == 0) return;
    width = 64 - __builtin_clzll(differing);
    bits = (width + HR_RADIX_BITS - 1) / HR_RADIX_BITS;
    bits = (width + bits - 1) / bits;
    mask = (1ULL << bits) - 1;
    for (shift = low; shift < low + width; shift += bits) {
        memset(offsets, 0, sizeof(offsets));
        for (i = 0; i < count; i++) offsets[from[i] >> shift & mask]++;
        for (i = 0, at = 0; i < HR_RADIX_BINS; i++) held = offsets[i], offsets[i] = at, at += held;
        for (i = 0; i < count; i++) to[offsets[from[i] >> shift & mask]++] = from[i];
        swap = from, from = to, to = swap;
    }
    if (from != numbers) memcpy(numbers, from, (size_t)count * sizeof(*numbers));
}

#endif
