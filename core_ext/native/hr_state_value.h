/* Values, specifications and statuses of window states, and the order of values. */
#ifndef HR_STATE_VALUE_H
#define HR_STATE_VALUE_H

#include "hr_rules.h"

/* What a state keeps. One state serves every aggregate over the same input that it can answer. */
enum {
    HR_KIND_COUNT = 1,      /* events, or values of a column */
    HR_KIND_SUM = 2,        /* exact sum with its count: sum, avg, count */
    HR_KIND_MOMENTS = 3,    /* also the exact sum of squares: variance, stddev, sum, avg, count */
    HR_KIND_MIN = 4,
    HR_KIND_MAX = 5,
    HR_KIND_FIRST = 6,
    HR_KIND_LAST = 7,
    HR_KIND_DISTINCT = 8,   /* HyperLogLog registers */
    HR_KIND_QUANTILE = 9,   /* counts of logarithmic buckets; serves every quantile */
    HR_KIND_TOP = 10,       /* counts of values; serves every top_k */
    HR_KIND_LAST_N = 11,    /* parameter: how many values */
    HR_KIND_RATIO = 12,     /* two sums, each with its own column */
    HR_KIND_DECAYED = 13,   /* parameter: half life in us */
    HR_KIND_END = 14
};

/* Aggregates, numbered as in headrace/definitions/transforms.py. */
enum {
    HR_AGG_COUNT = 1, HR_AGG_SUM, HR_AGG_AVG, HR_AGG_MIN, HR_AGG_MAX, HR_AGG_FIRST, HR_AGG_LAST, HR_AGG_STDDEV,
    HR_AGG_VARIANCE, HR_AGG_DISTINCT, HR_AGG_QUANTILE, HR_AGG_TOP_K, HR_AGG_LAST_N, HR_AGG_RATIO, HR_AGG_DECAYED,
    HR_AGG_END
};

typedef enum {
    HR_STATE_OK = 0,
    HR_STATE_NO_MEMORY,
    HR_STATE_TOO_LARGE,        /* an encoding does not fit its buffer, or a bound of the kind is passed */
    HR_STATE_CORRUPT,          /* bytes that no state encodes to */
    HR_STATE_NOT_RETRACTABLE,  /* the kind cannot, the state has passed a cap, or it never took such a value */
    HR_STATE_MISUSED           /* a specification, aggregate or parameter that does not fit */
} hr_state_status;

/* Why a result is NULL although there were values; each has a counter upstream. */
enum {
    HR_LOST_NOTHING = 0,
    HR_LOST_OVERFLOW,   /* a sum of whole numbers does not fit i64 */
    HR_LOST_DIVISION,   /* a denominator is 0 */
    HR_LOST_BUCKETS,    /* more than HR_BUCKETS_MAX buckets of a quantile */
    HR_LOST_VALUES,     /* more than HR_TOP_VALUES_MAX different values of top_k, or HR_TOP_BYTES_MAX bytes of them */
    HR_LOST_CAUSES
};

enum {
    HR_BUCKETS_MAX = 4096,
    HR_TOP_VALUES_MAX = 4096,
    HR_TOP_BYTES_MAX = 1 << 16,   /* of different texts together */
    HR_ITEMS_MAX = 1000,          /* parameter of top_k and last_n, as headrace/definitions allows */
    HR_HALF_LIVES_MAX = 512,      /* of a window of decayed sums; its hop is no longer */
    HR_QUANTILE_ONE = 1000000
};

/* One state. Equal specifications over the same input columns are one state. */
typedef struct {
    uint8_t kind;        /* HR_KIND_* */
    uint8_t scalar;      /* of the input, as in headrace/types.py; 0 where COUNT counts events */
    uint8_t scalar2;     /* RATIO: of the denominator, else 0 */
    int64_t parameter;   /* LAST_N: count; DECAYED: half life in us; else 0 */
} hr_state_spec;

/* BOOL, I32, I64, TIMESTAMP_US and DATE in `i`; F32 (widened) and F64 in `f`; STRING and BYTES in `bytes`. */
typedef struct {
    union {
        int64_t i;
        double f;
        const uint8_t *bytes;
    };
    uint32_t length;     /* of bytes */
    uint8_t is_null;
} hr_value;

typedef struct {
    hr_value value;          /* of single results */
    const hr_value *items;   /* of top_k and last_n: owned by the state, until its next call */
    uint32_t item_count;
    uint8_t is_list;         /* value.is_null says whether a list is NULL */
    uint8_t lost;            /* HR_LOST_* */
} hr_result;

static inline int hr_scalar_is_float(uint8_t scalar) { return scalar == HR_F32 || scalar == HR_F64; }
static inline int hr_scalar_is_text(uint8_t scalar) { return scalar == HR_STRING || scalar == HR_BYTES; }
static inline int hr_scalar_is_whole(uint8_t scalar) { return scalar == HR_I32 || scalar == HR_I64; }
static inline int hr_scalar_is_number(uint8_t scalar)
{
    return hr_scalar_is_whole(scalar) || hr_scalar_is_float(scalar);
}

static inline hr_value hr_value_null(void) { hr_value v = {{0}, 0, 1}; return v; }
static inline hr_value hr_value_whole(int64_t i) { hr_value v = {{0}, 0, 0}; v.i = i; return v; }
static inline hr_value hr_value_float(double f) { hr_value v = {{0}, 0, 0}; v.f = f; return v; }
static inline hr_value hr_value_text(const uint8_t *bytes, uint32_t length)
{
    hr_value v = {{0}, length, 0};
    v.bytes = bytes;
    return v;
}

static inline uint64_t hr_float_bits(double f) { uint64_t bits; memcpy(&bits, &f, 8); return bits; }
static inline double hr_float_of(uint64_t bits) { double f; memcpy(&f, &bits, 8); return f; }

#define HR_NAN_BITS 0x7FF8000000000000ULL

/* Floats as integers that order them: -inf, ..., -0, +0, ..., +inf, NaN; every NaN is one. */
static inline int64_t hr_float_rank(double f)
{
    int64_t bits = (int64_t)(f == f ? hr_float_bits(f) : HR_NAN_BITS);
    return bits < 0 ? (int64_t)(~(uint64_t)bits ^ 0x8000000000000000ULL) : bits;
}

/* Total order of two values that are not null; texts by their bytes. */
static inline int hr_value_compare(uint8_t scalar, const hr_value *a, const hr_value *b)
{
    int64_t x = a->i, y = b->i;
    if (hr_scalar_is_text(scalar)) {
        uint32_t common = a->length < b->length ? a->length : b->length;
        int order = common > 0 ? memcmp(a->bytes, b->bytes, common) : 0;
        if (order != 0) return order;
        x = a->length, y = b->length;
    } else if (hr_scalar_is_float(scalar)) {
        x = hr_float_rank(a->f), y = hr_float_rank(b->f);
    }
    return x < y ? -1 : x > y;
}

#endif
