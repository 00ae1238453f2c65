/* Pages of Parquet column chunks as they are written: small numbers in runs, and values without the null ones. */
#ifndef HR_PAGE_ENCODE_H
#define HR_PAGE_ENCODE_H

#include <stddef.h>

#include "hr_layout.h"

enum {
    HR_RUN_MIN = 8,          /* equal numbers that are written once; fewer are packed */
    HR_RUN_GROUPS_MAX = 63,  /* groups of eight in a packed run, whose head is then one byte */
    HR_RUN_BITS_MAX = 8
};

/* Bytes that hr_runs_write may touch: of eight numbers, a head of at most ten bytes and eight at once behind it. */
static inline size_t hr_runs_room(int64_t count) { return ((size_t)count / HR_RUN_MIN + 2) * 20; }

/* Equal numbers from the first on. */
static inline int64_t hr_run_length(const uint8_t *numbers, int64_t count)
{
    uint64_t same = numbers[0] * 0x0101010101010101ULL;
    int64_t i = 0;
    while (count - i >= 8 && hr_load_u64(numbers + i) == same) i += 8;
    while (i < count && numbers[i] == numbers[0]) i++;
    return i;
}

static inline uint8_t *hr_run_head(uint8_t *to, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) *to++ = (uint8_t)(value | 0x80);
    *to++ = (uint8_t)value;
    return to;
}

/* Writes numbers of `bits` bits, at most HR_RUN_BITS_MAX, as repeated and packed runs; returns their bytes. */
static inline size_t hr_runs_write(const uint8_t *numbers, int64_t count, uint32_t bits, uint8_t *to)
{
    uint8_t *at = to, *head = NULL;  /* of the packed run under way */
    int64_t i = 0, k, run;
    uint32_t groups = 0;
    while (i < count) {
        uint64_t word = 0;
        run = hr_run_length(numbers + i, count - i);
        if (run >= HR_RUN_MIN) {
            at = hr_run_head(at, (uint64_t)run << 1);
            *at++ = numbers[i];
            head = NULL;
            i += run;
            continue;
        }
        if (head == NULL || groups == HR_RUN_GROUPS_MAX) head = at++, groups = 0;
        for (k = 0; k < 8 && i + k < count; k++) word |= (uint64_t)numbers[i + k] << k * bits;
        hr_store_u64(at, word);
        at += bits;
        *head = (uint8_t)(++groups << 1 | 1);
        i += 8;
    }
    return (size_t)(at - to);
}

/* A byte for every row of a validity bitmap from `offset` on: 1, or 0 for null. */
static inline void hr_levels_unpack(const uint8_t *validity, int64_t offset, int64_t count, uint8_t *levels)
{
    int64_t i;
    for (i = 0; i < count; i++) levels[i] = validity[(offset + i) >> 3] >> ((offset + i) & 7) & 1;
}

/* Copies the values whose level is 1 and returns their number; `width` is a constant wherever this is called. */
static inline int64_t hr_values_present(
    const uint8_t *values, const uint8_t *levels, int64_t count, uint32_t width, uint8_t *to)
{
    int64_t i, done = 0;
    for (i = 0; i < count; i++) {  /* a null one is copied as well, and then written over */
        memcpy(to + (size_t)done * width, values + (size_t)i * width, width);
        done += levels[i];
    }
    return done;
}

/* Numbers the different bytes in ascending order; numbers[i] is that of values[i]. Returns how many there are. */
static inline int hr_bytes_number(const uint8_t *values, int64_t count, uint8_t *dictionary, uint8_t *numbers)
{
    uint8_t number_of[256] = {0};
    int64_t i, run;
    int value, different = 0;
    for (i = 0; i < count; i += run) number_of[values[i]] = 1, run = hr_run_length(values + i, count - i);
    for (value = 0; value < 256; value++) {
        if (!number_of[value]) continue;
        dictionary[different] = (uint8_t)value;
        number_of[value] = (uint8_t)different++;
    }
    for (i = 0; i < count; i++) numbers[i] = number_of[values[i]];
    return different;
}

#endif
