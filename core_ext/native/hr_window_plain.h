/* Sums and extremes of any range of a group's events without moving over them: from the sums up to each event, and from
 * the least and greatest of every 2^k events in a row. Results have the bits that the states of hr_state.h give. */
#ifndef HR_WINDOW_PLAIN_H
#define HR_WINDOW_PLAIN_H

#include "hr_window_result.h"
#include "hr_window_sort.h"

enum {
    HR_PLAIN_TABLE_MAX = 1 << 17,   /* numbers of one table: 1 MiB, which stays in the cache of a core */
    HR_PLAIN_LEVELS_MAX = 32,
    HR_PLAIN_LOW_MIN = 128,         /* no sum, nor a share of one, comes near the floats that have fewer bits */
    HR_PLAIN_NARROW_BITS = 53,      /* whole numbers up to 2^53 are floats, and their quotient is rounded once */
    HR_PLAIN_WIDE_BITS = 126
};

/* How the sums up to each event are kept: as floats where every one of them is exact, else as whole numbers of
 * 2^exponent; not at all where a value is no finite number or the values lie too far apart. */
typedef enum { HR_PLAIN_UNKNOWN = 0, HR_PLAIN_NARROW, HR_PLAIN_WIDE, HR_PLAIN_UNFIT } hr_plain_sums;

/* The least, or greatest, of 2^k values from event i on at [k * count + i]. */
typedef struct {
    int64_t *at;
    size_t capacity;
    uint32_t level_count;
} hr_plain_table;

/* One input of the group at hand. */
typedef struct {
    union {
        double *floats;
        int64_t *wholes;
    };                      /* by event; 0 for NULL */
    union {
        double *sums;
        __int128 *wides;
    };                      /* of the values before event i */
    hr_u128 *squares;       /* of the same, in whole numbers of 4^exponent; unset until a variance asks for them */
    uint32_t *counts;       /* of the values before event i; unset where there is no NULL */
    size_t capacity, square_capacity;
    hr_plain_table least, greatest;
    int64_t exponent;       /* every value is a whole number of 2^exponent, of up to `bits` bits */
    int64_t bits;
    hr_plain_sums kind;
    uint8_t is_gathered, has_nulls, has_squares;
} hr_plain_column;

static inline void hr_plain_free(hr_plain_column *column)
{
    free(column->wholes);
    free(column->wides);
    free(column->squares);
    free(column->counts);
    free(column->least.at);
    free(column->greatest.at);
    memset(column, 0, sizeof(*column));
}

/* Forgets the values of the group before. */
static inline void hr_plain_reset(hr_plain_column *column)
{
    column->is_gathered = column->has_squares = 0, column->kind = HR_PLAIN_UNKNOWN;
    column->least.level_count = column->greatest.level_count = 0;
}

static inline int hr_plain_room(hr_plain_column *column, uint32_t count)
{
    size_t room = (size_t)count + count / 2 + 1;
    if (count < column->capacity) return HR_WINDOW_OK;
    free(column->wholes);
    free(column->wides);
    free(column->counts);
    column->wholes = malloc(room * sizeof(int64_t));
    column->wides = malloc(room * sizeof(__int128));
    column->counts = malloc(room * sizeof(uint32_t));
    column->capacity = column->wholes != NULL && column->wides != NULL && column->counts != NULL ? room : 0;
    return column->capacity > 0 ? HR_WINDOW_OK : HR_WINDOW_NO_MEMORY;
}

/* ---- values ---- */

/* Texts are counted alone. */
static inline void hr_plain_read(
    hr_plain_column *column, const hr_arrow *array, uint8_t scalar, const uint32_t *rows, uint32_t count)
{
    const uint8_t *values = array->values;
    int64_t first = array->offset;
    uint32_t i;
    float single;
    switch (scalar) {
    case HR_STRING: case HR_BYTES: return;
    case HR_BOOL:
        for (i = 0; i < count; i++) column->wholes[i] = hr_bit(values, first + rows[i]);
        return;
    case HR_I32: case HR_DATE:
        for (i = 0; i < count; i++) column->wholes[i] = hr_load_i32(values + 4 * (first + rows[i]));
        return;
    case HR_F32:
        for (i = 0; i < count; i++) {
            memcpy(&single, values + 4 * (first + rows[i]), 4);
            column->floats[i] = single;
        }
        return;
    default:  /* the bits of an F64 as well */
        for (i = 0; i < count; i++) column->wholes[i] = hr_load_i64(values + 8 * (first + rows[i]));
    }
}

/* The values of the events of the group, which are `rows` of the array. */
static inline int hr_plain_gather(
    hr_plain_column *column, const hr_arrow *array, uint8_t scalar, const uint32_t *rows, uint32_t count)
{
    uint32_t i;
    int status;
    if (column->is_gathered) return HR_WINDOW_OK;
    status = hr_plain_room(column, count);
    if (status != HR_WINDOW_OK) return status;
    hr_plain_read(column, array, scalar, rows, count);
    column->is_gathered = 1, column->has_nulls = 0;
    if (array->validity == NULL) return HR_WINDOW_OK;
    column->counts[0] = 0;
    for (i = 0; i < count; i++) {
        int is_null = hr_arrow_is_null(array, rows[i]);
        column->counts[i + 1] = column->counts[i] + !is_null;
        if (is_null) column->wholes[i] = 0;
    }
    column->has_nulls = column->counts[count] < count;
    return HR_WINDOW_OK;
}

/* ---- sums ---- */

static inline void hr_plain_add_floats(hr_plain_column *column, uint32_t count)
{
    uint32_t i;
    column->kind = HR_PLAIN_NARROW;
    column->sums[0] = 0;
    for (i = 0; i < count; i++) column->sums[i + 1] = column->sums[i] + column->floats[i];
}

/* Bits from the lowest that is set in any value up to the highest, in units of 2^-1074; 0 where one is not finite. */
static inline int hr_plain_reach(const double *floats, uint32_t count, int64_t *low, int64_t *high)
{
    uint32_t i;
    *low = INT64_MAX, *high = 0;
    for (i = 0; i < count; i++) {
        uint64_t bits = hr_float_bits(floats[i]), m;
        int64_t bit, first, end;
        if ((bits >> 52 & 0x7FF) == 0x7FF) return 0;
        m = hr_float_parts(bits, &bit);
        if (m == 0) continue;
        first = bit + __builtin_ctzll(m), end = bit + 64 - __builtin_clzll(m);
        *low = first < *low ? first : *low;
        *high = end > *high ? end : *high;
    }
    return 1;
}

/* A float that is a whole number of 2^exponent as that number. */
static inline __int128 hr_plain_whole(double value, int64_t exponent)
{
    int64_t bit;
    uint64_t bits = hr_float_bits(value), m = hr_float_parts(bits, &bit);
    hr_u128 size = m;
    bit -= exponent - HR_EXACT_SUM.unit;
    if (m != 0) size = bit >= 0 ? size << bit : size >> -bit;
    return bits >> 63 ? -(__int128)size : (__int128)size;
}

static inline void hr_plain_sum_floats(hr_plain_column *column, uint32_t count)
{
    int64_t low, high, more = hr_bit_length(count);
    uint32_t i;
    column->kind = HR_PLAIN_UNFIT;
    if (!hr_plain_reach(column->floats, count, &low, &high)) return;
    if (high == 0) low = high = HR_PLAIN_LOW_MIN;  /* zeros alone */
    column->exponent = low + HR_EXACT_SUM.unit, column->bits = high - low;
    if (low >= HR_PLAIN_LOW_MIN && high - low + more <= HR_PLAIN_NARROW_BITS && high + more <= HR_EXACT_SUM.bits_max) {
        hr_plain_add_floats(column, count);
        return;
    }
    if (high - low + more > HR_PLAIN_WIDE_BITS) return;
    column->kind = HR_PLAIN_WIDE;
    column->wides[0] = 0;
    for (i = 0; i < count; i++)
        column->wides[i + 1] = column->wides[i] + hr_plain_whole(column->floats[i], column->exponent);
}

static inline void hr_plain_sum_wholes(hr_plain_column *column, uint32_t count)
{
    uint64_t sizes = 0;
    uint32_t i;
    for (i = 0; i < count; i++) sizes |= (uint64_t)(column->wholes[i] ^ column->wholes[i] >> 63);
    column->exponent = 0, column->bits = hr_bit_length(sizes);
    if (hr_bit_length(sizes) + hr_bit_length(count) <= HR_PLAIN_NARROW_BITS) {
        column->kind = HR_PLAIN_NARROW;
        column->sums[0] = 0;
        for (i = 0; i < count; i++) column->sums[i + 1] = column->sums[i] + (double)column->wholes[i];
        return;
    }
    column->kind = HR_PLAIN_WIDE;
    column->wides[0] = 0;
    for (i = 0; i < count; i++) column->wides[i + 1] = column->wides[i] + column->wholes[i];
}

/* After hr_plain_gather. */
static inline hr_plain_sums hr_plain_sum(hr_plain_column *column, uint8_t scalar, uint32_t count)
{
    if (column->kind == HR_PLAIN_UNKNOWN && hr_scalar_is_float(scalar)) hr_plain_sum_floats(column, count);
    else if (column->kind == HR_PLAIN_UNKNOWN) hr_plain_sum_wholes(column, count);
    return column->kind;
}

/* The sum of the events [low, end), rounded once. */
static inline double hr_plain_total(const hr_plain_column *column, uint32_t low, uint32_t end)
{
    if (column->kind == HR_PLAIN_NARROW) return column->sums[end] - column->sums[low];
    return hr_near_divided(column->wides[end] - column->wides[low], column->exponent, 1);
}

/* Adds up the squares; 0 where a variance needs more bits than there are. After hr_plain_sum. */
static inline int hr_plain_square(hr_plain_column *column, uint8_t scalar, uint32_t count)
{
    uint32_t i;
    int is_float = hr_scalar_is_float(scalar);
    if (column->kind == HR_PLAIN_UNFIT) return 0;
    if (2 * (column->bits + hr_bit_length(count)) > HR_PLAIN_WIDE_BITS) return 0;
    if (column->has_squares) return 1;
    if (count >= column->square_capacity) {
        size_t capacity = (size_t)count + count / 2 + 1;
        free(column->squares);
        column->squares = malloc(capacity * sizeof(*column->squares));
        column->square_capacity = column->squares != NULL ? capacity : 0;
        if (column->squares == NULL) return 0;
    }
    column->has_squares = 1;
    column->squares[0] = 0;
    for (i = 0; i < count; i++) {
        __int128 whole = is_float ? hr_plain_whole(column->floats[i], column->exponent) : column->wholes[i];
        column->squares[i + 1] = column->squares[i] + (hr_u128)(whole * whole);
    }
    return 1;
}

/* The sample variance of the `present` values, 2 or more, among the events [low, end), rounded once. */
static inline double hr_plain_variance(
    const hr_plain_column *column, uint8_t scalar, uint32_t low, uint32_t end, uint32_t present)
{
    int is_float = hr_scalar_is_float(scalar);
    __int128 sum = column->kind == HR_PLAIN_WIDE ? column->wides[end] - column->wides[low] : 0, above;
    if (column->kind == HR_PLAIN_NARROW)
        sum = is_float ? hr_plain_whole(column->sums[end] - column->sums[low], column->exponent)
                       : (int64_t)(column->sums[end] - column->sums[low]);
    above = (__int128)((column->squares[end] - column->squares[low]) * present) - sum * sum;
    return hr_near_divided(above, 2 * column->exponent, (uint64_t)present * (present - 1));
}

/* ---- extremes ---- */

static inline int64_t hr_plain_better(int64_t a, int64_t b, int is_least) { return (a < b) == is_least ? a : b; }

static inline void hr_plain_level(
    int64_t *restrict to, const int64_t *restrict from, uint32_t count, uint32_t half, int is_least)
{
    uint32_t i, end = count - 2 * half + 1;
    for (i = 0; i < end; i++) to[i] = hr_plain_better(from[i], from[i + half], is_least);
}

/* Values as whole numbers that order them; NULL as one that is never better. */
static inline void hr_plain_ranks(
    const hr_plain_column *column, uint8_t scalar, uint32_t count, int64_t *restrict to, int64_t null_rank)
{
    uint32_t i;
    if (hr_scalar_is_float(scalar)) for (i = 0; i < count; i++) to[i] = hr_float_rank(column->floats[i]);
    else memcpy(to, column->wholes, count * sizeof(*to));
    if (!column->has_nulls) return;
    for (i = 0; i < count; i++) to[i] = column->counts[i] == column->counts[i + 1] ? null_rank : to[i];
}

/* The table with levels for ranges of up to `longest` of the `count` events; NULL where it would be too large. After
 * hr_plain_gather. */
static inline const int64_t *hr_plain_extremes(
    hr_plain_column *column, uint8_t scalar, uint32_t count, uint32_t longest, int is_least)
{
    hr_plain_table *table = is_least ? &column->least : &column->greatest;
    uint32_t levels = longest < 2 ? 1 : 32 - (uint32_t)__builtin_clz(longest), k;
    size_t needed = (size_t)levels * count + 1;
    if (needed > HR_PLAIN_TABLE_MAX) return NULL;
    if (needed > table->capacity) {
        size_t capacity = needed + needed / 2;
        int64_t *grown = realloc(table->at, capacity * sizeof(*grown));
        if (grown == NULL) return NULL;
        table->at = grown, table->capacity = capacity;
    }
    if (table->level_count == 0) {
        hr_plain_ranks(column, scalar, count, table->at, is_least ? INT64_MAX : INT64_MIN);
        table->level_count = 1;
    }
    for (k = table->level_count; k < levels; k++) {
        const int64_t *from = table->at + (size_t)(k - 1) * count;
        if (is_least) hr_plain_level(table->at + (size_t)k * count, from, count, 1U << (k - 1), 1);
        else hr_plain_level(table->at + (size_t)k * count, from, count, 1U << (k - 1), 0);
    }
    if (levels > table->level_count) table->level_count = levels;
    return table->at;
}

/* The rank of the best of the events [low, end), of which there is one. */
static inline int64_t hr_plain_best(const int64_t *table, uint32_t count, uint32_t low, uint32_t end, int is_least)
{
    uint32_t k = 31 - (uint32_t)__builtin_clz(end - low);
    const int64_t *level = table + (size_t)k * count;
    return hr_plain_better(level[low], level[end - (1U << k)], is_least);
}

/* Writes the value of a rank. */
static inline void hr_plain_store(uint8_t scalar, int64_t rank, uint8_t *to)
{
    uint64_t bits = (uint64_t)(rank < 0 ? rank ^ INT64_MAX : rank);
    float single;
    switch (scalar) {
    case HR_BOOL: *to = rank != 0; break;
    case HR_I32: case HR_DATE: hr_store_u32(to, (uint32_t)rank); break;
    case HR_F32:
        single = (float)hr_float_of(bits);
        memcpy(to, &single, 4);
        break;
    case HR_F64: hr_store_u64(to, bits); break;
    default: hr_store_u64(to, (uint64_t)rank);
    }
}

#endif
