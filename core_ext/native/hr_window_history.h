/* Values at given instants, straight from the events; groups are shared out among threads. */
#ifndef HR_WINDOW_HISTORY_H
#define HR_WINDOW_HISTORY_H

#include <pthread.h>

#include "hr_window_merge.h"
#include "hr_window_walk.h"

enum { HR_HISTORY_THREADS_MAX = 64 };

static inline uint32_t hr_history_width(const hr_window_feature *feature)
{
    return feature->is_list || hr_scalar_is_text(feature->scalar) ? 8 : hr_scalar_bytes(feature->scalar);
}

/* Columns of `count` rows whose values lie at values[f]; NULL where there is no memory. */
static inline hr_history_column *hr_history_columns(const hr_window_plan *plan, uint8_t **values, size_t count)
{
    hr_history_column *columns = calloc((size_t)plan->feature_count + 1, sizeof(*columns));
    uint32_t i;
    int is_whole = columns != NULL;
    for (i = 0; i < plan->feature_count && is_whole; i++) {
        columns[i].values = values[i];
        columns[i].width = hr_history_width(&plan->features[i]);
        columns[i].nulls = calloc(count + 1, 1);
        is_whole = columns[i].nulls != NULL;
    }
    if (is_whole) return columns;
    for (i = 0; i < plan->feature_count && columns != NULL; i++) free(columns[i].nulls);
    free(columns);
    return NULL;
}

static inline void hr_history_columns_free(const hr_window_plan *plan, hr_history_column *columns)
{
    uint32_t i;
    for (i = 0; i < plan->feature_count && columns != NULL; i++) {
        free(columns[i].nulls);
        free(columns[i].heap.at);
    }
    free(columns);
}

/* What a worker has of its own. */
static inline void hr_history_release(hr_history *worker)
{
    uint32_t i;
    for (i = 0; worker->columns != NULL && i < worker->plan->feature_count; i++) {
        free(worker->columns[i].heap.at);
        free(worker->columns[i].held);
        free(worker->columns[i].held_nulls);
    }
    free(worker->columns);
    free(worker->tiled);
    free(worker->values);
    free(worker->ranks);
    free(worker->queue);
    free(worker->seen);
    free(worker->seen_latest);
    free(worker->edges);
    if (worker->writer.plan != NULL) hr_writer_close(&worker->writer);
    if (worker->fold.plan != NULL) hr_fold_close(&worker->fold);
}

/* A worker on the sorted events and the columns of `history`, which outlives it. */
static inline int hr_history_join(hr_history *worker, const hr_history *history)
{
    const hr_window_plan *plan = history->plan;
    uint32_t i;
    int status;
    memset(worker, 0, sizeof(*worker));
    worker->plan = plan, worker->events = history->events, worker->input_count = history->input_count;
    worker->sorted = history->sorted, worker->reads = history->reads;
    worker->tiled = calloc((size_t)plan->ladder_count + 1, 1);
    worker->columns = calloc((size_t)plan->feature_count + 1, sizeof(*worker->columns));
    if (worker->tiled == NULL || worker->columns == NULL) return HR_WINDOW_NO_MEMORY;
    for (i = 0; i < plan->feature_count; i++) {
        worker->columns[i].values = history->columns[i].values;
        worker->columns[i].nulls = history->columns[i].nulls;
        worker->columns[i].width = history->columns[i].width;
    }
    status = hr_writer_open(&worker->writer, plan);
    return status == HR_WINDOW_OK ? hr_fold_open(&worker->fold, plan) : status;
}

static inline void hr_history_close(hr_history *history)
{
    if (history->plan != NULL) hr_history_columns_free(history->plan, history->columns);
    hr_sorted_close(&history->sorted);
    hr_sorted_close(&history->reads);
    memset(history, 0, sizeof(*history));
}

typedef struct {
    hr_window_sorted *sorted;
    const hr_window_events *events;
    int status;
} hr_history_sorting;

static inline void *hr_history_sort(void *given)
{
    hr_history_sorting *sorting = given;
    sorting->status = hr_sorted_open(sorting->sorted, sorting->events);
    return NULL;
}

/* `reads` has the group and time of every read; values[f] has room for as many values of feature f, and outlives the
 * history. The caller closes it, also after a failure. */
static inline int hr_history_open(
    hr_history *history, const hr_window_plan *plan, const hr_window_events *events, const hr_window_events *reads,
    uint32_t input_count, uint32_t thread_count, uint8_t **values)
{
    hr_history_sorting first = {&history->sorted, events, HR_WINDOW_OK}, second = {&history->reads, reads, HR_WINDOW_OK};
    pthread_t thread;
    int is_started;
    memset(history, 0, sizeof(*history));
    history->plan = plan, history->events = events, history->input_count = input_count;
    is_started = thread_count > 1 && pthread_create(&thread, NULL, hr_history_sort, &second) == 0;
    hr_history_sort(&first);
    if (is_started) pthread_join(thread, NULL);
    else hr_history_sort(&second);
    if (first.status != HR_WINDOW_OK || second.status != HR_WINDOW_OK)
        return first.status != HR_WINDOW_OK ? first.status : second.status;
    history->columns = hr_history_columns(plan, values, (size_t)reads->count);
    return history->columns == NULL ? HR_WINDOW_NO_MEMORY : HR_WINDOW_OK;
}

/* ---- groups ---- */

static inline int hr_history_gather(hr_history *history, uint32_t first, uint32_t count)
{
    size_t needed = (size_t)count * history->input_count;
    uint32_t c, i, s;
    uint8_t scalar;
    if (needed > history->value_capacity) {
        free(history->values);
        free(history->ranks);
        history->values = malloc(needed * sizeof(hr_value));
        history->ranks = malloc(needed * sizeof(int64_t));
        history->value_capacity = history->values != NULL && history->ranks != NULL ? needed : 0;
    }
    if (count > history->queue_capacity) {
        free(history->queue);
        free(history->seen);
        free(history->seen_latest);
        history->queue = malloc(count * sizeof(uint32_t));
        history->seen = malloc(count * sizeof(int64_t));
        history->seen_latest = malloc(count * sizeof(int64_t));
        history->queue_capacity =
            history->queue != NULL && history->seen != NULL && history->seen_latest != NULL ? count : 0;
    }
    if (needed > history->value_capacity || count > history->queue_capacity) return HR_WINDOW_NO_MEMORY;
    history->count = count;
    history->rows = history->sorted.rows + first, history->times = history->sorted.times + first;
    for (i = 0; i < count; i++) {
        int64_t event = history->times[i];
        int64_t available = history->events->available_us != NULL ? history->events->available_us[history->rows[i]] : event;
        history->seen[i] = hr_later(event, available);
        history->seen_latest[i] = i > 0 ? hr_later(history->seen_latest[i - 1], history->seen[i]) : history->seen[i];
    }
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

/* Room for what is held of the reads of a group. */
static inline int hr_history_room(hr_history *history, uint32_t count)
{
    uint32_t f;
    if (count <= history->read_capacity) return HR_WINDOW_OK;
    history->read_capacity = 0;
    free(history->edges);
    history->edges = malloc(count * sizeof(*history->edges));
    if (history->edges == NULL) return HR_WINDOW_NO_MEMORY;
    for (f = 0; f < history->plan->feature_count; f++) {
        hr_history_column *column = &history->columns[f];
        free(column->held);
        free(column->held_nulls);
        column->held = malloc((size_t)count * column->width), column->held_nulls = malloc(count);
        if (column->held == NULL || column->held_nulls == NULL) return HR_WINDOW_NO_MEMORY;
    }
    history->read_capacity = count;
    return HR_WINDOW_OK;
}

/* Which events the window of each read holds. */
static inline void hr_history_edges(
    hr_history *history, const hr_window_span *span, uint32_t first_read, uint32_t count)
{
    const int64_t *times = history->times;
    uint32_t i, low = 0, high = 0, known = 0;
    int64_t start = 0, next = INT64_MIN;
    for (i = 0; i < count; i++) {
        int64_t read_us = history->reads.times[first_read + i];
        if (read_us >= next) {  /* the start moves by whole hops: most reads share that of the one before */
            start = hr_window_start(span, read_us);
            next = start + span->window_us + span->hop_us;
        }
        while (high < history->count && times[high] <= read_us) high++;
        while (low < high && times[low] <= start) low++;
        while (known < high && history->seen_latest[known] <= read_us) known++;
        history->edges[i] = (hr_history_edge){low, high, known};
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

static inline int hr_history_span(hr_history *history, const hr_window_span *span, uint32_t first_read, uint32_t count)
{
    const hr_window_plan *plan = history->plan;
    uint32_t u = span->first_use, end = span->first_use + span->use_count;
    int status = HR_WINDOW_OK;
    hr_history_edges(history, span, first_read, count);
    if (span->gap_us > 0) hr_history_sessions(history, span, first_read, count);
    while (u < end && status == HR_WINDOW_OK) {
        uint32_t n = plan->features[plan->uses[u]].state;
        hr_history_walk walk;
        memset(&walk, 0, sizeof(walk));
        walk.history = history, walk.span = span, walk.n = n;
        walk.planned = &plan->states[n];
        /* The writer has states of its own, so that these are free while tiles are made. */
        walk.state = &history->fold.states[n];
        walk.first_use = u;
        walk.head = walk.fed = UINT32_MAX;
        while (u < end && plan->features[plan->uses[u]].state == n) u++;
        walk.end_use = u;
        status = hr_walk_run(&walk, first_read, count);
    }
    return status;
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

/* Brings what is held of a group to the places of its reads. */
static inline void hr_history_place(hr_history_column *column, const uint32_t *rows, uint32_t count)
{
    uint32_t i;
    if (column->width == 8) hr_history_scatter(column->values, column->held, rows, count, 8);
    else if (column->width == 4) hr_history_scatter(column->values, column->held, rows, count, 4);
    else hr_history_scatter(column->values, column->held, rows, count, 1);
    for (i = 0; i < count; i++) {
        if (column->held_nulls[i] == 0) continue;
        column->nulls[rows[i]] = 1;
        column->null_count++;
    }
}

static inline int hr_history_group(hr_history *history, int64_t g)
{
    const hr_window_plan *plan = history->plan;
    uint32_t first = history->sorted.firsts[g], first_read = history->reads.firsts[g], s, f;
    uint32_t read_count = history->reads.firsts[g + 1] - first_read;
    int status = hr_history_room(history, read_count);
    if (read_count == 0 || status != HR_WINDOW_OK) return status;
    hr_writer_start(&history->writer);
    memset(history->tiled, 0, plan->ladder_count);
    status = hr_history_gather(history, first, history->sorted.firsts[g + 1] - first);
    for (s = 0; s < plan->span_count && status == HR_WINDOW_OK; s++)
        status = hr_history_span(history, &plan->spans[s], first_read, read_count);
    for (f = 0; f < plan->feature_count && status == HR_WINDOW_OK; f++)
        hr_history_place(&history->columns[f], history->reads.rows + first_read, read_count);
    return status;
}

/* ---- threads ---- */

/* One thread's share: groups [first, end). */
typedef struct {
    hr_history worker;
    int64_t first, end;
    int status, is_started;
    pthread_t thread;
} hr_history_share;

static inline void *hr_history_work(void *given)
{
    hr_history_share *share = given;
    int64_t g;
    for (g = share->first; g < share->end && share->status == HR_WINDOW_OK; g++)
        share->status = hr_history_group(&share->worker, g);
    return NULL;
}

/* Takes over the heaps and counts of a share. */
static inline int hr_history_take(hr_history *history, const hr_history_share *share)
{
    const hr_window_plan *plan = history->plan;
    uint32_t f, i, j;
    for (f = 0; f < plan->feature_count; f++) {
        hr_history_column *column = &history->columns[f];
        const hr_history_column *from = &share->worker.columns[f];
        size_t base = column->heap.length;
        column->null_count += from->null_count;
        for (j = 0; j < HR_LOST_CAUSES; j++) column->losses[j] += from->losses[j];
        if (from->heap.length == 0) continue;
        if (base + from->heap.length > UINT32_MAX) return HR_WINDOW_TOO_LARGE;
        if (hr_bytes_reserve(&column->heap, from->heap.length) != HR_WINDOW_OK) return HR_WINDOW_NO_MEMORY;
        memcpy(column->heap.at + base, from->heap.at, from->heap.length);
        column->heap.length += from->heap.length;
        for (i = history->reads.firsts[share->first]; i < history->reads.firsts[share->end] && base > 0; i++) {
            uint8_t *at = column->values + 8 * (size_t)history->reads.rows[i];
            hr_store_u32(at, hr_load_u32(at) + (uint32_t)base);
        }
    }
    return HR_WINDOW_OK;
}

/* Fills history->columns by up to `thread_count` threads, the calling one among them. */
static inline int hr_history_run(hr_history *history, uint32_t thread_count)
{
    hr_history_share *shares = calloc(thread_count, sizeof(*shares));
    int64_t groups = history->events->group_count, g = 0;
    uint64_t work = 0, total = (uint64_t)history->sorted.firsts[groups] + history->reads.firsts[groups];
    uint32_t t;
    int status = shares == NULL ? HR_WINDOW_NO_MEMORY : HR_WINDOW_OK;
    for (t = 0; t < thread_count && status == HR_WINDOW_OK; t++) {
        hr_history_share *share = &shares[t];
        status = hr_history_join(&share->worker, history);
        share->first = g;
        for (; g < groups && (t + 1 == thread_count || work < total / thread_count * (t + 1)); g++)
            work = (uint64_t)history->sorted.firsts[g + 1] + history->reads.firsts[g + 1];
        share->end = g;
    }
    for (t = 1; t < thread_count && status == HR_WINDOW_OK; t++)
        shares[t].is_started = pthread_create(&shares[t].thread, NULL, hr_history_work, &shares[t]) == 0;
    for (t = 0; t < thread_count && status == HR_WINDOW_OK; t++)
        if (!shares[t].is_started) hr_history_work(&shares[t]);
    for (t = 0; t < thread_count && shares != NULL; t++) {
        if (shares[t].is_started) pthread_join(shares[t].thread, NULL);
        if (status == HR_WINDOW_OK) status = shares[t].status;
        if (status == HR_WINDOW_OK) status = hr_history_take(history, &shares[t]);
        if (shares[t].worker.plan != NULL) hr_history_release(&shares[t].worker);
    }
    free(shares);
    return status;
}

/* ---- folded maps as columns ---- */

/* Puts the values of a fold into row r of the columns, which have room for it. */
static inline int hr_history_keep(hr_history_column *columns, const hr_window_fold *fold, size_t r)
{
    uint32_t f;
    for (f = 0; f < fold->plan->feature_count; f++) {
        hr_history_column *column = &columns[f];
        const hr_window_feature *feature = &fold->plan->features[f];
        const hr_window_value *value = &fold->values[f];
        uint8_t *to = column->values + r * column->width;
        hr_value plain = hr_value_whole(value->i);  /* the bits of a float as well */
        column->nulls[r] = value->is_null;
        column->null_count += value->is_null;
        column->losses[value->lost] += value->lost != 0;
        if (value->is_null) {
            memset(to, 0, column->width);
        } else if (!feature->is_list && !hr_scalar_is_text(feature->scalar)) {
            hr_scalar_store(feature->scalar, &plain, to);
        } else {
            if (column->heap.length > UINT32_MAX - value->heap.length) return HR_WINDOW_TOO_LARGE;
            if (hr_bytes_reserve(&column->heap, value->heap.length) != HR_WINDOW_OK) return HR_WINDOW_NO_MEMORY;
            hr_store_u32(to, (uint32_t)column->heap.length);
            hr_store_u32(to + 4, value->heap.length);
            if (value->heap.length > 0)
                memcpy(column->heap.at + column->heap.length, fold->heap.at + value->heap.start, value->heap.length);
            column->heap.length += value->heap.length;
        }
    }
    return HR_WINDOW_OK;
}

#endif
