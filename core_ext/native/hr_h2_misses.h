/* Reads that the loop cannot answer, on their way to threads that hold the interpreter, and back.
 *
 * A job belongs to the queue, then to the worker that took it, or to whom that gives it, then to its loop, which frees
 * it. It is open from when it is taken to when it is posted, by any thread. `stream` is the loop's alone: it is NULL
 * once the stream is gone. `is_cancelled` tells a worker that nobody waits any more. */
#ifndef HR_H2_MISSES_H
#define HR_H2_MISSES_H

#include <unistd.h>

#include "hr_h2_memory.h"

typedef enum { HR_PUSHED, HR_FULL, HR_NO_WORKERS } hr_push;

static inline int hr_misses_begin(hr_misses *misses)
{
    return pthread_mutex_init(&misses->lock, NULL) != 0 || pthread_cond_init(&misses->changed, NULL) != 0
        || pthread_cond_init(&misses->gone, NULL) != 0;
}

static inline void hr_job_free(hr_job *job)
{
    if (job->counted_bytes > 0) hr_release_answer(job->loop->server, job->counted_bytes);
    free(job->answer);
    free(job);
}

/* A job with copies of what it needs, as its stream may end before it. */
static inline hr_job *hr_job_new(hr_stream *stream, hr_span message, hr_span authorization, int is_alone)
{
    size_t request_bytes = hr_span_bytes(message), authorization_bytes = hr_span_bytes(authorization);
    hr_job *job = malloc(sizeof(*job) + request_bytes + authorization_bytes);
    if (job == NULL) return NULL;
    memset(job, 0, sizeof(*job));
    job->loop = stream->connection->loop;
    job->stream = stream;
    job->is_alone = is_alone;
    job->begin_ns = hr_now_ns();
    job->deadline_ns = stream->timeout_ns > 0 ? stream->begin_ns + stream->timeout_ns : 0;
    job->request_bytes = request_bytes;
    job->authorization_bytes = authorization_bytes;
    if (stream->connection->has_identity) {
        job->identity_bytes = sizeof(job->identity);
        memcpy(job->identity, stream->connection->identity, sizeof(job->identity));
    }
    if (request_bytes > 0) memcpy(job->data, message.at, request_bytes);
    if (authorization_bytes > 0) memcpy(job->data + request_bytes, authorization.at, authorization_bytes);
    return job;
}

/* With the lock held: wakes one sleeper unless one is on its way. It takes its share when it has the interpreter, with
 * all that came meanwhile, and wakes the next. */
static inline void hr_misses_signal(hr_misses *misses)
{
    if (misses->count == 0 || misses->idle_count == 0 || misses->is_waking) return;
    misses->is_waking = 1;
    pthread_cond_signal(&misses->changed);
}

static inline hr_push hr_misses_push(hr_misses *misses, hr_job *job)
{
    hr_push pushed = HR_PUSHED;
    pthread_mutex_lock(&misses->lock);
    if (misses->is_closed || misses->worker_count == 0) pushed = HR_NO_WORKERS;
    else if (misses->count == HR_H2_MISSES_MAX || misses->count + misses->open_count >= HR_H2_OPEN_MAX
             || misses->bytes + job->request_bytes > HR_H2_MISSES_BYTES_MAX)
        pushed = HR_FULL;
    else {
        if (misses->last != NULL) misses->last->next = job;
        else misses->first = job;
        misses->last = job;
        misses->count++;
        misses->bytes += job->request_bytes;
        hr_misses_signal(misses);
    }
    pthread_mutex_unlock(&misses->lock);
    return pushed;
}

/* Counts a worker in. Returns 0 where the queue is closed. */
static inline int hr_misses_join(hr_misses *misses)
{
    int is_open;
    pthread_mutex_lock(&misses->lock);
    is_open = !misses->is_closed;
    misses->worker_count += (uint32_t)is_open;
    pthread_mutex_unlock(&misses->lock);
    return is_open;
}

static inline void hr_misses_leave(hr_misses *misses)
{
    pthread_mutex_lock(&misses->lock);
    misses->worker_count--;
    pthread_cond_broadcast(&misses->gone);
    pthread_mutex_unlock(&misses->lock);
}

/* Waits for a job; call it without the interpreter. Returns 0 once the queue is closed. */
static inline int hr_misses_wait(hr_misses *misses)
{
    int is_open;
    pthread_mutex_lock(&misses->lock);
    while (misses->count == 0 && !misses->is_closed) {
        misses->idle_count++;
        pthread_cond_wait(&misses->changed, &misses->lock);
        misses->idle_count--;
    }
    is_open = !misses->is_closed;
    pthread_mutex_unlock(&misses->lock);
    return is_open;
}

/* Takes this worker's share of what waits, so that the others' reads of the disk run beside its own. They are read
 * together: a job that may sleep for a long time is taken alone, and large ones end the turn. */
static inline uint32_t hr_misses_take(hr_misses *misses, hr_job **jobs)
{
    uint32_t taken = 0, share;
    size_t bytes = 0;
    pthread_mutex_lock(&misses->lock);
    misses->is_waking = 0;
    share = (misses->count + misses->idle_count) / (misses->idle_count + 1);
    if (share > HR_H2_TURN_MAX) share = HR_H2_TURN_MAX;
    while (misses->first != NULL && taken < share) {
        hr_job *job = misses->first;
        if (taken > 0 && (job->is_alone || bytes + job->request_bytes > HR_H2_TURN_BYTES_MAX)) break;
        misses->first = job->next;
        if (misses->first == NULL) misses->last = NULL;
        misses->count--;
        bytes += job->request_bytes;
        job->next = NULL;
        jobs[taken++] = job;
        if (job->is_alone) break;
    }
    misses->open_count += taken;
    hr_misses_signal(misses);
    pthread_mutex_unlock(&misses->lock);
    return taken;
}

/* Lets the workers end and waits until they have, and until every job that they took is posted. What was not begun stays
 * for hr_misses_free. */
static inline void hr_misses_close(hr_misses *misses)
{
    pthread_mutex_lock(&misses->lock);
    misses->is_closed = 1;
    pthread_cond_broadcast(&misses->changed);
    while (misses->worker_count > 0 || misses->open_count > 0) pthread_cond_wait(&misses->gone, &misses->lock);
    pthread_mutex_unlock(&misses->lock);
}

static inline void hr_misses_free(hr_misses *misses)
{
    while (misses->first != NULL) {
        hr_job *job = misses->first;
        misses->first = job->next;
        misses->bytes -= job->request_bytes;
        hr_job_free(job);
    }
    misses->last = NULL;
    misses->count = 0;
}

/* ---- what a worker says ---- */

static inline int hr_job_is_cancelled(const hr_job *job) { return __atomic_load_n(&job->is_cancelled, __ATOMIC_RELAXED); }

/* Gives the job its refusal: a status code, its sentence and its details as they stand in trailers. */
static inline int hr_job_refuse(hr_job *job, uint32_t code, const char *message, const char *details)
{
    size_t message_bytes = strlen(message) + 1, details_bytes = strlen(details) + 1;
    job->answer = malloc(message_bytes + details_bytes);
    if (job->answer == NULL) return HR_E_NO_MEMORY;
    memcpy(job->answer, message, message_bytes);
    memcpy(job->answer + message_bytes, details, details_bytes);
    job->code = code;
    job->details_at = message_bytes;
    return HR_OK;
}

/* Gives the job its answer, a copy, or a refusal where connections hold too much. */
static inline int hr_job_answer(hr_job *job, const uint8_t *message, size_t bytes)
{
    hr_server *server = job->loop->server;
    job->is_over = !hr_hold_answer(server, bytes + HR_GRPC_PREFIX_BYTES);
    if (job->is_over)
        return hr_job_refuse(job, HR_GRPC_EXHAUSTED, server->memory_message, server->memory_details);
    job->counted_bytes = bytes + HR_GRPC_PREFIX_BYTES;
    job->answer = malloc(bytes + HR_GRPC_PREFIX_BYTES);
    if (job->answer == NULL) return HR_E_NO_MEMORY;
    job->answer[0] = 0;
    hr_store_u32_be(job->answer + 1, (uint32_t)bytes);
    memcpy(job->answer + HR_GRPC_PREFIX_BYTES, message, bytes);
    job->answer_bytes = bytes + HR_GRPC_PREFIX_BYTES;
    return HR_OK;
}

static inline void hr_wake(hr_loop *loop)
{
    uint64_t one = 1;
    ssize_t ignored = write(loop->event, &one, sizeof(one));
    (void)ignored;  /* a full counter wakes as well */
}

/* Gives a job back to its loop, answered or not. The loop may free it at once, and may itself be gone as soon as the job
 * is no longer open. */
static inline void hr_job_post(hr_job *job)
{
    hr_loop *loop = job->loop;
    hr_misses *misses = &loop->server->misses;
    size_t bytes = job->request_bytes;
    int was_empty;
    pthread_mutex_lock(&loop->lock);
    was_empty = loop->done == NULL;
    job->next = loop->done;
    loop->done = job;
    pthread_mutex_unlock(&loop->lock);
    if (was_empty) hr_wake(loop);
    pthread_mutex_lock(&misses->lock);
    misses->open_count--;
    misses->bytes -= bytes;
    if (misses->is_closed) pthread_cond_broadcast(&misses->gone);
    pthread_mutex_unlock(&misses->lock);
}

#endif
