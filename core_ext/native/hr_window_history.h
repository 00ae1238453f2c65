/* Values at given instants, straight from the events; groups are shared out among threads. */
#ifndef HR_WINDOW_HISTORY_H
#define HR_WINDOW_HISTORY_H

#include <pthread.h>

#include "hr_window_merge.h"
#include "hr_window_walk.h"

enum { HR_HISTORY_THREADS_MAX = 64 };

/* What a worker has of its own. */
static inline void hr_history_release(hr_history *worker)
{
    uint32_t i;
    for (i = 0; worker->columns != NULL && i < worker->plan->feature_count; i++) free(worker->columns[i].heap.at);
    free(worker->columns);
    free(worker->tiled);
    free(worker->values);
    free(worker->ranks);
    free(worker->queue);
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
    uint32_t i;
    for (i = 0; history->columns != NULL && i < history->plan->feature_count; i++) {
        free(history->columns[i].values);
        free(history->columns[i].nulls);
    }
    if (history->plan != NULL) hr_history_release(history);
    hr_sorted_close(&history->sorted);
    hr_sorted_close(&history->reads);
    memset(history, 0, sizeof(*history));
}

/* `reads` has the group and time of every read. The caller closes it, also after a failure. */
static inline int hr_history_open(
    hr_history *history, const hr_window_plan *plan, const hr_window_events *events, const hr_window_events *reads,
    uint32_t input_count)
{
    uint32_t i;
    int status;
    memset(history, 0, sizeof(*history));
    history->plan = plan, history->events = events, history->input_count = input_count;
    status = hr_sorted_open(&history->sorted, events);
    if (status == HR_WINDOW_OK) status = hr_sorted_open(&history->reads, reads);
    if (status != HR_WINDOW_OK) return status;
    history->columns = calloc((size_t)plan->feature_count + 1, sizeof(*history->columns));
    if (history->columns == NULL) return HR_WINDOW_NO_MEMORY;
    for (i = 0; i < plan->feature_count; i++) {
        hr_history_column *column = &history->columns[i];
        const hr_window_feature *feature = &plan->features[i];
        column->width = feature->is_list || hr_scalar_is_text(feature->scalar) ? 8 : hr_scalar_bytes(feature->scalar);
        column->values = calloc((size_t)reads->count + 1, column->width);
        column->nulls = calloc((size_t)reads->count + 1, 1);
        if (column->values == NULL || column->nulls == NULL) return HR_WINDOW_NO_MEMORY;
    }
    return HR_WINDOW_OK;
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
        history->queue = malloc(count * sizeof(uint32_t));
        history->queue_capacity = history->queue != NULL ? count : 0;
    }
    if (needed > history->value_capacity || count > history->queue_capacity) return HR_WINDOW_NO_MEMORY;
    history->count = count;
    history->rows = history->sorted.rows + first, history->times = history->sorted.times + first;
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

/* Which events the window of each read holds. */
static inline int hr_history_edges(
    hr_history *history, const hr_window_span *span, uint32_t first_read, uint32_t end_read)
{
    const int64_t *times = history->times;
    uint32_t i, low = 0, high = 0, count = end_read - first_read;
    int64_t start = 0, next = INT64_MIN;
    if (count > history->edge_capacity) {
        free(history->edges);
        history->edges = malloc(count * sizeof(*history->edges));
        history->edge_capacity = history->edges != NULL ? count : 0;
        if (history->edges == NULL) return HR_WINDOW_NO_MEMORY;
    }
    for (i = 0; i < count; i++) {
        int64_t read_us = history->reads.times[first_read + i];
        if (read_us >= next) {  /* the start moves by whole hops: most reads share that of the one before */
            start = hr_window_start(span, read_us);
            next = start + span->window_us + span->hop_us;
        }
        while (high < history->count && times[high] <= read_us) high++;
        while (low < high && times[low] <= start) low++;
        history->edges[i] = (hr_history_edge){low, high};
    }
    return HR_WINDOW_OK;
}

static inline int hr_history_span(hr_history *history, const hr_window_span *span, uint32_t first_read, uint32_t end_read)
{
    const hr_window_plan *plan = history->plan;
    uint32_t u = span->first_use, end = span->first_use + span->use_count;
    int status = hr_history_edges(history, span, first_read, end_read);
    while (u < end && status == HR_WINDOW_OK) {
        uint32_t n = plan->features[plan->uses[u]].state;
        hr_history_walk walk;
        memset(&walk, 0, sizeof(walk));
        walk.history = history, walk.span = span, walk.n = n;
        walk.planned = &plan->states[n];
        /* The writer has states of its own, so that these are free while tiles are made. */
        walk.state = &history->fold.states[n];
        walk.first_use = u;
        walk.head = UINT32_MAX;
        while (u < end && plan->features[plan->uses[u]].state == n) u++;
        walk.end_use = u;
        status = hr_walk_run(&walk, first_read, end_read);
    }
    return status;
}

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
    hr_history *worker = &share->worker;
    const hr_window_plan *plan = worker->plan;
    int64_t g;
    uint32_t s;
    for (g = share->first; g < share->end && share->status == HR_WINDOW_OK; g++) {
        uint32_t first = worker->sorted.firsts[g], first_read = worker->reads.firsts[g];
        uint32_t end_read = worker->reads.firsts[g + 1];
        if (first_read == end_read) continue;
        hr_writer_start(&worker->writer);
        memset(worker->tiled, 0, plan->ladder_count);
        share->status = hr_history_gather(worker, first, worker->sorted.firsts[g + 1] - first);
        for (s = 0; s < plan->span_count && share->status == HR_WINDOW_OK; s++)
            share->status = hr_history_span(worker, &plan->spans[s], first_read, end_read);
    }
    return NULL;
}

/* Takes over the heaps and counts of a share, whose reads lie together. */
static inline int hr_history_take(hr_history *history, const hr_history_share *share)
{
    const hr_window_plan *plan = history->plan;
    uint32_t f, i, j;
    for (f = 0; f < plan->feature_count; f++) {
        hr_history_column *column = &history->columns[f];
        const hr_history_column *from = &share->worker.columns[f];
        size_t base = column->heap.length;
        for (j = 0; j < HR_LOST_CAUSES; j++) column->losses[j] += from->losses[j];
        if (from->heap.length == 0) continue;
        if (base + from->heap.length > UINT32_MAX) return HR_WINDOW_TOO_LARGE;
        if (hr_bytes_reserve(&column->heap, from->heap.length) != HR_WINDOW_OK) return HR_WINDOW_NO_MEMORY;
        memcpy(column->heap.at + base, from->heap.at, from->heap.length);
        column->heap.length += from->heap.length;
        for (i = history->reads.firsts[share->first]; i < history->reads.firsts[share->end] && base > 0; i++) {
            uint8_t *at = column->values + 8 * (size_t)i;
            hr_store_u32(at, hr_load_u32(at) + (uint32_t)base);
        }
    }
    return HR_WINDOW_OK;
}

/* Brings a column from the order of the sorted reads, of which read r is places[r], into that of the reads. */
static inline int hr_history_place(hr_history_column *column, const uint32_t *places, size_t count)
{
    uint8_t *values = malloc((count + 1) * column->width), *nulls = malloc(count + 1);
    size_t r;
    if (values == NULL || nulls == NULL) {
        free(values);
        free(nulls);
        return HR_WINDOW_NO_MEMORY;
    }
    if (column->width == 8)
        for (r = 0; r < count; r++) memcpy(values + 8 * r, column->values + 8 * (size_t)places[r], 8);
    else if (column->width == 4)
        for (r = 0; r < count; r++) memcpy(values + 4 * r, column->values + 4 * (size_t)places[r], 4);
    else
        for (r = 0; r < count; r++) values[r] = column->values[places[r]];
    for (r = 0; r < count; r++) nulls[r] = column->nulls[places[r]];
    free(column->values);
    free(column->nulls);
    column->values = values, column->nulls = nulls;
    return HR_WINDOW_OK;
}

static inline int hr_history_finish(hr_history *history, size_t count)
{
    uint32_t f, *places = history->reads.spare_rows;  /* sorting is over */
    size_t i;
    int is_sorted = 1, status = HR_WINDOW_OK;
    for (i = 0; i < count; i++) {
        places[history->reads.rows[i]] = (uint32_t)i;
        is_sorted &= history->reads.rows[i] == i;
    }
    for (f = 0; f < history->plan->feature_count && !is_sorted && status == HR_WINDOW_OK; f++)
        status = hr_history_place(&history->columns[f], places, count);
    return status;
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
    return status == HR_WINDOW_OK ? hr_history_finish(history, history->reads.firsts[groups]) : status;
}

#endif
