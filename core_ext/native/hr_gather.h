/* From rows to columns: values and statuses of fixed width, a block of rows at a time so that they are read while in L1.
 *
 * Rows whose every value is PRESENT go in tiles of eight rows and eight columns (four of eight bytes) where the machine
 * has AVX2 and the columns lie side by side in the row; without it, and for what is left of a tile, a load and a store a
 * value. All other rows have their rules applied once a row, so that a value is looked up and not decided. */
#ifndef HR_GATHER_H
#define HR_GATHER_H

#include "hr_settle.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define HR_HAS_TILES() __builtin_cpu_supports("avx2")
#else
#define HR_HAS_TILES() 0
#endif

enum { HR_TILE_ROWS = 8, HR_EMPTY_BYTES = 8 };
#define HR_EIGHT_PRESENT 0x0101010101010101ULL

/* Where the values, offsets and statuses of a column go. */
typedef struct {
    uint8_t *values, *offsets, *statuses;
} hr_column_places;

static inline void hr_copy_slot(uint8_t *out, const uint8_t *value, uint32_t bytes)
{
    if (bytes == 4) memcpy(out, value, 4);
    else if (bytes == 8) memcpy(out, value, 8);
    else if (bytes == 1) *out = *value;
    else memcpy(out, value, bytes);
}

/* ---- rows whose every value is PRESENT ---- */

static inline void hr_gather_plain(const hr_output *output, const uint8_t *const *rows, uint8_t *out, uint32_t count)
{
    uint32_t offset = output->column.offset, bytes = output->column.slot_bytes;
    if (bytes == 4)
        for (uint32_t i = 0; i < count; i++) memcpy(out + 4 * (size_t)i, rows[i] + offset, 4);
    else if (bytes == 8)
        for (uint32_t i = 0; i < count; i++) memcpy(out + 8 * (size_t)i, rows[i] + offset, 8);
    else
        for (uint32_t i = 0; i < count; i++) hr_copy_slot(out + (size_t)bytes * i, rows[i] + offset, bytes);
}

#if defined(__x86_64__)
#define HR_LOAD_4(row) _mm256_loadu_ps((const float *)(const void *)(rows[row] + offset))
#define HR_LOAD_8(row) _mm256_loadu_pd((const double *)(const void *)(rows[row] + offset))
#define HR_STORE_4(column, low, high, halves) \
    _mm256_storeu_ps((float *)(void *)(out[column] + 4 * at), _mm256_permute2f128_ps(low, high, halves))
#define HR_STORE_8(column, low, high, halves) \
    _mm256_storeu_pd((double *)(void *)(out[column] + 8 * at), _mm256_permute2f128_pd(low, high, halves))

/* Eight rows of eight values of four bytes, from `offset` of each row: bits are moved, never read as numbers. */
__attribute__((target("avx2"))) static inline void hr_tile_4(
    const uint8_t *const *rows, uint32_t offset, uint8_t *const *out, size_t at)
{
    __m256 a = HR_LOAD_4(0), b = HR_LOAD_4(1), c = HR_LOAD_4(2), d = HR_LOAD_4(3);
    __m256 e = HR_LOAD_4(4), f = HR_LOAD_4(5), g = HR_LOAD_4(6), h = HR_LOAD_4(7);
    __m256 ab = _mm256_unpacklo_ps(a, b), cd = _mm256_unpacklo_ps(c, d);
    __m256 ef = _mm256_unpacklo_ps(e, f), gh = _mm256_unpacklo_ps(g, h);
    __m256 first = _mm256_shuffle_ps(ab, cd, 0x44), second = _mm256_shuffle_ps(ab, cd, 0xEE);
    __m256 third = _mm256_shuffle_ps(ef, gh, 0x44), fourth = _mm256_shuffle_ps(ef, gh, 0xEE);
    HR_STORE_4(0, first, third, 0x20);
    HR_STORE_4(1, second, fourth, 0x20);
    HR_STORE_4(4, first, third, 0x31);
    HR_STORE_4(5, second, fourth, 0x31);
    ab = _mm256_unpackhi_ps(a, b), cd = _mm256_unpackhi_ps(c, d);
    ef = _mm256_unpackhi_ps(e, f), gh = _mm256_unpackhi_ps(g, h);
    first = _mm256_shuffle_ps(ab, cd, 0x44), second = _mm256_shuffle_ps(ab, cd, 0xEE);
    third = _mm256_shuffle_ps(ef, gh, 0x44), fourth = _mm256_shuffle_ps(ef, gh, 0xEE);
    HR_STORE_4(2, first, third, 0x20);
    HR_STORE_4(3, second, fourth, 0x20);
    HR_STORE_4(6, first, third, 0x31);
    HR_STORE_4(7, second, fourth, 0x31);
}

/* Four rows of four values of eight bytes. */
__attribute__((target("avx2"))) static inline void hr_tile_8(
    const uint8_t *const *rows, uint32_t offset, uint8_t *const *out, size_t at)
{
    __m256d a = HR_LOAD_8(0), b = HR_LOAD_8(1), c = HR_LOAD_8(2), d = HR_LOAD_8(3);
    __m256d even = _mm256_unpacklo_pd(a, b), evens = _mm256_unpacklo_pd(c, d);
    __m256d odd = _mm256_unpackhi_pd(a, b), odds = _mm256_unpackhi_pd(c, d);
    HR_STORE_8(0, even, evens, 0x20);
    HR_STORE_8(1, odd, odds, 0x20);
    HR_STORE_8(2, even, evens, 0x31);
    HR_STORE_8(3, odd, odds, 0x31);
}

/* A tile of columns through `count` rows, at least a tile of them; the last tile may write rows a second time. */
__attribute__((target("avx2"))) static void hr_gather_tile(
    const uint8_t *const *rows, uint32_t offset, uint32_t slot_bytes, uint8_t *const *out, uint32_t first, uint32_t count)
{
    uint32_t step = 32 / slot_bytes;
    for (uint32_t done = 0; done < count; done += step) {
        uint32_t from = done + step <= count ? done : count - step;
        if (slot_bytes == 4) hr_tile_4(rows + from, offset, out, (size_t)first + from);
        else hr_tile_8(rows + from, offset, out, (size_t)first + from);
    }
}
#else
static inline void hr_gather_tile(
    const uint8_t *const *rows, uint32_t offset, uint32_t slot_bytes, uint8_t *const *out, uint32_t first, uint32_t count)
{
    (void)rows, (void)offset, (void)slot_bytes, (void)out, (void)first, (void)count;
}
#endif

/* How many outputs from by_group[at] on, up to `end`, are of one width of 4 or 8 and side by side in the row. */
static inline uint32_t hr_run_length(const hr_plan *plan, uint32_t at, uint32_t end)
{
    const hr_column *first = &plan->outputs[plan->by_group[at]].column;
    uint32_t count = 1, bytes = first->slot_bytes;
    if (first->is_variable || (bytes != 4 && bytes != 8)) return 0;
    while (at + count < end) {
        const hr_column *next = &plan->outputs[plan->by_group[at + count]].column;
        if (next->is_variable || next->slot_bytes != bytes || next->offset != first->offset + count * bytes) break;
        count++;
    }
    return count;
}

/* A run of columns through at least a tile of rows; the last tile may write columns a second time. */
static inline void hr_gather_run(
    const hr_call *call, uint32_t at, uint32_t length, const hr_column_places *places, const uint8_t *const *rows,
    uint32_t first, uint32_t count)
{
    const hr_plan *plan = call->plan;
    uint32_t slot_bytes = plan->outputs[plan->by_group[at]].column.slot_bytes, width = 32 / slot_bytes;
    for (uint32_t done = 0; done < length; done += width) {
        uint32_t from = at + (done + width <= length ? done : length - width);
        uint8_t *out[HR_TILE_ROWS];
        for (uint32_t i = 0; i < width; i++) out[i] = places[plan->by_group[from + i]].values;
        hr_gather_tile(rows + first, plan->outputs[plan->by_group[from]].column.offset, slot_bytes, out, first, count);
    }
}

/* Values of all fixed-width columns of a group of plain rows [first, last). */
static inline void hr_gather_plain_rows(
    const hr_call *call, const hr_group *group, uint32_t number, const hr_column_places *places, uint32_t first, uint32_t last)
{
    const uint8_t *const *rows = call->rows + (size_t)number * call->row_count;
    const hr_plan *plan = call->plan;
    uint32_t end = group->first_output + group->output_count;
    int has_tiles = plan->has_tiles && last - first >= HR_TILE_ROWS;
    for (uint32_t at = group->first_output, length; at < end; at += length) {
        const hr_output *output = &plan->outputs[plan->by_group[at]];
        uint32_t bytes = output->column.slot_bytes;
        length = has_tiles ? hr_run_length(plan, at, end) : 0;
        if (length * bytes >= 32) {
            hr_gather_run(call, at, length, places, rows, first, last - first);
            continue;
        }
        length = 1;
        if (!output->column.is_variable)
            hr_gather_plain(output, rows + first, places[plan->by_group[at]].values + (size_t)bytes * first, last - first);
    }
}

/* Says of these rows that every value of fixed width is PRESENT. */
static inline void hr_mark_present(
    const hr_call *call, const hr_group *group, const hr_column_places *places, uint32_t first, uint32_t last)
{
    for (uint32_t at = group->first_output; at < group->first_output + group->output_count; at++) {
        uint32_t number = call->plan->by_group[at];
        if (!call->plan->outputs[number].column.is_variable) memset(places[number].statuses + first, HR_PRESENT, last - first);
    }
}

/* ---- all other rows ---- */

/* Status and slot of the values of one row, by whether a value is null, has a default and is computed. */
enum { HR_RULE_NULL = 1, HR_RULE_DEFAULT = 2, HR_RULE_COMPUTED = 4, HR_RULE_COUNT = 8 };
typedef struct {
    uint8_t status[HR_RULE_COUNT], slot[HR_RULE_COUNT];
    const uint8_t *nulls;
    uint32_t nulls_mask;           /* of places in `nulls`: 0 where there is no row and so no bitmap */
} hr_row_rules;

static const uint8_t hr_empty[HR_EMPTY_BYTES];

static inline void hr_rules_of_row(const hr_call *call, uint32_t number, uint32_t row, hr_row_rules *rules)
{
    const hr_group *group = &call->plan->groups[number];
    size_t place = (size_t)number * call->row_count + row;
    const uint8_t *stored = call->rows[place];
    uint8_t row_status = call->row_status[place];
    int kinds = group->computed != NULL ? HR_RULE_COUNT : HR_RULE_COMPUTED;
    rules->nulls = stored != NULL ? stored + HR_ROW_BITMAP : hr_empty;
    rules->nulls_mask = stored != NULL ? UINT32_MAX : 0;
    for (int kind = 0; kind < kinds; kind++) {
        uint8_t status = row_status;
        if ((kind & HR_RULE_COMPUTED) && stored != NULL && (row_status & HR_STATE_MASK) == HR_MISSING) status = HR_PRESENT;
        rules->status[kind] = hr_value_status(
            status, stored != NULL && (kind & HR_RULE_NULL), group->fallback, (kind & HR_RULE_DEFAULT) != 0,
            call->request.include_expired, &rules->slot[kind]);
    }
}

/* All fixed-width columns of a group through rows [first, last), at most a block. */
static inline void hr_gather_mixed_rows(
    const hr_call *call, const hr_group *group, uint32_t number, const hr_column_places *places, uint32_t first, uint32_t last)
{
    const uint8_t *const *rows = call->rows + (size_t)number * call->row_count;
    hr_row_rules rules[HR_BLOCK_ROWS];
    for (uint32_t row = first; row < last; row++) hr_rules_of_row(call, number, row, &rules[row - first]);
    for (uint32_t i = group->first_output; i < group->first_output + group->output_count; i++) {
        const hr_output *output = &call->plan->outputs[call->plan->by_group[i]];
        const hr_column_places *place = &places[call->plan->by_group[i]];
        uint32_t bytes = output->column.slot_bytes, byte = output->index >> 3, bit = output->index & 7;
        int kind = (output->has_default ? HR_RULE_DEFAULT : 0) | (output->is_computed ? HR_RULE_COMPUTED : 0);
        if (output->column.is_variable) continue;
        for (uint32_t row = first; row < last; row++) {
            const hr_row_rules *rule = &rules[row - first];
            int of = kind | (rule->nulls[byte & rule->nulls_mask] >> bit & 1);
            uint8_t *out = place->values + (size_t)bytes * row;
            uint8_t slot = rule->slot[of];
            place->statuses[row] = rule->status[of];
            if (bytes <= HR_EMPTY_BYTES) {
                /* Every source is there to be chosen from, so that no branch depends on the value. */
                const uint8_t *from = slot == HR_SLOT_VALUE ? rows[row] + output->column.offset : hr_empty;
                from = slot == HR_SLOT_DEFAULT ? output->default_value : from;
                hr_copy_slot(out, from, bytes);
            } else if (slot == HR_SLOT_EMPTY) memset(out, 0, bytes);
            else hr_copy_slot(out, slot == HR_SLOT_VALUE ? rows[row] + output->column.offset : output->default_value, bytes);
        }
    }
}

/* ---- a block of either ---- */

/* Where the rows from `first` on stop being plain, or, from one that is not, where eight that are begin. */
static inline uint32_t hr_stretch(const uint8_t *plain, uint32_t first, uint32_t last, int is_plain)
{
    uint32_t row = first;
    for (; row + HR_TILE_ROWS <= last; row += HR_TILE_ROWS)
        if ((hr_load_u64(plain + row) == HR_EIGHT_PRESENT) != is_plain) return row;
    return is_plain && row > first ? row : last;
}

/* One block of rows through all fixed-width columns of a group. */
static inline void hr_gather_block(
    const hr_call *call, const hr_group *group, uint32_t number, const hr_column_places *places, uint32_t first, uint32_t last)
{
    const uint8_t *plain = call->row_plain + (size_t)number * call->row_count;
    if (call->group_plain[number]) {
        hr_gather_plain_rows(call, group, number, places, first, last);
        if (!call->has_frames) hr_mark_present(call, group, places, first, last);
        return;
    }
    while (first < last) {
        int is_plain = last - first >= HR_TILE_ROWS && hr_load_u64(plain + first) == HR_EIGHT_PRESENT;
        uint32_t end = hr_stretch(plain, first, last, is_plain);
        if (is_plain) {
            hr_gather_plain_rows(call, group, number, places, first, end);
            hr_mark_present(call, group, places, first, end);
        } else hr_gather_mixed_rows(call, group, number, places, first, end);
        first = end;
    }
}

#endif
