/* Sockets of a connection: what waits for them goes out, and their end. */
#ifndef HR_H2_SOCKET_H
#define HR_H2_SOCKET_H

#include "hr_h2_back.h"
#include "hr_tls.h"

enum { HR_H2_SENDS_MAX = 16 };  /* of one wake, before others get their turn */

static inline void hr_close(hr_connection *connection)
{
    hr_loop *loop = connection->loop;
    if (connection->is_dead) return;
    connection->is_dead = 1;
    hr_back_lost(connection);
    while (connection->streams != NULL) hr_stream_free(connection->streams);
    hr_trim_spare(loop, HR_H2_SPARE_STREAMS_MAX);
    nghttp2_session_del(connection->front);
    if (connection->tls != NULL) {
        hr_tls_end(connection);
        hr_tls_free(connection);
    }
    close(connection->front_source.fd);
    hr_buffer_free(&connection->front_out);
    hr_hold_wire(connection);
    if (connection->previous != NULL) connection->previous->next = connection->next;
    else loop->connections = connection->next;
    if (connection->next != NULL) connection->next->previous = connection->previous;
    connection->next = loop->dead;  /* freed after the events that may still name it */
    loop->dead = connection;
    __atomic_sub_fetch(&loop->server->connection_count, 1, __ATOMIC_RELAXED);
}

static inline void hr_want_write(hr_loop *loop, hr_source *source, int wanted)
{
    struct epoll_event event = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = source};
    if (source->is_writing == wanted) return;
    source->is_writing = wanted;
    epoll_ctl(loop->epoll, EPOLL_CTL_MOD, source->fd, &event);
}

/* Sends what a session has for its socket, as far as the socket takes it. Returns HR_OK or that it is lost. */
static inline int hr_pump(hr_loop *loop, hr_source *source, nghttp2_session *session, hr_buffer *out)
{
    hr_connection *connection = source->connection;
    hr_buffer *wire = !source->is_back && connection->tls != NULL ? &connection->sealed : out;
    for (int round = 0; round < HR_H2_SENDS_MAX; round++) {
        ssize_t sent;
        while (hr_buffer_bytes(out) < HR_H2_OUT_BYTES) {
            const uint8_t *data;
            ssize_t bytes = nghttp2_session_mem_send(session, &data);
            if (bytes < 0 || hr_buffer_add(out, data, bytes > 0 ? (size_t)bytes : 0) != HR_OK) return HR_E_NO_MEMORY;
            if (bytes == 0) break;
        }
        if (wire != out && hr_tls_seal(connection) != HR_OK) return HR_E_NO_MEMORY;
        if (hr_buffer_bytes(wire) == 0) {
            if (!source->is_back) connection->stalled_ns = 0;
            hr_want_write(loop, source, 0);
            return HR_OK;
        }
        sent = send(source->fd, wire->data + wire->start, hr_buffer_bytes(wire), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return HR_E_NO_MEMORY;
        if (sent < 0) break;
        hr_buffer_take(wire, (size_t)sent);
        if (!source->is_back) connection->stalled_ns = 0;
    }
    if (!source->is_back && connection->stalled_ns == 0) connection->stalled_ns = loop->now_ns;
    hr_want_write(loop, source, 1);
    return HR_OK;
}

#endif
