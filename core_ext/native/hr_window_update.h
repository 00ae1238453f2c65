/* Events to deltas: sorted by group and time, gathered in the finest tiles, raised level by level. */
#ifndef HR_WINDOW_UPDATE_H
#define HR_WINDOW_UPDATE_H

#include "hr_arrow.h"
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

static inline hr_value hr_events_value(const hr_arrow *array, uint8_t scalar, int64_t row)
{
    int64_t at = array->offset + row;
    float single;
    double wide;
    if (hr_arrow_is_null(array, row)) return hr_value_null();
    switch (scalar) {
    case HR_BOOL: return hr_value_whole(hr_bit(array->values, at));
    case HR_I32:
    case HR_DATE: return hr_value_whole(hr_load_i32(array->values + 4 * at));
    case HR_F32: memcpy(&single, array->values + 4 * at, 4); return hr_value_float(single);
    case HR_F64: memcpy(&wide, array->values + 8 * at, 8); return hr_value_float(wide);
    case HR_STRING:
    case HR_BYTES: {
        int32_t start = hr_arrow_start(array, row);
        return hr_value_text(array->values + start, (uint32_t)(hr_arrow_start(array, row + 1) - start));
    }
    default: return hr_value_whole(hr_load_i64(array->values + 8 * at));
    }
}

static inline int hr_state_reads_order(const hr_state_spec *spec)
{
    return spec->kind == HR_KIND_FIRST || spec->kind == HR_KIND_LAST || spec->kind == HR_KIND_LAST_N ||
           spec->kind == HR_KIND_DECAYED;
}

/* Adds one event to a state, or takes it back. */
static inline int hr_events_feed(
    hr_state *state, const hr_window_state *planned, const hr_window_events *events, int64_t row, int is_retracted)
{
    hr_value value, second;
    hr_order order;
    const hr_value *first = NULL, *other = NULL;
    if (planned->column >= 0) {
        value = hr_events_value(&events->arrays[planned->column], planned->spec.scalar, row);
        first = &value;
    } else if (planned->column == HR_COLUMN_EVENT_TIME) {
        value = hr_value_whole(events->event_us[row]);
        first = &value;
    }
    if (planned->column2 >= 0) {
        second = hr_events_value(&events->arrays[planned->column2], planned->spec.scalar2, row);
        other = &second;
    }
    if (hr_state_reads_order(&planned->spec)) order = hr_events_order(events, row);
    else memset(&order, 0, sizeof(order));
    return is_retracted ? hr_state_retract(state, first, other, &order) : hr_state_add(state, first, other, &order);
}

/* ---- sorting ---- */

/* Events of group g are rows[firsts[g]] to rows[firsts[g + 1] - 1], by the total order; times run beside them. */
typedef struct {
    uint32_t *rows, *spare_rows;
    int64_t *times, *spare_times;
    uint32_t *firsts;
} hr_window_sorted;

static inline void hr_sorted_close(hr_window_sorted *sorted)
{
    free(sorted->rows);
    free(sorted->spare_rows);
    free(sorted->times);
    free(sorted->spare_times);
    free(sorted->firsts);
    memset(sorted, 0, sizeof(*sorted));
}

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

/* The caller closes it, also after a failure. */
static inline int hr_sorted_open(hr_window_sorted *sorted, const hr_window_events *events)
{
    size_t count = (size_t)events->count + 1, groups = (size_t)events->group_count;
    uint32_t *firsts;
    int64_t i;
    size_t g;
    memset(sorted, 0, sizeof(*sorted));
    sorted->rows = malloc(count * sizeof(uint32_t));
    sorted->spare_rows = malloc(count * sizeof(uint32_t));
    sorted->times = malloc(count * sizeof(int64_t));
    sorted->spare_times = malloc(count * sizeof(int64_t));
    sorted->firsts = calloc(groups + 2, sizeof(uint32_t));
    if (sorted->rows == NULL || sorted->spare_rows == NULL || sorted->times == NULL || sorted->spare_times == NULL ||
        sorted->firsts == NULL)
        return HR_WINDOW_NO_MEMORY;
    firsts = sorted->firsts + 1;  /* firsts[g] moves from the start of group g to its end, where the next one starts */
    for (i = 0; i < events->count; i++) firsts[events->groups[i] + 1]++;
    for (g = 1; g <= groups; g++) firsts[g] += firsts[g - 1];
    for (i = 0; i < events->count; i++) {
        uint32_t at = firsts[events->groups[i]]++;
        sorted->rows[at] = (uint32_t)i;
        sorted->times[at] = events->event_us[i];
    }
    for (g = 0; g < groups; g++) hr_sorted_group(sorted, events, sorted->firsts[g], sorted->firsts[g + 1]);
    return HR_WINDOW_OK;
}

/* ---- deltas ---- */

/* The finest tiles of one group of events, [first, end) of the sorted ones. */
static inline int hr_update_finest(
    hr_window_writer *writer, const hr_window_ladder *ladder, const hr_window_events *events,
    const hr_window_sorted *sorted, uint32_t first, uint32_t end)
{
    const hr_window_state *planned = writer->plan->states + ladder->first_state;
    int64_t size = ladder->sizes[0];
    uint32_t i, n, next;
    int status = HR_WINDOW_OK;
    hr_writer_section(writer, ladder->first_section);
    for (; first < end && status == HR_WINDOW_OK; first = next) {
        int64_t k = hr_tile_of(sorted->times[first], size), last = (k + 1) * size;
        for (next = first + 1; next < end && sorted->times[next] <= last; next++) continue;
        status = hr_writer_tile(writer, ladder, k, INT64_MIN, hr_events_sum(next - first, 0));
        for (n = 0; n < ladder->state_count && status == HR_WINDOW_OK; n++) {
            hr_state *state = &writer->states[ladder->first_state + n];
            hr_state_reset(state);
            for (i = first; i < next && status == HR_WINDOW_OK; i++)
                status = hr_merged(hr_events_feed(state, &planned[n], events, sorted->rows[i], 0));
            if (status == HR_WINDOW_OK) status = hr_writer_state(writer, state);
        }
    }
    return status;
}

/* Every tile of one group of events, of all ladders and levels. */
static inline int hr_update_tiles(
    hr_window_writer *writer, const hr_window_events *events, const hr_window_sorted *sorted, uint32_t first,
    uint32_t end)
{
    const hr_window_plan *plan = writer->plan;
    uint32_t l, level;
    int status = HR_WINDOW_OK;
    hr_writer_start(writer);
    for (l = 0; l < plan->ladder_count && status == HR_WINDOW_OK; l++) {
        const hr_window_ladder *ladder = &plan->ladders[l];
        status = hr_update_finest(writer, ladder, events, sorted, first, end);
        for (level = 1; level < ladder->level_count && status == HR_WINDOW_OK; level++)
            status = hr_writer_raise(writer, ladder, level);
    }
    return status;
}

/* Appends one delta per group to `out`, where group g starts at starts[g]; a group without events has no bytes.
 * *dropped counts the events that the group's own newest event makes too old to be kept. */
static inline int hr_window_update(
    hr_window_writer *writer, const hr_window_events *events, hr_window_bytes *out, uint64_t *starts, uint64_t *dropped)
{
    const hr_window_plan *plan = writer->plan;
    hr_window_sorted sorted;
    int64_t g;
    uint32_t l;
    int status = hr_sorted_open(&sorted, events);
    *dropped = 0;
    for (g = 0; g < events->group_count && status == HR_WINDOW_OK; g++) {
        uint32_t first = sorted.firsts[g], end = sorted.firsts[g + 1];
        hr_window_head head = {HR_TIME_NONE, HR_TIME_NONE, INT64_MIN, HR_MAP_DELTA};
        uint64_t old = UINT64_MAX;
        starts[g] = out->length;
        if (first == end) continue;
        head.newest = sorted.times[end - 1];
        status = hr_update_tiles(writer, events, &sorted, first, end);
        for (l = 0; l < plan->ladder_count && status == HR_WINDOW_OK; l++) {
            const hr_window_ladder *ladder = &plan->ladders[l];
            hr_window_section top = hr_writer_view(writer, ladder, ladder->first_section + ladder->level_count - 1);
            uint64_t events_old = hr_window_old_events(&top, ladder, head.newest);
            if (events_old < old) old = events_old;
        }
        if (plan->ladder_count > 0) *dropped += old;
        if (status == HR_WINDOW_OK) status = hr_writer_finish(writer, &head, out);
    }
    starts[events->group_count] = out->length;
    hr_sorted_close(&sorted);
    return status;
}

#endif
