/* Building, starting and stopping a server of several loops. */
#ifndef HR_H2_SERVER_H
#define HR_H2_SERVER_H

#include "hr_h2_loop.h"

/* Newer releases, and older ones with the fix carried back, limit resets at 33/s, which cancelling clients reach. Ours
 * is the limit then. Weak: releases without it have no such function. */
extern void nghttp2_option_set_stream_reset_rate_limit(nghttp2_option *option, uint64_t burst, uint64_t rate)
    __attribute__((weak));

static inline int hr_loop_callbacks(hr_loop *loop)
{
    nghttp2_session_callbacks *front, *back;
    if (nghttp2_session_callbacks_new(&loop->front_callbacks) != 0) return HR_E_NO_MEMORY;
    if (nghttp2_session_callbacks_new(&loop->back_callbacks) != 0) return HR_E_NO_MEMORY;
    if (nghttp2_option_new(&loop->option) != 0) return HR_E_NO_MEMORY;
    front = loop->front_callbacks;
    back = loop->back_callbacks;
    nghttp2_session_callbacks_set_on_begin_headers_callback(front, hr_on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(front, hr_on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(front, hr_on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(front, hr_on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(front, hr_on_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(front, hr_on_sent);
    nghttp2_session_callbacks_set_on_header_callback(back, hr_back_on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(back, hr_back_on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(back, hr_back_on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(back, hr_back_on_close);
    if (nghttp2_option_set_stream_reset_rate_limit != NULL)
        nghttp2_option_set_stream_reset_rate_limit(loop->option, 2 * HR_H2_BUDGET, 2 * HR_H2_BUDGET_PER_S);
    nghttp2_option_set_no_auto_window_update(loop->option, 1);
    nghttp2_option_set_no_closed_streams(loop->option, 1);
    return HR_OK;
}

static inline void hr_loop_free(hr_loop *loop)
{
    if (loop == NULL) return;
    for (uint32_t i = 0; i < loop->inbox_count; i++) close(loop->inbox[i]);
    while (loop->done != NULL) {
        hr_job *job = loop->done;
        loop->done = job->next;
        hr_job_free(job);
    }
    __atomic_sub_fetch(&loop->server->memory_bytes, loop->credit_bytes, __ATOMIC_RELAXED);
    if (loop->epoll >= 0) close(loop->epoll);
    if (loop->event >= 0) close(loop->event);
    nghttp2_session_callbacks_del(loop->front_callbacks);
    nghttp2_session_callbacks_del(loop->back_callbacks);
    nghttp2_option_del(loop->option);
    pthread_mutex_destroy(&loop->lock);
    free(loop->inbox);
    free(loop);
}

static inline hr_loop *hr_loop_new(hr_server *server, int number)
{
    hr_loop *loop = calloc(1, sizeof(*loop));
    struct epoll_event event = {.events = EPOLLIN};
    if (loop == NULL) return NULL;
    loop->server = server;
    loop->number = number;
    pthread_mutex_init(&loop->lock, NULL);
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    loop->inbox = malloc((server->connections_max + 1) * sizeof(int));
    event.data.ptr = &loop->event_source;
    if (loop->epoll < 0 || loop->event < 0 || loop->inbox == NULL || hr_loop_callbacks(loop) != HR_OK
        || epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->event, &event) != 0) {
        hr_loop_free(loop);
        return NULL;
    }
    return loop;
}

/* Builds the loops; on failure hr_server_stop frees what there is. */
static inline int hr_server_build(hr_server *server, uint32_t loop_count)
{
    /* Handshakes that come to no end leave most connections to the others. */
    uint32_t shaking_max = server->connections_max / 4 < HR_TLS_SHAKING_MAX ? server->connections_max / 4 : HR_TLS_SHAKING_MAX;
    if (server->memory_max == 0) server->memory_max = HR_H2_MEMORY_BYTES;
    server->shaking_max = shaking_max / loop_count > 0 ? shaking_max / loop_count : 1;
    for (uint32_t i = 0; i < loop_count; i++) {
        server->loops[i] = hr_loop_new(server, (int)i);
        if (server->loops[i] == NULL) return HR_E_NO_MEMORY;
        server->loop_count++;
    }
    return HR_OK;
}

/* Starts the threads, which leave every signal to the thread that starts them. */
static inline int hr_server_start(hr_server *server)
{
    sigset_t all, before;
    int status = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (uint32_t i = 0; i < server->loop_count && status == 0; i++) {
        status = pthread_create(&server->loops[i]->thread, NULL, hr_loop_run, server->loops[i]);
        server->loops[i]->is_started = status == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

/* Says goodbye to the clients and accepts no more; streams that run go on. */
static inline void hr_server_drain(hr_server *server)
{
    __atomic_store_n(&server->draining, 1, __ATOMIC_RELEASE);
    hr_lock_shared(&server->access_lock);
    for (uint32_t i = 0; i < server->loop_count; i++) hr_wake(server->loops[i]);
    hr_unlock_shared(&server->access_lock);
}

/* To whom the loops grant a permission from now on; takes `digests` over. */
static inline void hr_server_set_access(
    hr_server *server, hr_credential credential, hr_permission permission, int is_open, uint8_t (*digests)[32],
    uint32_t count)
{
    uint8_t (*old)[32];
    hr_lock_alone(&server->access_lock);
    old = server->access[credential][permission].digests;
    server->access[credential][permission] = (hr_access){is_open, count, digests};
    server->access_generation++;
    hr_unlock_alone(&server->access_lock);
    free(old);
}

/* Connections to come speak TLS by this context, which it takes over; those that are open keep theirs. The first time
 * is before the start. */
static inline int hr_server_set_tls(hr_server *server, SSL_CTX *context)
{
    SSL_CTX *old = context;
    int status = HR_E_NO_MEMORY;
    hr_lock_alone(&server->access_lock);
    if (server->bio_method == NULL) server->bio_method = hr_bio_method();
    if (server->bio_method != NULL) {
        old = server->tls;
        server->tls = context;
        status = HR_OK;
    }
    hr_unlock_alone(&server->access_lock);
    SSL_CTX_free(old);
    return status;
}

/* Notes the state of a part. Returns 0 where there is no room: it is then the server behind that tells it. */
static inline int hr_server_set_health(hr_server *server, const char *name, uint32_t name_bytes, uint8_t state)
{
    uint32_t at = 0;
    if (name_bytes > HR_HEALTH_NAME_BYTES_MAX) return 0;
    hr_lock_alone(&server->access_lock);
    if (server->healths == NULL) server->healths = calloc(HR_HEALTH_NAMES_MAX, sizeof(hr_health));
    if (server->healths == NULL) {
        hr_unlock_alone(&server->access_lock);
        return 0;
    }
    while (at < server->health_count
           && (server->healths[at].name_bytes != name_bytes || memcmp(server->healths[at].name, name, name_bytes) != 0))
        at++;
    if (at < HR_HEALTH_NAMES_MAX) {
        memcpy(server->healths[at].name, name, name_bytes);
        server->healths[at].name_bytes = name_bytes;
        server->healths[at].state = state;
        if (at == server->health_count) server->health_count++;
    }
    hr_unlock_alone(&server->access_lock);
    return at < HR_HEALTH_NAMES_MAX;
}

static inline void hr_sum_counts(const hr_server *server, hr_counts *total)
{
    *total = server->ended;
    for (uint32_t i = 0; i < server->loop_count; i++) {
        const uint64_t *from = (const uint64_t *)&server->loops[i]->counts;
        for (size_t at = 0; at < sizeof(*total) / sizeof(uint64_t); at++)
            ((uint64_t *)total)[at] += __atomic_load_n(&from[at], __ATOMIC_RELAXED);
    }
}

/* Others may look while the server ends: the lock keeps its loops. */
static inline void hr_server_counts(hr_server *server, hr_counts *total)
{
    hr_lock_shared(&server->access_lock);
    hr_sum_counts(server, total);
    hr_unlock_shared(&server->access_lock);
}

/* Streams that are open now. */
static inline uint32_t hr_server_streams(hr_server *server)
{
    uint32_t count = 0;
    hr_lock_shared(&server->access_lock);
    for (uint32_t i = 0; i < server->loop_count; i++)
        count += __atomic_load_n(&server->loops[i]->stream_count, __ATOMIC_RELAXED);
    hr_unlock_shared(&server->access_lock);
    return count;
}

/* Ends the threads, after the workers, and closes every connection. May be called twice. */
static inline void hr_server_stop(hr_server *server)
{
    hr_misses_close(&server->misses);
    __atomic_store_n(&server->stopping, 1, __ATOMIC_RELEASE);
    for (uint32_t i = 0; i < server->loop_count; i++) hr_wake(server->loops[i]);
    for (uint32_t i = 0; i < server->loop_count; i++)
        if (server->loops[i]->is_started) pthread_join(server->loops[i]->thread, NULL);
    hr_lock_alone(&server->access_lock);  /* who looks, grants or tells health may not know of the end */
    hr_sum_counts(server, &server->ended);
    for (uint32_t i = 0; i < server->loop_count; i++) hr_loop_free(server->loops[i]);
    server->loop_count = 0;
    hr_misses_free(&server->misses);
    for (int credential = 0; credential < HR_CREDENTIALS; credential++)
        for (int permission = 0; permission < HR_PERMISSIONS; permission++) {
            free(server->access[credential][permission].digests);
            server->access[credential][permission] = (hr_access){0, 0, NULL};
        }
    SSL_CTX_free(server->tls);
    BIO_meth_free(server->bio_method);
    server->tls = NULL;
    server->bio_method = NULL;
    free(server->healths);
    server->healths = NULL;
    server->health_count = 0;
    hr_unlock_alone(&server->access_lock);
}

#endif
