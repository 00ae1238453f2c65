/* Exact sums of floats of any size: whole numbers of units, in lanes of 32 bits with late carries. */
#ifndef HR_STATE_EXACT_H
#define HR_STATE_EXACT_H

#include <stdlib.h>

#include "hr_state_bytes.h"

/* Lane i counts 2^(32 (base + i)) units. A lane may hold more than 32 bits and either sign until the next carry. */
typedef struct {
    int64_t *lanes;
    uint32_t capacity;
    uint32_t low, high;  /* lanes outside [low, high) are 0; without lanes low is the capacity and high is 0 */
    uint32_t pending;    /* additions since the last carry */
    int64_t base;
} hr_exact;

enum {
    HR_EXACT_PENDING_MAX = 1 << 29,  /* a lane then holds less than 2^62 */
    HR_EXACT_LANES_MAX = 176         /* of any kind */
};

/* Where the units and lanes of a kind lie. */
typedef struct {
    uint32_t lanes;    /* capacity */
    uint32_t slides;   /* lanes move to where the values are */
    int64_t unit;      /* one unit is 2^unit */
    int64_t origin;    /* byte number that encodings count from: about where plain values lie */
    int64_t bits_max;  /* of one value, in units */
} hr_exact_kind;

static const hr_exact_kind HR_EXACT_SUM = {68, 0, -1074, 128, 2098};
static const hr_exact_kind HR_EXACT_SQUARES = {134, 0, -2148, 256, 4196};
static const hr_exact_kind HR_EXACT_WHOLE_SQUARES = {8, 0, 0, 0, 127};
/* The exponents and bits of floats (2,151), part of a byte, and the half lives of a window and of its hop. */
static const hr_exact_kind HR_EXACT_DECAYED = {HR_EXACT_LANES_MAX, 1, 0, 0, 2160 + 2 * HR_HALF_LIVES_MAX};

/* Whether a number of so many bits, from unit 0 on unless the kind slides, can be a sum of `value_count` values. */
static inline int hr_exact_fits(const hr_exact_kind *kind, int64_t bits, int64_t value_count)
{
    return value_count > 0 && bits <= kind->bits_max + hr_bit_length((hr_u128)value_count);
}

static inline int hr_exact_init(hr_exact *x, const hr_exact_kind *kind)
{
    x->lanes = calloc(kind->lanes, sizeof(*x->lanes));
    x->capacity = kind->lanes;
    x->low = kind->lanes, x->high = 0, x->pending = 0, x->base = 0;
    return x->lanes == NULL ? HR_STATE_NO_MEMORY : HR_STATE_OK;
}

static inline void hr_exact_reset(hr_exact *x)
{
    if (x->low < x->high) memset(x->lanes + x->low, 0, (x->high - x->low) * sizeof(*x->lanes));
    x->low = x->capacity, x->high = 0, x->pending = 0;
}

/* Moves the lanes so that [lane, lane + count) lies within them. Only sliding kinds ever need it. */
static inline int hr_exact_slide(hr_exact *x, int64_t lane, uint32_t count)
{
    int64_t first = lane, end = lane + count, base;
    uint32_t used = x->low < x->high ? x->high - x->low : 0, low;
    if (used > 0) {
        if (x->base + x->low < first) first = x->base + x->low;
        if (x->base + x->high > end) end = x->base + x->high;
    }
    if ((uint64_t)(end - first) > x->capacity) return HR_STATE_TOO_LARGE;
    base = first - (x->capacity - (end - first)) / 2;
    if (used > 0) {
        low = (uint32_t)(x->base + x->low - base);
        memmove(x->lanes + low, x->lanes + x->low, used * sizeof(*x->lanes));
        if (low > x->low) memset(x->lanes + x->low, 0, (low - x->low < used ? low - x->low : used) * sizeof(*x->lanes));
        if (low < x->low) {
            uint32_t from = low + used > x->low ? low + used : x->low;
            memset(x->lanes + from, 0, (x->low + used - from) * sizeof(*x->lanes));
        }
        x->low = low, x->high = low + used;
    }
    x->base = base;
    return HR_STATE_OK;
}

/* Leaves 32 bits a lane; the highest alone is signed. */
static inline int hr_exact_carry(hr_exact *x)
{
    int64_t carry = 0, v;
    uint32_t i;
    int status;
    x->pending = 0;
    if (x->low >= x->high) return HR_STATE_OK;
    for (i = x->low; i + 1 < x->high; i++) {
        v = x->lanes[i] + carry;
        carry = v >> 32;
        x->lanes[i] = v & 0xFFFFFFFF;
    }
    v = x->lanes[i] + carry;
    while (v != (int32_t)v) {
        if (x->high >= x->capacity) {
            status = hr_exact_slide(x, x->base + x->high, 1);
            if (status != HR_STATE_OK) return status;
        }
        x->lanes[x->high - 1] = v & 0xFFFFFFFF;
        v >>= 32;
        x->high++;
    }
    x->lanes[x->high - 1] = v;
    while (x->high > x->low && x->lanes[x->high - 1] == 0) x->high--;
    while (x->low < x->high && x->lanes[x->low] == 0) x->low++;
    if (x->low >= x->high) x->low = x->capacity, x->high = 0;
    return HR_STATE_OK;
}

/* Adds m 2^bit units, or takes them away. */
static inline int hr_exact_add(hr_exact *x, uint64_t m, int64_t bit, int negative)
{
    int64_t lane = bit >> 5, sign = -(int64_t)negative;
    hr_u128 wide = (hr_u128)m << (bit & 31);
    uint64_t at = (uint64_t)(lane - x->base);
    int64_t *to;
    if (__builtin_expect(at > (uint64_t)x->capacity - 3, 0)) {
        int status = hr_exact_slide(x, lane, 3);
        if (status != HR_STATE_OK) return status;
        at = (uint64_t)(lane - x->base);
    }
    if (at < x->low) x->low = (uint32_t)at;
    if (at + 3 > x->high) x->high = (uint32_t)at + 3;
    to = x->lanes + at;
    to[0] += (((int64_t)wide & 0xFFFFFFFF) ^ sign) - sign;
    to[1] += ((int64_t)((uint64_t)wide >> 32) ^ sign) - sign;
    to[2] += ((int64_t)(wide >> 64) ^ sign) - sign;
    if (__builtin_expect(++x->pending >= HR_EXACT_PENDING_MAX, 0)) return hr_exact_carry(x);
    return HR_STATE_OK;
}

/* Adds every lane of another of the same kind. */
static inline int hr_exact_merge(hr_exact *x, hr_exact *other)
{
    uint32_t i;
    int status = hr_exact_carry(other);
    for (i = other->low; i < other->high && status == HR_STATE_OK; i++) {
        int64_t v = other->lanes[i];
        if (v != 0) status = hr_exact_add(x, (uint64_t)(v < 0 ? -v : v), 32 * (other->base + i), v < 0);
    }
    return status;
}

/* Size and sign of a number: words[0] has the weight of lane `lane`; the outer words are not 0. */
static inline int hr_exact_words(hr_exact *x, uint32_t *words, uint32_t *count, int64_t *lane, int *negative)
{
    int64_t carry = 0, v;
    uint32_t i;
    int status = hr_exact_carry(x);
    *count = 0, *lane = 0, *negative = 0;
    if (status != HR_STATE_OK || x->low >= x->high) return status;
    *negative = x->lanes[x->high - 1] < 0;
    *count = x->high - x->low;
    *lane = x->base + x->low;
    for (i = 0; i < *count; i++) {
        v = (*negative ? -x->lanes[x->low + i] : x->lanes[x->low + i]) + carry;
        words[i] = (uint32_t)v;
        carry = v >> 32;
    }
    while (*count > 0 && words[*count - 1] == 0) --*count;
    return HR_STATE_OK;
}

/* ---- encoding: the bytes of the size without zeros at either end, low ones first ----
 * head = byte count << 2 | flag << 1 | is negative; where there are bytes: their lowest byte number, less the origin of
 * the kind, as a signed number, and the bytes. The flag is the caller's. */

static inline int hr_exact_encode(
    hr_exact *x, const hr_exact_kind *kind, hr_sink *sink, int flag, int64_t value_count)
{
    uint32_t words[HR_EXACT_LANES_MAX], count;
    int64_t lane, bits;
    int negative, status = hr_exact_words(x, words, &count, &lane, &negative);
    size_t skipped, bytes;
    if (status != HR_STATE_OK) return status;
    if (count == 0) {
        hr_put_byte(sink, (uint8_t)(flag << 1));
        return HR_STATE_OK;
    }
    skipped = (size_t)__builtin_ctz(words[0]) / 8;
    bytes = 4 * (size_t)count - (size_t)__builtin_clz(words[count - 1]) / 8 - skipped;
    bits = 32 * (int64_t)count - __builtin_clz(words[count - 1]) - 8 * (int64_t)skipped;
    if (!kind->slides) bits += 8 * (4 * lane + (int64_t)skipped);
    if (!hr_exact_fits(kind, bits, value_count)) return HR_STATE_TOO_LARGE;
    hr_put_number(sink, (uint64_t)bytes << 2 | (uint64_t)flag << 1 | (uint64_t)negative);
    hr_put_signed(sink, 4 * lane + (int64_t)skipped - kind->origin);
    hr_put(sink, (const uint8_t *)words + skipped, bytes);
    return HR_STATE_OK;
}

/* An encoded number as it was read. */
typedef struct {
    const uint8_t *bytes;
    size_t count;
    int64_t first;  /* byte number of bytes[0] */
    int negative;
} hr_exact_bytes;

static inline hr_exact_bytes hr_exact_take(
    hr_source *source, const hr_exact_kind *kind, uint64_t head, int64_t value_count)
{
    hr_exact_bytes found = {NULL, 0, 0, (int)(head & 1)};
    uint64_t count = head >> 2;
    int64_t bits;
    if (count == 0) {
        if (found.negative) source->is_bad = 1;
        return found;
    }
    found.first = hr_take_signed(source);
    if (found.first < -(INT64_C(1) << 58) || found.first > INT64_C(1) << 58 || count > 4 * HR_EXACT_LANES_MAX) {
        source->is_bad = 1;
        return found;
    }
    found.first += kind->origin;
    found.bytes = hr_take(source, (size_t)count);
    if (found.bytes == NULL) return found;
    found.count = (size_t)count;
    bits = 8 * (int64_t)count - __builtin_clz((uint32_t)found.bytes[count - 1] << 24 | 1);
    if (!kind->slides) bits += 8 * found.first;
    if (found.bytes[0] == 0 || found.bytes[count - 1] == 0 || !hr_exact_fits(kind, bits, value_count) ||
        (!kind->slides && found.first < 0))
        source->is_bad = 1;
    return found;
}

static inline int hr_exact_merge_bytes(hr_exact *x, const hr_exact_bytes *found, int negative)
{
    size_t i;
    int status = HR_STATE_OK;
    for (i = 0; i < found->count && status == HR_STATE_OK; i += 8) {
        uint64_t part = 0;
        memcpy(&part, found->bytes + i, found->count - i < 8 ? found->count - i : 8);
        status = hr_exact_add(x, part, 8 * (found->first + (int64_t)i), found->negative ^ negative);
    }
    return status;
}

#endif
