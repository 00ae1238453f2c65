/* Values of the reads of one group: what their windows hold, then feature after feature. */
#ifndef HR_WINDOW_GROUP_H
#define HR_WINDOW_GROUP_H

#include "hr_window_merge.h"
#include "hr_window_ranges.h"

/* ---- events ---- */

/* When each event of the group was first seen. */
static inline int hr_history_see(hr_history *history)
{
    const int64_t *available_us = history->events->available_us;
    uint32_t i, count = history->count;
    if (available_us == NULL) return HR_WINDOW_OK;
    if (count > history->seen_capacity) {
        free(history->seen);
        free(history->seen_latest);
        history->seen = malloc(count * sizeof(int64_t));
        history->seen_latest = malloc(count * sizeof(int64_t));
        history->seen_capacity = history->seen != NULL && history->seen_latest != NULL ? count : 0;
    }
    if (count > history->seen_capacity) return HR_WINDOW_NO_MEMORY;
    for (i = 0; i < count; i++) {
        history->seen[i] = hr_later(history->times[i], available_us[history->rows[i]]);
        history->seen_latest[i] = i > 0 ? hr_later(history->seen_latest[i - 1], history->seen[i]) : history->seen[i];
    }
    return HR_WINDOW_OK;
}

/* The events [first, first + count) of the sorted ones are the group at hand. */
static inline int hr_history_start(hr_history *history, uint32_t first, uint32_t count)
{
    uint32_t c;
    hr_writer_start(&history->writer);
    memset(history->tiled, 0, history->plan->ladder_count);
    for (c = 0; c < history->input_count; c++) hr_plain_reset(&history->plain[c]);
    history->is_gathered = 0;
    history->count = count;
    history->rows = history->sorted.rows + first, history->times = history->sorted.times + first;
    return hr_history_see(history);
}

/* Values of all inputs, for walks. */
static inline int hr_history_gather(hr_history *history)
{
    uint32_t c, i, s, count = history->count;
    size_t needed = (size_t)count * history->input_count;
    uint8_t scalar;
    if (history->is_gathered) return HR_WINDOW_OK;
    if (needed > history->value_capacity) {
        free(history->values);
        free(history->ranks);
        history->values = malloc(needed * sizeof(hr_value));
        history->ranks = malloc(needed * sizeof(int64_t));
        history->value_capacity = history->values != NULL && history->ranks != NULL ? needed : 0;
    }
    if (count > history->queue_capacity) {
        free(history->queue);
        history->queue = malloc(count * sizeof(uint32_t));
        history->queue_capacity = history->queue != NULL ? count : 0;
    }
    if (needed > history->value_capacity || count > history->queue_capacity) return HR_WINDOW_NO_MEMORY;
    history->is_gathered = 1;
    for (c = 0; c < history->input_count; c++) {
        for (scalar = 0, s = 0; s < history->plan->state_count; s++) {
            if (history->plan->states[s].column == (int32_t)c) scalar = history->plan->states[s].spec.scalar;
            if (history->plan->states[s].column2 == (int32_t)c) scalar = history->plan->states[s].spec.scalar2;
        }
        for (i = 0; i < count && scalar != 0; i++) {
            hr_value value = hr_events_value(&history->events->arrays[c], scalar, history->rows[i]);
            history->values[(size_t)c * count + i] = value;
            history->ranks[(size_t)c * count + i] = hr_scalar_is_float(scalar) ? hr_float_rank(value.f) : value.i;
        }
    }
    return HR_WINDOW_OK;
}

/* ---- reads ---- */

/* Room for what is held of the reads of a group. */
static inline int hr_history_room(hr_history *history, uint32_t count)
{
    uint32_t f;
    if (count <= history->read_capacity) return HR_WINDOW_OK;
    history->read_capacity = 0;
    free(history->edges);
    free(history->ranges);
    free(history->present);
    history->edges = malloc(count * sizeof(*history->edges));
    history->ranges = malloc(count * sizeof(*history->ranges));
    history->present = malloc(count * sizeof(*history->present));
    if (history->edges == NULL || history->ranges == NULL || history->present == NULL) return HR_WINDOW_NO_MEMORY;
    for (f = 0; f < history->plan->feature_count; f++) {
        hr_history_column *column = &history->columns[f];
        free(column->held_nulls);
        column->held_nulls = malloc(count);
        if (column->held_nulls == NULL) return HR_WINDOW_NO_MEMORY;
        if (history->held_rows != NULL) continue;
        free(column->held);
        column->held = malloc((size_t)count * column->width);
        if (column->held == NULL) return HR_WINDOW_NO_MEMORY;
    }
    history->read_capacity = count;
    return HR_WINDOW_OK;
}

/* Where the values of the reads from `first` on are held. */
static inline void hr_history_hold(hr_history *history, uint32_t first)
{
    uint32_t f;
    for (f = 0; f < history->plan->feature_count; f++) {
        hr_history_column *column = &history->columns[f];
        column->stride = column->width;
        if (history->held_rows == NULL) continue;
        column->held = history->held_rows + (size_t)first * history->row_bytes + column->offset;
        column->stride = history->row_bytes;
    }
}

static inline hr_history_hop hr_history_hop_of(const hr_window_span *span)
{
    uint64_t hop = (uint64_t)span->hop_us;
    return (hr_history_hop){
        hop, UINT64_MAX / hop, span->window_us, (int64_t)((UINT64_C(1) << 61) / hop * hop)};
}

/* hr_window_start. The time and the bias are below 2^62, so that the quotient is one too small at most. */
static inline int64_t hr_history_start_of(const hr_history_hop *hop, int64_t read_us)
{
    int64_t time = read_us - hop->window;
    uint64_t above = (uint64_t)(time + hop->bias), rest = above - (uint64_t)((hr_u128)above * hop->factor >> 64) * hop->hop;
    return time - (int64_t)(rest >= hop->hop ? rest - hop->hop : rest);
}

/* Which events are no later than each read. */
static inline void hr_history_ends(hr_history *history, uint32_t first_read, uint32_t count)
{
    const int64_t *times = history->times;
    uint32_t i, high = 0, known = 0;
    for (i = 0; i < count; i++) {
        int64_t read_us = history->reads.times[first_read + i];
        while (high < history->count && times[high] <= read_us) high++;
        if (history->events->available_us == NULL) known = high;
        else while (known < high && history->seen_latest[known] <= read_us) known++;
        history->edges[i] = (hr_history_edge){0, high, known};
    }
}

/* Which of these the window of each read holds. */
static inline void hr_history_edges(
    hr_history *history, const hr_history_hop *hop, uint32_t first_read, uint32_t count)
{
    const int64_t *times = history->times;
    uint32_t i, low = 0;
    for (i = 0; i < count; i++) {
        uint32_t high = history->edges[i].high;
        int64_t start = hr_history_start_of(hop, history->reads.times[first_read + i]);
        while (low < high && times[low] <= start) low++;
        history->edges[i].low = low;
    }
}

/* Of the events of each read's window, those of the session that is open then. What a read has not seen parts nothing
 * and joins nothing; all before `known` were seen, where `begin` is the first event of the newest session. */
static inline void hr_history_sessions(
    hr_history *history, const hr_window_span *span, uint32_t first_read, uint32_t count)
{
    const int64_t *times = history->times;
    uint32_t i, at, passed = 0, begin = 0;
    for (i = 0; i < count; i++) {
        hr_history_edge *edge = &history->edges[i];
        int64_t read_us = history->reads.times[first_read + i], since = read_us;
        uint32_t low = edge->high, end = edge->known > edge->low ? edge->known : edge->low;
        int is_over = 0;
        for (; passed < edge->known; passed++)
            if (passed > 0 && times[passed] - times[passed - 1] > span->gap_us) begin = passed;
        for (at = edge->high; at > end && !is_over; at--) {
            if (history->seen[at - 1] > read_us) continue;
            is_over = since - times[at - 1] > span->gap_us;
            if (!is_over) low = at - 1, since = times[at - 1];
        }
        if (!is_over && edge->known > edge->low && since - times[edge->known - 1] <= span->gap_us)
            low = begin > edge->low ? begin : edge->low;
        edge->low = low;
    }
}

/* ---- features ---- */

static inline int hr_history_walk_state(
    hr_history *history, const hr_window_span *span, uint32_t first_use, uint32_t end_use, uint32_t first_read,
    uint32_t count)
{
    const hr_window_plan *plan = history->plan;
    uint32_t n = plan->features[plan->uses[first_use]].state;
    hr_history_walk walk;
    int status = hr_history_gather(history);
    if (status != HR_WINDOW_OK) return status;
    memset(&walk, 0, sizeof(walk));
    walk.history = history, walk.span = span, walk.n = n;
    walk.planned = &plan->states[n];
    /* The writer has states of its own, so that these are free while tiles are made. */
    walk.state = &history->fold.states[n];
    walk.first_use = first_use, walk.end_use = end_use;
    walk.head = walk.fed = UINT32_MAX;
    return hr_walk_run(&walk, first_read, count);
}

static inline int hr_history_span(hr_history *history, uint32_t s, uint32_t first_read, uint32_t count)
{
    const hr_window_plan *plan = history->plan;
    const hr_window_span *span = &plan->spans[s];
    uint32_t u = span->first_use, end = span->first_use + span->use_count, first, left;
    int status = HR_WINDOW_OK, has_ranges;
    hr_history_edges(history, &history->hops[s], first_read, count);
    if (span->gap_us > 0) hr_history_sessions(history, span, first_read, count);
    has_ranges = hr_ranges_find(history, first_read, count);
    while (u < end && status == HR_WINDOW_OK) {
        uint32_t n = plan->features[plan->uses[u]].state;
        for (first = u; u < end && plan->features[plan->uses[u]].state == n; u++)
            history->columns[plan->uses[u]].is_done = 0;
        left = has_ranges ? 0 : u - first;
        if (has_ranges) status = hr_ranges_run(history, &plan->states[n], first, u, count, &left);
        if (left > 0 && status == HR_WINDOW_OK)
            status = hr_history_walk_state(history, span, first, u, first_read, count);
    }
    return status;
}

/* ---- places ---- */

/* Marks the NULLs among what is held of a group. */
static inline void hr_history_mark(hr_history_column *column, const uint32_t *rows, uint32_t count)
{
    uint64_t eight;
    uint32_t i;
    for (i = 0; i < count; i++) {
        for (; count - i >= 8; i += 8) {
            memcpy(&eight, column->held_nulls + i, 8);
            if (eight != 0) break;
        }
        if (i == count || column->held_nulls[i] == 0) continue;
        column->nulls[rows[i]] = 1;
        column->null_count++;
    }
}

/* Values to the places of their reads, which may lie far apart; `width` is a constant wherever this is called. */
static inline void hr_history_scatter(
    uint8_t *values, const uint8_t *held, const uint32_t *rows, uint32_t count, uint32_t width)
{
    enum { AHEAD = 12 };
    uint32_t i, near = count > AHEAD ? count - AHEAD : 0;
    for (i = 0; i < near; i++) {
        __builtin_prefetch(values + (size_t)rows[i + AHEAD] * width, 1);
        memcpy(values + (size_t)rows[i] * width, held + (size_t)i * width, width);
    }
    for (; i < count; i++) memcpy(values + (size_t)rows[i] * width, held + (size_t)i * width, width);
}

/* Brings what is held of a group to the places of its reads, without rows. */
static inline void hr_history_place(hr_history_column *column, const uint32_t *rows, uint32_t count)
{
    if (column->width == 8) hr_history_scatter(column->values, column->held, rows, count, 8);
    else if (column->width == 4) hr_history_scatter(column->values, column->held, rows, count, 4);
    else hr_history_scatter(column->values, column->held, rows, count, 1);
}

static inline int hr_history_group(hr_history *history, int64_t g)
{
    const hr_window_plan *plan = history->plan;
    uint32_t first = history->sorted.firsts[g], first_read = history->reads.firsts[g], s, f, i;
    uint32_t count = history->reads.firsts[g + 1] - first_read;
    const uint32_t *rows = history->reads.rows + first_read;
    int status = hr_history_room(history, count);
    if (count == 0 || status != HR_WINDOW_OK) return status;
    hr_history_hold(history, first_read);
    status = hr_history_start(history, first, history->sorted.firsts[g + 1] - first);
    if (status == HR_WINDOW_OK) hr_history_ends(history, first_read, count);
    for (s = 0; s < plan->span_count && status == HR_WINDOW_OK; s++)
        status = hr_history_span(history, s, first_read, count);
    for (f = 0; f < plan->feature_count && status == HR_WINDOW_OK; f++) {
        hr_history_mark(&history->columns[f], rows, count);
        if (history->held_rows == NULL) hr_history_place(&history->columns[f], rows, count);
    }
    for (i = 0; i < count && history->held_rows != NULL; i++) history->places[rows[i]] = first_read + i;
    return status;
}

#endif
