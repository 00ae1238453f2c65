/* Values at given instants, straight from the events; groups are shared out among threads. */
#ifndef HR_WINDOW_HISTORY_H
#define HR_WINDOW_HISTORY_H

#include <pthread.h>

#include "hr_window_group.h"

enum {
    HR_HISTORY_THREADS_MAX = 64,
    HR_HISTORY_ROWS_MAX = 1 << 28  /* bytes of values held in rows, beside the columns that they become */
};

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
        if (worker->held_rows == NULL) free(worker->columns[i].held);
        free(worker->columns[i].held_nulls);
    }
    for (i = 0; worker->plain != NULL && i < worker->input_count; i++) hr_plain_free(&worker->plain[i]);
    free(worker->columns);
    free(worker->plain);
    free(worker->hops);
    free(worker->tiled);
    free(worker->values);
    free(worker->ranks);
    free(worker->queue);
    free(worker->seen);
    free(worker->seen_latest);
    free(worker->edges);
    free(worker->ranges);
    free(worker->present);
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
    worker->held_rows = history->held_rows, worker->row_bytes = history->row_bytes, worker->places = history->places;
    worker->tiled = calloc((size_t)plan->ladder_count + 1, 1);
    worker->columns = calloc((size_t)plan->feature_count + 1, sizeof(*worker->columns));
    worker->plain = calloc((size_t)history->input_count + 1, sizeof(*worker->plain));
    worker->hops = calloc((size_t)plan->span_count + 1, sizeof(*worker->hops));
    if (worker->tiled == NULL || worker->columns == NULL || worker->plain == NULL || worker->hops == NULL)
        return HR_WINDOW_NO_MEMORY;
    for (i = 0; i < plan->span_count; i++) worker->hops[i] = hr_history_hop_of(&plan->spans[i]);
    for (i = 0; i < plan->feature_count; i++) {
        worker->columns[i].values = history->columns[i].values;
        worker->columns[i].nulls = history->columns[i].nulls;
        worker->columns[i].width = history->columns[i].width;
        worker->columns[i].offset = history->columns[i].offset;
    }
    status = hr_writer_open(&worker->writer, plan);
    return status == HR_WINDOW_OK ? hr_fold_open(&worker->fold, plan) : status;
}

static inline void hr_history_close(hr_history *history)
{
    if (history->plan != NULL) hr_history_columns_free(history->plan, history->columns);
    hr_sorted_close(&history->sorted);
    hr_sorted_close(&history->reads);
    free(history->held_rows);
    free(history->places);
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

/* Room for the values in rows: a read writes few lines of memory at its place then, instead of one per feature. Without
 * it nothing is lost but time. */
static inline void hr_history_widen(hr_history *history, size_t count)
{
    size_t row_bytes = 0;
    uint32_t f;
    for (f = 0; f < history->plan->feature_count; f++) {
        history->columns[f].offset = (uint32_t)row_bytes;
        row_bytes += history->columns[f].width;
    }
    if (row_bytes == 0 || count == 0 || count > HR_HISTORY_ROWS_MAX / row_bytes) return;
    history->row_bytes = row_bytes;
    history->held_rows = hr_huge_allocate(count * row_bytes);
    history->places = hr_huge_allocate(count * sizeof(uint32_t));
    if (history->held_rows != NULL && history->places != NULL) return;
    free(history->held_rows);
    history->held_rows = NULL;
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
    if (history->columns == NULL) return HR_WINDOW_NO_MEMORY;
    hr_history_widen(history, (size_t)reads->count);
    return HR_WINDOW_OK;
}

/* ---- rows to columns ---- */

enum { HR_TURN_ROWS = 64, HR_TURN_AHEAD_BYTES = 256 };  /* at a time; more of a row is fetched as it is read */

/* `width` is a constant wherever this is called. */
static inline void hr_history_turn_column(
    const hr_history_column *column, const uint8_t *const *from, int64_t first, uint32_t count, uint32_t width)
{
    uint8_t *to = column->values + (size_t)first * width;
    uint32_t i;
    for (i = 0; i < count; i++) memcpy(to + (size_t)i * width, from[i] + column->offset, width);
}

/* The values of reads [first, end) to their columns. */
static inline void hr_history_turn(const hr_history *history, int64_t first, int64_t end)
{
    const uint8_t *from[HR_TURN_ROWS];
    size_t near = history->row_bytes < HR_TURN_AHEAD_BYTES ? history->row_bytes : HR_TURN_AHEAD_BYTES, b;
    int64_t ahead = first;
    uint32_t f, i, count;
    for (; first < end; first += count) {
        count = end - first < HR_TURN_ROWS ? (uint32_t)(end - first) : HR_TURN_ROWS;
        for (; ahead < end && ahead < first + 2 * HR_TURN_ROWS; ahead++)
            for (b = 0; b < near; b += 64)
                __builtin_prefetch(history->held_rows + history->places[ahead] * history->row_bytes + b);
        for (i = 0; i < count; i++) from[i] = history->held_rows + history->places[first + i] * history->row_bytes;
        for (f = 0; f < history->plan->feature_count; f++) {
            const hr_history_column *column = &history->columns[f];
            if (column->width == 8) hr_history_turn_column(column, from, first, count, 8);
            else if (column->width == 4) hr_history_turn_column(column, from, first, count, 4);
            else hr_history_turn_column(column, from, first, count, 1);
        }
    }
}

/* ---- threads ---- */

/* One thread's share: groups [first, end), later the columns of reads [first_read, end_read). */
typedef struct {
    hr_history worker;
    int64_t first, end, first_read, end_read;
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

static inline void *hr_history_work_rows(void *given)
{
    const hr_history_share *share = given;
    hr_history_turn(&share->worker, share->first_read, share->end_read);
    return NULL;
}

/* Does the work of every share; the calling thread takes the first, and those that no thread could be made for. */
static inline void hr_history_work_all(hr_history_share *shares, uint32_t thread_count, void *(*work)(void *))
{
    uint32_t t;
    for (t = 1; t < thread_count; t++)
        shares[t].is_started = pthread_create(&shares[t].thread, NULL, work, &shares[t]) == 0;
    for (t = 0; t < thread_count; t++)
        if (!shares[t].is_started) work(&shares[t]);
    for (t = 1; t < thread_count; t++)
        if (shares[t].is_started) pthread_join(shares[t].thread, NULL);
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

/* Cuts the groups into shares of about equal work. */
static inline int hr_history_cut(hr_history_share *shares, uint32_t thread_count, const hr_history *history)
{
    int64_t groups = history->events->group_count, g = 0, reads = history->reads.firsts[groups];
    uint64_t work = 0, total = (uint64_t)history->sorted.firsts[groups] + (uint64_t)reads;
    uint32_t t;
    int status = HR_WINDOW_OK;
    for (t = 0; t < thread_count && status == HR_WINDOW_OK; t++) {
        hr_history_share *share = &shares[t];
        status = hr_history_join(&share->worker, history);
        share->first = g;
        for (; g < groups && (t + 1 == thread_count || work < total / thread_count * (t + 1)); g++)
            work = (uint64_t)history->sorted.firsts[g + 1] + history->reads.firsts[g + 1];
        share->end = g;
        share->first_read = reads * t / thread_count, share->end_read = reads * (t + 1) / thread_count;
    }
    return status;
}

/* Fills history->columns by up to `thread_count` threads, the calling one among them. */
static inline int hr_history_run(hr_history *history, uint32_t thread_count)
{
    hr_history_share *shares = calloc(thread_count, sizeof(*shares));
    uint32_t t;
    int status = shares == NULL ? HR_WINDOW_NO_MEMORY : hr_history_cut(shares, thread_count, history);
    if (status == HR_WINDOW_OK) hr_history_work_all(shares, thread_count, hr_history_work);
    for (t = 0; t < thread_count && status == HR_WINDOW_OK; t++) status = shares[t].status;
    if (status == HR_WINDOW_OK && history->held_rows != NULL)
        hr_history_work_all(shares, thread_count, hr_history_work_rows);
    for (t = 0; t < thread_count && shares != NULL; t++) {
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
