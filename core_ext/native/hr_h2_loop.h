/* The loop's threads: sockets, time limits, accepting, draining. */
#ifndef HR_H2_LOOP_H
#define HR_H2_LOOP_H

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/eventfd.h>

#include "hr_h2_front.h"

enum { HR_H2_ACCEPTS_MAX = 64 };  /* of one wake, before others get their turn */

/* ---- sockets ---- */

/* Sends on both sides until neither gave the other more to send; closes what is done or lost. */
static inline void hr_settle(hr_connection *connection)
{
    hr_loop *loop = connection->loop;
    if (connection->is_dead) return;
    for (int round = 0; round < 4; round++) {
        if (hr_pump(loop, &connection->front_source, connection->front, &connection->front_out) != HR_OK) {
            hr_close(connection);
            return;
        }
        if (connection->back == NULL) break;
        if (hr_pump(loop, &connection->back_source, connection->back, &connection->back_out) != HR_OK)
            hr_back_lost(connection);
        if (!nghttp2_session_want_write(connection->front)) break;
        if (connection->front_source.is_writing) break;
    }
    if (connection->is_closing) {
        hr_close(connection);
        return;
    }
    hr_hold_wire(connection);
    if (hr_buffer_bytes(&connection->front_out) == 0 && hr_buffer_bytes(&connection->sealed) == 0
        && !nghttp2_session_want_read(connection->front) && !nghttp2_session_want_write(connection->front))
        hr_close(connection);
}

/* Reads a socket into its session. Returns 0 where the peer is gone or speaks no HTTP/2 any more. */
static inline int hr_receive(hr_loop *loop, hr_source *source, nghttp2_session *session)
{
    hr_connection *connection = source->connection;
    for (int round = 0; round < HR_H2_RECEIVES_MAX; round++) {
        ssize_t bytes = recv(source->fd, loop->scratch, sizeof(loop->scratch), MSG_DONTWAIT);
        if (bytes < 0 && errno == EINTR) continue;
        if (bytes < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
        if (bytes == 0) return 0;
        if (!source->is_back) {
            connection->received_ns = loop->now_ns;
            if (connection->header_ns == 0) connection->header_ns = loop->now_ns;  /* a whole frame clears it */
        }
        if (!source->is_back && connection->tls != NULL) {
            if (!hr_tls_receive(connection, loop->scratch, (size_t)bytes)) return 0;
        } else if (nghttp2_session_mem_recv(session, loop->scratch, (size_t)bytes) < 0) return 0;
        if (!source->is_back && connection->is_closing) return 1;
        if ((size_t)bytes < sizeof(loop->scratch)) return 1;
    }
    return 1;
}

static inline void hr_on_event(hr_loop *loop, hr_source *source, uint32_t events)
{
    hr_connection *connection = source->connection;
    uint64_t answered = loop->counts.features.answered;
    if (connection->is_dead) return;
    /* Others get their turn between handshakes; the socket tells us of this one again. */
    if (!source->is_back && connection->is_shaking && loop->shakes_left-- == 0) {
        loop->shakes_left = 0;
        return;
    }
    if (source->is_back) {
        if (connection->back == NULL) return;
        if ((events & ~EPOLLOUT) && !hr_receive(loop, source, connection->back)) hr_back_lost(connection);
    } else if ((events & ~EPOLLOUT) && !hr_receive(loop, source, connection->front)) {
        /* What nghttp2 has to say about the end, a GOAWAY, goes out if the socket takes it. */
        hr_pump(loop, source, connection->front, &connection->front_out);
        hr_close(connection);
        return;
    }
    hr_settle(connection);
    answered = loop->counts.features.answered - answered;
    if (answered > 0) hr_count_answers(&loop->counts.turns, hr_now_ns() - loop->now_ns, answered);
    hr_make_room(loop, NULL, 0);  /* what came from either side is counted whether there was room or not */
}

/* ---- connections ---- */

static inline void hr_open(hr_loop *loop, int fd)
{
    hr_connection *connection = calloc(1, sizeof(*connection));
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, HR_H2_STREAMS_MAX},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HR_H2_FRONT_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HR_H2_METADATA_BYTES_MAX},
    };
    struct epoll_event event = {.events = EPOLLIN};
    int on = 1;
    if (connection != NULL) connection->loop = loop;
    if (connection == NULL || hr_tls_begin(connection) != HR_OK
        || nghttp2_session_server_new2(&connection->front, loop->front_callbacks, connection, loop->option)) {
        if (connection != NULL && connection->tls != NULL) hr_tls_free(connection);
        free(connection);
        close(fd);
        __atomic_sub_fetch(&loop->server->connection_count, 1, __ATOMIC_RELAXED);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    connection->front_source = (hr_source){connection, fd, 0, 0};
    connection->back_source.fd = -1;
    connection->open_ns = connection->received_ns = connection->budget_ns = connection->idle_ns = loop->now_ns;
    connection->ping_received_ns = loop->now_ns - HR_H2_PING_S * HR_H2_SECOND;
    connection->budget = HR_H2_BUDGET;
    connection->next = loop->connections;
    if (connection->next != NULL) connection->next->previous = connection;
    loop->connections = connection;
    hr_count(&loop->counts.connections, 1);
    event.data.ptr = &connection->front_source;
    epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event);
    nghttp2_submit_settings(connection->front, NGHTTP2_FLAG_NONE, settings, 3);
    nghttp2_session_set_local_window_size(connection->front, NGHTTP2_FLAG_NONE, 0, HR_H2_FRONT_WINDOW);
    if (loop->drain_stage > 0) nghttp2_submit_shutdown_notice(connection->front);
    hr_settle(connection);
    if (loop->shaking_count > loop->server->shaking_max) {
        hr_count(&loop->counts.evicted_handshakes, 1);
        hr_close(loop->shaking_first);
    }
}

static inline void hr_hand_over(hr_server *server, int fd)
{
    hr_loop *loop = server->loops[server->next_loop++ % server->loop_count];
    pthread_mutex_lock(&loop->lock);
    loop->inbox[loop->inbox_count++] = fd;  /* room for every connection that may be */
    pthread_mutex_unlock(&loop->lock);
    hr_wake(loop);
}

/* The first loop accepts for all, in turns, as the kernel would wake the same one again and again. */
static inline void hr_accept(hr_loop *loop)
{
    hr_server *server = loop->server;
    for (int i = 0; i < HR_H2_ACCEPTS_MAX; i++) {
        int fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                epoll_ctl(loop->epoll, EPOLL_CTL_DEL, server->listener, NULL);  /* until the next tick */
                loop->is_accepting = 0;
            }
            return;
        }
        if (__atomic_add_fetch(&server->connection_count, 1, __ATOMIC_RELAXED) > server->connections_max) {
            __atomic_sub_fetch(&server->connection_count, 1, __ATOMIC_RELAXED);
            hr_count(&loop->counts.refused_connections, 1);
            close(fd);
            continue;
        }
        if (server->loop_count == 1) hr_open(loop, fd);
        else hr_hand_over(server, fd);
    }
}

static inline void hr_listen(hr_loop *loop)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &loop->listen_source};
    if (loop->number != 0 || loop->is_accepting || loop->drain_stage > 0) return;
    loop->is_accepting = epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->server->listener, &event) == 0;
}

/* ---- time ---- */

static inline int hr_is_over(int64_t since_ns, int64_t now_ns, int64_t seconds)
{
    return since_ns != 0 && now_ns - since_ns > seconds * HR_H2_SECOND;
}

/* Whether a connection has used up one of its times. */
static inline int hr_is_timed_out(const hr_connection *connection, int64_t now_ns)
{
    return (connection->is_shaking && hr_is_over(connection->open_ns, now_ns, HR_TLS_HANDSHAKE_S))
        || (!connection->settled && hr_is_over(connection->open_ns, now_ns, HR_H2_HEADER_S))
        || hr_is_over(connection->header_ns, now_ns, HR_H2_HEADER_S)
        || hr_is_over(connection->stalled_ns, now_ns, HR_H2_STALL_S)
        || hr_is_over(connection->ping_sent_ns, now_ns, HR_H2_KEEPALIVE_TIMEOUT_S);
}

/* How far a connection should be with its goodbye. One that has begun is ended, as its client opens no more streams. */
static inline int hr_wanted_stage(hr_loop *loop, hr_connection *connection)
{
    if (loop->drain_stage > 0 || connection->shutdown_stage == 1) return connection->shutdown_stage == 1 ? 2 : loop->drain_stage;
    if (connection->shutdown_stage == 0 && connection->is_expired) return 1;
    if (connection->shutdown_stage > 0 || !hr_is_over(connection->idle_ns, loop->now_ns, loop->server->idle_s)) return 0;
    hr_count(&loop->counts.idle_connections, 1);
    return 1;
}

static inline void hr_tick_connection(hr_loop *loop, hr_connection *connection)
{
    if (hr_is_timed_out(connection, loop->now_ns)) {
        hr_count(&loop->counts.timed_out_connections, 1);
        hr_close(connection);
        return;
    }
    hr_tls_tick(connection);
    hr_trim_wire(connection);
    if (connection->ping_sent_ns == 0 && hr_is_over(connection->received_ns, loop->now_ns, HR_H2_KEEPALIVE_S)) {
        connection->ping_sent_ns = loop->now_ns;
        nghttp2_submit_ping(connection->front, NGHTTP2_FLAG_NONE, NULL);
    }
    for (hr_stream *stream = connection->streams; stream != NULL; stream = stream->next)
        if (stream->kind == HR_STREAM_READ && hr_is_over(stream->begin_ns, loop->now_ns, HR_H2_BODY_S)
            && connection->header_ns == 0)
            hr_forward(stream);
    if (hr_wanted_stage(loop, connection) > connection->shutdown_stage) {
        /* First a notice that takes no stream back, then, when it has arrived, the last stream that we serve. */
        if (++connection->shutdown_stage == 1) nghttp2_submit_shutdown_notice(connection->front);
        else
            nghttp2_submit_goaway(
                connection->front, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(connection->front),
                NGHTTP2_NO_ERROR, NULL, 0);
    }
    hr_settle(connection);
}

static inline void hr_tick(hr_loop *loop)
{
    hr_connection *next;
    loop->ticked_ns = loop->now_ns;
    if (__atomic_load_n(&loop->server->draining, __ATOMIC_ACQUIRE) && loop->drain_stage < 2) {
        if (loop->drain_stage++ == 0 && loop->number == 0) {
            if (loop->is_accepting) epoll_ctl(loop->epoll, EPOLL_CTL_DEL, loop->server->listener, NULL);
            loop->is_accepting = 0;
            shutdown(loop->server->listener, SHUT_RDWR);  /* whoever comes now is refused, and does not wait for nothing */
        }
    }
    hr_listen(loop);
    for (hr_connection *connection = loop->connections; connection != NULL; connection = next) {
        next = connection->next;
        hr_tick_connection(loop, connection);
    }
}

/* ---- the thread ---- */

/* Answers what the workers are done with, then sends: once for each connection, however many of its reads they are. */
static inline void hr_take_done(hr_loop *loop)
{
    hr_connection *answered = NULL;
    hr_job *job;
    pthread_mutex_lock(&loop->lock);
    job = loop->done;
    loop->done = NULL;
    pthread_mutex_unlock(&loop->lock);
    while (job != NULL) {
        hr_job *next = job->next;
        if (job->stream != NULL) {
            hr_connection *connection = job->stream->connection;
            if (!connection->is_answered) {
                connection->is_answered = 1;
                connection->next_answered = answered;
                answered = connection;
            }
            hr_finish_miss(job);
        }
        hr_job_free(job);
        job = next;
    }
    for (; answered != NULL; answered = answered->next_answered) {
        answered->is_answered = 0;
        hr_settle(answered);  /* what it closes is freed later */
    }
}

static inline void hr_take_inbox(hr_loop *loop)
{
    uint64_t count;
    ssize_t ignored = read(loop->event, &count, sizeof(count));
    (void)ignored;
    hr_take_done(loop);
    hr_free_room(loop, NULL, HR_H2_ANSWER_BYTES_MAX);  /* another loop may have woken this one for it */
    for (;;) {
        int fd = -1;
        pthread_mutex_lock(&loop->lock);
        if (loop->inbox_count > 0) fd = loop->inbox[--loop->inbox_count];
        pthread_mutex_unlock(&loop->lock);
        if (fd < 0) return;
        hr_open(loop, fd);
    }
}

static inline void hr_free_dead(hr_loop *loop)
{
    while (loop->dead != NULL) {
        hr_connection *dead = loop->dead;
        loop->dead = dead->next;
        free(dead);
    }
}

static void *hr_loop_run(void *argument)
{
    hr_loop *loop = argument;
    struct epoll_event events[HR_H2_EVENTS_MAX];
    loop->now_ns = hr_now_ns();
    hr_tick(loop);
    while (!__atomic_load_n(&loop->server->stopping, __ATOMIC_ACQUIRE)) {
        int is_draining = __atomic_load_n(&loop->server->draining, __ATOMIC_ACQUIRE);
        int tick_ms = is_draining ? HR_H2_TICK_MS / 10 : HR_H2_TICK_MS;
        int count = epoll_wait(loop->epoll, events, HR_H2_EVENTS_MAX, tick_ms);
        loop->now_ns = hr_now_ns();
        loop->shakes_left = HR_TLS_SHAKES_MAX;
        for (int i = 0; i < count; i++) {
            hr_source *source = events[i].data.ptr;
            if (source == &loop->event_source) hr_take_inbox(loop);
            else if (source == &loop->listen_source) hr_accept(loop);
            else hr_on_event(loop, source, events[i].events);
        }
        if (loop->now_ns - loop->ticked_ns >= tick_ms * 1000000LL) hr_tick(loop);
        hr_free_dead(loop);
    }
    while (loop->connections != NULL) {
        hr_pump(loop, &loop->connections->front_source, loop->connections->front, &loop->connections->front_out);
        hr_close(loop->connections);
    }
    hr_free_dead(loop);
    hr_trim_spare(loop, 0);
    return NULL;
}

#endif
