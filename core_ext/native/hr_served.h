/* A sample of the answered reads, on its way from the threads that answer to the one that writes it down.
 *
 * A record is copied outside of the lock, into memory that was counted first; what does not fit into the bound is
 * dropped and counted. A read never waits for more than a few pointers.
 *
 * Record, little-endian: u32 row, lookup, group and shard counts; u64 bytes of the keys and of the answer; the 32 bytes
 * of the plan's handle; 16 bytes of a trace id, or zeros; i64 epoch and applied offset per shard; i64 event time of the
 * row per group and row; u32 end of the entity key per lookup and row; the keys; the answer. */
#ifndef HR_SERVED_H
#define HR_SERVED_H

#include <pthread.h>
#include <time.h>

#include "hr_answer.h"

#define HR_SERVED_NO_ROW INT64_MIN      /* event time where no row gave the answer */
#define HR_SERVED_UNKNOWN INT64_MAX     /* event time that is not known: of a tombstone, of windows, of no answer */

enum { HR_SERVED_TRACE_BYTES = 16, HR_SERVED_HEAD_BYTES = 80 };

typedef struct hr_served_record {
    struct hr_served_record *next;
    size_t bytes;
    uint8_t data[];
} hr_served_record;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    hr_served_record *first, *last;
    size_t held_bytes, bytes_max;         /* of records that are made or wait */
    uint64_t threshold;                   /* hashes up to it are chosen; 0: none */
    uint64_t sampled, dropped;
    uint32_t shard_count;
    int64_t *applied;                     /* epoch and offset per shard; each is atomic */
    int is_closed;
} hr_served;

/* One read that is being logged; all zero where it is not. */
typedef struct {
    hr_served *served;
    int64_t *applied;                     /* what the shards had applied before its rows were looked up */
    hr_served_record *record;
    uint8_t *answer;
    size_t answer_bytes;
} hr_served_draft;

static inline int hr_served_begin(hr_served *served, uint64_t threshold, size_t bytes_max, uint32_t shard_count)
{
    pthread_condattr_t kind;
    int is_made;
    served->threshold = threshold;
    served->bytes_max = bytes_max;
    served->shard_count = shard_count;
    served->applied = calloc(shard_count, 2 * sizeof(int64_t));
    if (served->applied == NULL) return HR_E_NO_MEMORY;
    for (uint32_t shard = 0; shard < shard_count; shard++) served->applied[2 * shard + 1] = -1;
    pthread_condattr_init(&kind);
    pthread_condattr_setclock(&kind, CLOCK_MONOTONIC);  /* a wall clock that is set back would hold the log up */
    is_made = pthread_mutex_init(&served->lock, NULL) == 0 && pthread_cond_init(&served->changed, &kind) == 0;
    pthread_condattr_destroy(&kind);
    return is_made ? HR_OK : HR_E_NO_MEMORY;
}

static inline void hr_served_free_all(hr_served_record *record)
{
    while (record != NULL) {
        hr_served_record *next = record->next;
        free(record);
        record = next;
    }
}

static inline void hr_served_end(hr_served *served)
{
    if (served->applied == NULL) return;  /* half-built */
    hr_served_free_all(served->first);
    free(served->applied);
    pthread_mutex_destroy(&served->lock);
    pthread_cond_destroy(&served->changed);
}

/* A shard tells how far it is, after the rows are where reads find them. */
static inline void hr_served_mark(hr_served *served, uint32_t shard, int64_t epoch, int64_t offset)
{
    __atomic_store_n(&served->applied[2 * shard], epoch, __ATOMIC_RELAXED);
    __atomic_store_n(&served->applied[2 * shard + 1], offset, __ATOMIC_RELEASE);
}

static inline void hr_served_marks(const hr_served *served, int64_t *out)
{
    for (uint32_t shard = 0; shard < served->shard_count; shard++) {
        out[2 * shard + 1] = __atomic_load_n(&served->applied[2 * shard + 1], __ATOMIC_ACQUIRE);
        out[2 * shard] = __atomic_load_n(&served->applied[2 * shard], __ATOMIC_RELAXED);
    }
}

/* Whether a read is in the sample: decided by its bytes and its time alone, so that a replay decides the same. */
static inline int hr_served_is_chosen(uint64_t threshold, const uint8_t *request, size_t bytes, int64_t read_us)
{
    uint8_t mixed[16];
    if (threshold == 0) return 0;
    hr_store_u64(mixed, hr_xxh3_64(request, bytes));
    hr_store_u64(mixed + 8, (uint64_t)read_us);
    return hr_xxh3_64(mixed, sizeof(mixed)) <= threshold;
}

static inline void hr_served_drop(hr_served *served)
{
    __atomic_fetch_add(&served->dropped, 1, __ATOMIC_RELAXED);
}

/* Before the rows are looked up: chooses, and notes how far the shards are unless that was noted before. */
static inline void hr_served_choose(
    hr_served *served, hr_served_draft *draft, const int64_t *applied, const uint8_t *request, size_t bytes, int64_t read_us)
{
    size_t marks = 2 * sizeof(int64_t);
    memset(draft, 0, sizeof(*draft));
    if (served == NULL || !hr_served_is_chosen(served->threshold, request, bytes, read_us)) return;
    draft->applied = malloc(served->shard_count * marks);
    if (draft->applied == NULL) {
        hr_served_drop(served);
        return;
    }
    draft->served = served;
    if (applied != NULL) memcpy(draft->applied, applied, served->shard_count * marks);
    else hr_served_marks(served, draft->applied);
}

/* Counts bytes of a record in. Returns 0 where they do not fit. */
static inline int hr_served_reserve(hr_served *served, size_t bytes)
{
    int fits;
    pthread_mutex_lock(&served->lock);
    fits = !served->is_closed && bytes <= served->bytes_max && served->held_bytes <= served->bytes_max - bytes;
    if (fits) served->held_bytes += bytes;
    pthread_mutex_unlock(&served->lock);
    return fits;
}

static inline void hr_served_release(hr_served *served, size_t bytes)
{
    pthread_mutex_lock(&served->lock);
    served->held_bytes -= bytes;
    pthread_mutex_unlock(&served->lock);
}

/* Bytes of the entity keys of a read, without the entity ids before them. */
static inline size_t hr_served_key_bytes(const hr_call *call)
{
    size_t total = 0, count = (size_t)call->plan->lookup_count * call->row_count;
    for (size_t i = 0; i < count; i++)
        if (call->prefix_bytes[i] > 0) total += call->prefix_bytes[i] - HR_ENTITY_ID_BYTES;
    return total;
}

static inline int64_t hr_served_event_us(const hr_call *call, uint32_t group, uint32_t row)
{
    size_t place = (size_t)group * call->row_count + row;
    uint8_t status = call->row_status[place];
    if (call->plan->groups[group].computed != NULL) return HR_SERVED_UNKNOWN;
    if (call->rows[place] != NULL) return hr_load_i64(call->rows[place] + HR_ROW_EVENT_TIME);
    return (status & (HR_STATE_MASK | HR_CAUSE_MASK)) == HR_MISSING ? HR_SERVED_NO_ROW : HR_SERVED_UNKNOWN;
}

static inline uint8_t *hr_served_put_keys(const hr_call *call, uint8_t *out)
{
    size_t count = (size_t)call->plan->lookup_count * call->row_count;
    uint8_t *ends = out, *keys = out + 4 * count;
    uint32_t end = 0;
    for (size_t i = 0; i < count; i++) {
        if (call->prefix_bytes[i] > 0) {
            uint32_t bytes = call->prefix_bytes[i] - HR_ENTITY_ID_BYTES;
            memcpy(keys + end, call->prefixes[i] + HR_ENTITY_ID_BYTES, bytes);
            end += bytes;
        }
        hr_store_u32(ends + 4 * i, end);
    }
    return keys + end;
}

/* While the rows may be read: copies everything but the answer. */
static inline void hr_served_note(hr_served_draft *draft, const hr_call *call, const uint8_t *trace_id)
{
    hr_served *served = draft->served;
    const hr_plan *plan = call->plan;
    size_t key_bytes, bytes, marks;
    uint8_t *out;
    if (served == NULL) return;
    marks = (size_t)served->shard_count * 2 * sizeof(int64_t);
    key_bytes = hr_served_key_bytes(call);
    bytes = HR_SERVED_HEAD_BYTES + marks + 8 * (size_t)plan->group_count * call->row_count
          + 4 * (size_t)plan->lookup_count * call->row_count + key_bytes + call->response_bytes;
    if (key_bytes > UINT32_MAX || !hr_served_reserve(served, bytes)) {
        draft->served = NULL;
        hr_served_drop(served);
        return;
    }
    draft->record = malloc(sizeof(hr_served_record) + bytes);
    if (draft->record == NULL) {
        draft->served = NULL;
        hr_served_release(served, bytes);
        hr_served_drop(served);
        return;
    }
    draft->record->next = NULL;
    draft->record->bytes = bytes;
    out = draft->record->data;
    hr_store_u32(out, call->row_count);
    hr_store_u32(out + 4, plan->lookup_count);
    hr_store_u32(out + 8, plan->group_count);
    hr_store_u32(out + 12, served->shard_count);
    hr_store_u64(out + 16, key_bytes);
    hr_store_u64(out + 24, call->response_bytes);
    memcpy(out + 32, plan->handle, HR_HANDLE_BYTES);
    if (trace_id != NULL) memcpy(out + 64, trace_id, HR_SERVED_TRACE_BYTES);
    else memset(out + 64, 0, HR_SERVED_TRACE_BYTES);
    out += HR_SERVED_HEAD_BYTES;
    for (uint32_t i = 0; i < 2 * served->shard_count; i++, out += 8) hr_store_u64(out, (uint64_t)draft->applied[i]);
    for (uint32_t group = 0; group < plan->group_count; group++)
        for (uint32_t row = 0; row < call->row_count; row++, out += 8)
            hr_store_u64(out, (uint64_t)hr_served_event_us(call, group, row));
    draft->answer = hr_served_put_keys(call, out);
    draft->answer_bytes = call->response_bytes;
}

/* Hands the record over, with its answer where there is one; always ends a draft. */
static inline void hr_served_finish(hr_served_draft *draft, const uint8_t *answer)
{
    hr_served *served = draft->served;
    free(draft->applied);
    draft->applied = NULL;
    if (draft->record == NULL) return;
    if (answer == NULL) {
        hr_served_release(served, draft->record->bytes);
        free(draft->record);
    } else {
        memcpy(draft->answer, answer, draft->answer_bytes);
        pthread_mutex_lock(&served->lock);
        served->sampled++;
        if (served->last != NULL) served->last->next = draft->record;
        else served->first = draft->record;
        served->last = draft->record;
        if (served->held_bytes >= served->bytes_max / 2) pthread_cond_signal(&served->changed);
        pthread_mutex_unlock(&served->lock);
    }
    draft->record = NULL;
}

/* Lets records gather for a time, or until half of the bound is taken or the log is closed, and takes all. Reads wake
 * nobody, and who writes has much to do at once. */
static inline hr_served_record *hr_served_take(hr_served *served, int64_t timeout_ns)
{
    hr_served_record *taken;
    struct timespec end;
    int status = 0;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += timeout_ns / 1000000000;
    end.tv_nsec += timeout_ns % 1000000000;
    if (end.tv_nsec >= 1000000000) end.tv_sec++, end.tv_nsec -= 1000000000;
    pthread_mutex_lock(&served->lock);
    while (served->held_bytes < served->bytes_max / 2 && !served->is_closed && status == 0)
        status = pthread_cond_timedwait(&served->changed, &served->lock, &end);
    taken = served->first;
    served->first = served->last = NULL;
    pthread_mutex_unlock(&served->lock);
    return taken;
}

/* Takes no more; who waits goes on. */
static inline void hr_served_close(hr_served *served)
{
    pthread_mutex_lock(&served->lock);
    served->is_closed = 1;
    pthread_cond_broadcast(&served->changed);
    pthread_mutex_unlock(&served->lock);
}

#endif
