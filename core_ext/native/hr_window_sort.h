/* Events by group and, within one, by the total order. */
#ifndef HR_WINDOW_SORT_H
#define HR_WINDOW_SORT_H

#include "hr_arrow.h"
#include "hr_huge.h"
#include "hr_window_write.h"

/* Columns of events; the caller has checked the arrays, the groups (0 to group_count - 1) and the times. Order columns
 * may be NULL: write time is then the event time, the others 0. */
typedef struct {
    int64_t count, group_count;
    const int64_t *groups, *event_us, *write_us, *offsets;
    const int64_t *available_us;  /* of histories: no read before it sees the event; NULL where that is its own time */
    const uint32_t *source_ids;
    const int32_t *partitions;
    const hr_arrow *arrays;
} hr_window_events;

static inline hr_order hr_events_order(const hr_window_events *events, int64_t row)
{
    int64_t event = events->event_us[row];
    return (hr_order){
        event, events->write_us != NULL ? events->write_us[row] : event,
        events->source_ids != NULL ? events->source_ids[row] : 0,
        events->partitions != NULL ? events->partitions[row] : 0, events->offsets != NULL ? events->offsets[row] : 0};
}

/* An event on its way to its group. */
typedef struct {
    int64_t time;
    uint32_t row, group;
} hr_sorted_event;

/* Events of group g are rows[firsts[g]] to rows[firsts[g + 1] - 1], by the total order; times run beside them. */
typedef struct {
    uint32_t *rows, *spare_rows;
    int64_t *times, *spare_times;
    uint32_t *firsts;
    hr_sorted_event *passing;  /* then no longer needed, so that the spare arrays lie in its memory */
} hr_window_sorted;

static inline void hr_sorted_close(hr_window_sorted *sorted)
{
    free(sorted->rows);
    free(sorted->times);
    free(sorted->firsts);
    free(sorted->passing);
    memset(sorted, 0, sizeof(*sorted));
}

/* ---- one group ---- */

static inline int hr_sorted_after(const hr_window_events *events, int64_t a_us, uint32_t a, int64_t b_us, uint32_t b)
{
    hr_order first, second;
    if (a_us != b_us) return a_us > b_us;
    first = hr_events_order(events, a), second = hr_events_order(events, b);
    return hr_order_fields_compare(&first, &second) > 0;
}

static inline void hr_sorted_insert(
    hr_window_sorted *sorted, const hr_window_events *events, uint32_t first, uint32_t end)
{
    uint32_t i, at;
    for (i = first + 1; i < end; i++) {
        uint32_t row = sorted->rows[i];
        int64_t time = sorted->times[i];
        for (at = i; at > first && hr_sorted_after(events, sorted->times[at - 1], sorted->rows[at - 1], time, row); at--)
            sorted->rows[at] = sorted->rows[at - 1], sorted->times[at] = sorted->times[at - 1];
        sorted->rows[at] = row, sorted->times[at] = time;
    }
}

/* Merges two sorted runs through the spare arrays. */
static inline void hr_sorted_merge(
    hr_window_sorted *sorted, const hr_window_events *events, uint32_t first, uint32_t middle, uint32_t end)
{
    uint32_t a = first, b = middle, to;
    if (!hr_sorted_after(events, sorted->times[middle - 1], sorted->rows[middle - 1], sorted->times[middle],
                         sorted->rows[middle]))
        return;
    for (to = first; to < end; to++) {
        int takes_b = a == middle || (b < end && hr_sorted_after(events, sorted->times[a], sorted->rows[a],
                                                                 sorted->times[b], sorted->rows[b]));
        uint32_t from = takes_b ? b++ : a++;
        sorted->spare_rows[to] = sorted->rows[from], sorted->spare_times[to] = sorted->times[from];
    }
    memcpy(sorted->rows + first, sorted->spare_rows + first, (end - first) * sizeof(uint32_t));
    memcpy(sorted->times + first, sorted->spare_times + first, (end - first) * sizeof(int64_t));
}

/* Stable sort of one group; costs one pass where the events come in order. */
static inline void hr_sorted_group(hr_window_sorted *sorted, const hr_window_events *events, uint32_t first, uint32_t end)
{
    enum { RUN = 16 };
    uint32_t i;
    uint64_t width;
    for (i = first; i < end; i = end - i > RUN ? i + RUN : end)
        hr_sorted_insert(sorted, events, i, end - i > RUN ? i + RUN : end);
    for (width = RUN; width < end - first; width *= 2)
        for (i = first; end - i > width; i = end - i > 2 * width ? (uint32_t)(i + 2 * width) : end)
            hr_sorted_merge(sorted, events, i, (uint32_t)(i + width), end - i > 2 * width ? (uint32_t)(i + 2 * width) : end);
}

/* ---- all groups ---- */

enum {
    HR_SORTED_BITS_MAX = 12,
    HR_SORTED_BITS_MORE = 4,  /* buckets for each event of a group, in bits: few of a group then share one */
    HR_SORTED_BITS_MIN = 6    /* below, insertion alone costs less than a pass */
};

/* How far to shift times, less the least of them, for buckets that most events of a group do not share; 64 where the
 * events are in order already, or their groups are small. */
static inline int hr_sorted_shift(const hr_window_events *events, int64_t *least)
{
    int64_t i, greatest, is_late = 0, count = events->count;
    int bits, width;
    if (count == 0) return 64;
    *least = greatest = events->event_us[0];
    for (i = 1; i < count; i++) {
        int64_t time = events->event_us[i];
        is_late |= time < events->event_us[i - 1];
        *least = time < *least ? time : *least;
        greatest = time > greatest ? time : greatest;
    }
    bits = hr_bit_length((hr_u128)(count / events->group_count)) + HR_SORTED_BITS_MORE;
    width = hr_bit_length((hr_u128)(greatest - *least));
    if (bits > HR_SORTED_BITS_MAX) bits = HR_SORTED_BITS_MAX;
    if (bits > width) bits = width;
    return is_late && bits >= HR_SORTED_BITS_MIN ? width - bits : 64;
}

/* Brings the events to buckets of time, in order of arrival within one. */
static inline void hr_sorted_pass(hr_window_sorted *sorted, const hr_window_events *events, int64_t least, int shift)
{
    uint32_t ends[(1 << HR_SORTED_BITS_MAX) + 1];
    int64_t i;
    uint32_t bucket;
    memset(ends, 0, sizeof(ends));
    for (i = 0; i < events->count; i++) ends[((uint64_t)(events->event_us[i] - least) >> shift) + 1]++;
    for (bucket = 1; bucket < 1 << HR_SORTED_BITS_MAX; bucket++) ends[bucket] += ends[bucket - 1];
    for (i = 0; i < events->count; i++) {
        int64_t time = events->event_us[i];
        hr_sorted_event *to = &sorted->passing[ends[(uint64_t)(time - least) >> shift]++];
        *to = (hr_sorted_event){time, (uint32_t)i, (uint32_t)events->groups[i]};
    }
}

/* The caller closes it, also after a failure. */
static inline int hr_sorted_open(hr_window_sorted *sorted, const hr_window_events *events)
{
    size_t count = (size_t)events->count + 1, groups = (size_t)events->group_count, g;
    uint32_t *firsts;
    int64_t i, least = 0;
    int shift = hr_sorted_shift(events, &least);
    memset(sorted, 0, sizeof(*sorted));
    sorted->rows = hr_huge_allocate(count * sizeof(uint32_t));
    sorted->times = hr_huge_allocate(count * sizeof(int64_t));
    sorted->passing = hr_huge_allocate(count * sizeof(hr_sorted_event));
    sorted->firsts = calloc(groups + 2, sizeof(uint32_t));
    if (sorted->rows == NULL || sorted->times == NULL || sorted->passing == NULL || sorted->firsts == NULL)
        return HR_WINDOW_NO_MEMORY;
    firsts = sorted->firsts + 1;  /* firsts[g] moves from the start of group g to its end, where the next one starts */
    for (i = 0; i < events->count; i++) firsts[events->groups[i] + 1]++;
    for (g = 1; g <= groups; g++) firsts[g] += firsts[g - 1];
    if (shift < 64) hr_sorted_pass(sorted, events, least, shift);
    for (i = 0; i < events->count; i++) {
        const hr_sorted_event *passing = &sorted->passing[i];
        uint32_t at = firsts[shift < 64 ? passing->group : (uint32_t)events->groups[i]]++;
        sorted->rows[at] = shift < 64 ? passing->row : (uint32_t)i;
        sorted->times[at] = shift < 64 ? passing->time : events->event_us[i];
    }
    sorted->spare_times = (int64_t *)sorted->passing;
    sorted->spare_rows = (uint32_t *)(sorted->spare_times + count);
    for (g = 0; g < groups; g++) hr_sorted_group(sorted, events, sorted->firsts[g], sorted->firsts[g + 1]);
    return HR_WINDOW_OK;
}

#endif
