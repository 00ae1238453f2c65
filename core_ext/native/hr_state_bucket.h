/* Counts of logarithmic buckets, 32 an octave, for quantiles. */
#ifndef HR_STATE_BUCKET_H
#define HR_STATE_BUCKET_H

#include <stdlib.h>

#include "hr_state_bytes.h"

/* The key of a positive float is its exponent and the highest 5 bits of its fraction, that of a negative one is less
 * than 0; 0 is 0, as is all below 2^-1022. NaN has the greatest key. Keys are ordered as the values. */
enum { HR_KEY_BITS = 5, HR_KEY_SHIFT = 52 - HR_KEY_BITS, HR_KEY_NAN = (0x7FF << HR_KEY_BITS) + 1 };

typedef struct {
    int32_t key;
    int64_t count;
} hr_bucket;

typedef struct {
    hr_bucket *list, *spare;  /* by key, ascending */
    uint32_t count, capacity;
    int64_t total;
    uint8_t is_over;          /* the cap was passed; nothing else is known then */
} hr_buckets;

static inline void hr_buckets_reset(hr_buckets *buckets)
{
    buckets->count = 0, buckets->total = 0, buckets->is_over = 0;
}

static inline void hr_buckets_exceed(hr_buckets *buckets)
{
    buckets->count = 0, buckets->total = 0, buckets->is_over = 1;
}

static inline int32_t hr_bucket_key(double value)
{
    uint64_t bits = hr_float_bits(value);
    int32_t key = (int32_t)(bits >> HR_KEY_SHIFT & 0xFFFF);
    if (value != value) return HR_KEY_NAN;
    if (key < 1 << HR_KEY_BITS) return 0;
    return bits >> 63 ? -key : key;
}

/* The middle of a bucket: half its width, at most 1/64 of the value, away from all that it holds. */
static inline double hr_bucket_value(int32_t key)
{
    uint64_t size = (uint64_t)(key < 0 ? -key : key), bits = size << HR_KEY_SHIFT;
    if (key == HR_KEY_NAN) return hr_float_of(HR_NAN_BITS);
    if (key == 0) return 0;
    if (size < HR_KEY_NAN - 1) bits |= UINT64_C(1) << (HR_KEY_SHIFT - 1);
    return hr_float_of(bits | (uint64_t)(key < 0) << 63);
}

static inline int hr_buckets_room(hr_buckets *buckets, uint32_t count)
{
    uint32_t capacity = buckets->capacity == 0 ? 16 : buckets->capacity;
    hr_bucket *list;
    while (capacity < count) capacity *= 2;
    if (capacity == buckets->capacity) return HR_STATE_OK;
    list = realloc(buckets->list, capacity * sizeof(*list));
    if (list == NULL) return HR_STATE_NO_MEMORY;
    buckets->list = list;
    list = realloc(buckets->spare, capacity * sizeof(*list));
    if (list == NULL) return HR_STATE_NO_MEMORY;
    buckets->spare = list;
    buckets->capacity = capacity;
    return HR_STATE_OK;
}

/* Place of a key, or where it would go. */
static inline uint32_t hr_buckets_find(const hr_buckets *buckets, int32_t key)
{
    uint32_t low = 0, high = buckets->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (buckets->list[middle].key < key) low = middle + 1;
        else high = middle;
    }
    return low;
}

static inline int hr_buckets_add(hr_buckets *buckets, int32_t key, int64_t count)
{
    uint32_t at = hr_buckets_find(buckets, key);
    if (buckets->is_over) return HR_STATE_OK;
    if (count > INT64_MAX - buckets->total) return HR_STATE_TOO_LARGE;
    if (at == buckets->count || buckets->list[at].key != key) {
        if (buckets->count == HR_BUCKETS_MAX) {
            hr_buckets_exceed(buckets);
            return HR_STATE_OK;
        }
        if (hr_buckets_room(buckets, buckets->count + 1) != HR_STATE_OK) return HR_STATE_NO_MEMORY;
        memmove(buckets->list + at + 1, buckets->list + at, (buckets->count - at) * sizeof(hr_bucket));
        buckets->list[at] = (hr_bucket){key, 0};
        buckets->count++;
    }
    buckets->list[at].count += count;
    buckets->total += count;
    return HR_STATE_OK;
}

static inline int hr_buckets_retract(hr_buckets *buckets, int32_t key)
{
    uint32_t at = hr_buckets_find(buckets, key);
    if (buckets->is_over || at == buckets->count || buckets->list[at].key != key) return HR_STATE_NOT_RETRACTABLE;
    buckets->total--;
    if (--buckets->list[at].count == 0) {
        buckets->count--;
        memmove(buckets->list + at, buckets->list + at + 1, (buckets->count - at) * sizeof(hr_bucket));
    }
    return HR_STATE_OK;
}

/* ---- encoding: 0 where the cap was passed, else the number of buckets, and per bucket its key (the first signed, the
 * others as the distance less 1) and its count ---- */

static inline void hr_buckets_encode(const hr_buckets *buckets, hr_sink *sink)
{
    uint32_t i;
    hr_put_number(sink, buckets->count);
    for (i = 0; i < buckets->count; i++) {
        if (i == 0) hr_put_signed(sink, buckets->list[0].key);
        else hr_put_number(sink, (uint64_t)(buckets->list[i].key - buckets->list[i - 1].key - 1));
        hr_put_number(sink, (uint64_t)buckets->list[i].count);
    }
}

static inline hr_bucket hr_bucket_take(hr_state_source *source, int is_first, int32_t last)
{
    hr_bucket found;
    uint64_t distance = 0;
    int64_t key;
    if (is_first) {
        key = hr_take_signed(source);
    } else {
        distance = hr_take_number(source);
        if (distance > 4 * HR_KEY_NAN) source->is_bad = 1, distance = 0;
        key = last + 1 + (int64_t)distance;
    }
    found.count = hr_take_count(source);
    if (key > HR_KEY_NAN || key <= -HR_KEY_NAN || (key != 0 && key < 1 << HR_KEY_BITS && key > -(1 << HR_KEY_BITS)) ||
        found.count == 0)
        source->is_bad = 1, key = 0;
    found.key = (int32_t)key;
    return found;
}

/* Walks the bytes; adds to or takes from the counts of `buckets`, which is NULL for a check. */
static inline int hr_buckets_merge_bytes(hr_buckets *buckets, const uint8_t *bytes, size_t length, int back)
{
    hr_state_source source = {bytes, bytes + length, 0};
    uint64_t count = hr_take_number(&source);
    int64_t total = 0;
    uint32_t i, k = 0, made = 0;
    hr_bucket next = {0, 0}, *list = buckets == NULL ? NULL : buckets->list;
    if (source.is_bad || count > HR_BUCKETS_MAX) return HR_STATE_CORRUPT;
    if (count == 0) {
        if (source.at != source.end) return HR_STATE_CORRUPT;
        if (back) return HR_STATE_NOT_RETRACTABLE;
        if (buckets != NULL) hr_buckets_exceed(buckets);
        return HR_STATE_OK;
    }
    if (buckets != NULL && hr_buckets_room(buckets, buckets->count + (uint32_t)count) != HR_STATE_OK)
        return HR_STATE_NO_MEMORY;
    list = buckets == NULL ? NULL : buckets->list;
    for (i = 0; i < count; i++) {
        next = hr_bucket_take(&source, i == 0, next.key);
        if (source.is_bad || next.count > INT64_MAX - total) return HR_STATE_CORRUPT;
        total += next.count;
        if (buckets == NULL) continue;
        while (k < buckets->count && list[k].key < next.key) buckets->spare[made++] = list[k++];
        if (k < buckets->count && list[k].key == next.key) {
            if (back ? list[k].count < next.count : next.count > INT64_MAX - list[k].count)
                return back ? HR_STATE_NOT_RETRACTABLE : HR_STATE_TOO_LARGE;
            buckets->spare[made] = (hr_bucket){next.key, list[k].count + (back ? -next.count : next.count)};
            made += buckets->spare[made].count > 0;
            k++;
        } else if (back) {
            return HR_STATE_NOT_RETRACTABLE;
        } else {
            buckets->spare[made++] = next;
        }
    }
    if (source.at != source.end) return HR_STATE_CORRUPT;
    if (buckets == NULL) return HR_STATE_OK;
    if (buckets->is_over) return back ? HR_STATE_NOT_RETRACTABLE : HR_STATE_OK;
    if (!back && total > INT64_MAX - buckets->total) return HR_STATE_TOO_LARGE;
    while (k < buckets->count) buckets->spare[made++] = list[k++];
    buckets->list = buckets->spare, buckets->spare = list;
    buckets->count = made;
    buckets->total += back ? -total : total;
    if (made > HR_BUCKETS_MAX) hr_buckets_exceed(buckets);
    return HR_STATE_OK;
}

/* The least value with `millionths` of the values at or below it. */
static inline double hr_buckets_quantile(const hr_buckets *buckets, int64_t millionths)
{
    hr_u128 wanted = ((hr_u128)buckets->total * (uint64_t)millionths + HR_QUANTILE_ONE - 1) / HR_QUANTILE_ONE;
    hr_u128 seen = 0;
    uint32_t i;
    for (i = 0; i + 1 < buckets->count; i++) {
        seen += (uint64_t)buckets->list[i].count;
        if (seen >= wanted) break;
    }
    return hr_bucket_value(buckets->list[i].key);
}

#endif
