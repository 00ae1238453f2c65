/* Events to deltas: sorted by group and time, gathered in the finest tiles, raised level by level. */
#ifndef HR_WINDOW_UPDATE_H
#define HR_WINDOW_UPDATE_H

#include "hr_window_sort.h"

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
