/* The back: one connection to the grpcio server per front connection, and streams copied between the two.
 *
 * Bytes are counted as consumed only when they are handed on, so that a slow reader holds back its own sender by
 * HTTP/2's windows, and what we hold of a stream is at most one window in each direction. */
#ifndef HR_H2_BACK_H
#define HR_H2_BACK_H

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "hr_h2_read.h"
#include "hr_h2_stream.h"

/* ---- front to back ---- */

static inline ssize_t hr_back_read(
    nghttp2_session *session, int32_t id, uint8_t *to, size_t room, uint32_t *flags, nghttp2_data_source *source, void *user)
{
    hr_stream *stream = source->ptr;
    size_t bytes = hr_buffer_bytes(&stream->in);
    (void)session, (void)id, (void)user;
    if (bytes > room) bytes = room;
    if (bytes > 0) memcpy(to, stream->in.data + stream->in.start, bytes);
    hr_buffer_take(&stream->in, bytes);
    hr_release(stream->connection, bytes);
    nghttp2_session_consume(stream->connection->front, stream->id, bytes);
    if (stream->is_ended && hr_buffer_bytes(&stream->in) == 0) *flags |= NGHTTP2_DATA_FLAG_EOF;
    else if (bytes == 0) {
        stream->is_deferred = 1;
        return NGHTTP2_ERR_DEFERRED;
    }
    return (ssize_t)bytes;
}

/* Wakes the reader of the back when there is more to read. */
static inline void hr_back_resume(hr_stream *stream)
{
    if (!stream->is_deferred || stream->back_id == 0) return;
    stream->is_deferred = 0;
    nghttp2_session_resume_data(stream->connection->back, stream->back_id);
}

/* Fields that speak of identity inside the cluster are ours alone to set. */
static inline int hr_is_ours(hr_span name)
{
    return hr_span_begins(name, "headrace-") || hr_span_begins(name, "x-headrace-");
}

/* The request's fields for the back. What the call has waited here is taken off its time. */
static inline size_t hr_back_fields(hr_stream *stream, nghttp2_nv *out, char *timeout, size_t timeout_room)
{
    hr_fields *fields = &stream->request;
    int64_t waited_ns = stream->connection->loop->now_ns - stream->begin_ns;
    size_t count = 0;
    for (uint32_t i = 0; i < fields->count; i++) {
        hr_span name = hr_field_name(fields, i), value = hr_field_value(fields, i);
        if (hr_is_ours(name)) continue;
        if (stream->timeout_ns > 0 && waited_ns > 1000000 && hr_span_is(name, "grpc-timeout")) {
            int64_t left_ms = (stream->timeout_ns - waited_ns) / 1000000;
            if (left_ms > 99999999) left_ms = 99999999;
            snprintf(timeout, timeout_room, "%dm", (int)(left_ms > 0 ? left_ms : 0));
            out[count++] = hr_nv("grpc-timeout", timeout);
            continue;
        }
        out[count].name = (uint8_t *)name.at;
        out[count].namelen = hr_span_bytes(name);
        out[count].value = (uint8_t *)value.at;
        out[count].valuelen = hr_span_bytes(value);
        out[count++].flags = NGHTTP2_NV_FLAG_NONE;
    }
    if (stream->is_sampled) out[count++] = hr_nv(HR_H2_SAMPLED, "1");
    if (stream->connection->has_identity) out[count++] = hr_nv(HR_H2_CERTIFICATE, stream->connection->forwarded_identity);
    return count;
}

static inline int hr_back_open(hr_connection *connection)
{
    hr_loop *loop = connection->loop;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t name_bytes = strlen(loop->server->back_name);
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HR_H2_BACK_STREAM_WINDOW},
    };
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connection->back_source};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return HR_E_NO_MEMORY;
    memcpy(address.sun_path + 1, loop->server->back_name, name_bytes);
    if (connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + name_bytes)) != 0
        || nghttp2_session_client_new2(&connection->back, loop->back_callbacks, connection, loop->option) != 0) {
        connection->back = NULL;
        close(fd);
        return HR_E_NO_MEMORY;
    }
    connection->back_source = (hr_source){connection, fd, 1, 0};
    epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event);
    nghttp2_submit_settings(connection->back, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(connection->back, NGHTTP2_FLAG_NONE, 0, HR_H2_BACK_WINDOW);
    return HR_OK;
}

/* Hands a stream over to the grpcio server, with what came of it so far. */
static inline void hr_forward(hr_stream *stream)
{
    hr_connection *connection = stream->connection;
    nghttp2_nv fields[HR_H2_FIELDS_MAX + 2];
    char timeout[16];
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = hr_back_read};
    size_t count;
    if (hr_is_held(stream)) connection->held_bytes -= hr_buffer_bytes(&stream->in);
    stream->kind = HR_STREAM_FORWARDED;
    hr_count(&connection->loop->counts.forwarded, 1);
    if (connection->back == NULL && hr_back_open(connection) != HR_OK) {
        hr_answer_error(stream, "14", "the server has no free connection inside; try again later");
        return;
    }
    count = hr_back_fields(stream, fields, timeout, sizeof(timeout));
    stream->back_id = nghttp2_submit_request(connection->back, NULL, fields, count, &provider, stream);
    if (stream->back_id < 0) {
        stream->back_id = 0;
        hr_answer_error(stream, "14", "the server could not take the call inside; try again later");
    }
}

/* ---- back to front ---- */

static inline size_t hr_nvs(const hr_fields *fields, nghttp2_nv *out)
{
    for (uint32_t i = 0; i < fields->count; i++) {
        hr_span name = hr_field_name(fields, i), value = hr_field_value(fields, i);
        out[i] = (nghttp2_nv){(uint8_t *)name.at, (uint8_t *)value.at, hr_span_bytes(name), hr_span_bytes(value), 0};
    }
    return fields->count;
}

static inline ssize_t hr_front_read(
    nghttp2_session *session, int32_t id, uint8_t *to, size_t room, uint32_t *flags, nghttp2_data_source *source, void *user)
{
    hr_stream *stream = source->ptr;
    hr_connection *connection = stream->connection;
    size_t bytes = hr_buffer_bytes(&stream->out);
    nghttp2_nv fields[HR_H2_FIELDS_MAX];
    (void)user;
    if (bytes > room) bytes = room;
    if (bytes > 0) memcpy(to, stream->out.data + stream->out.start, bytes);
    hr_buffer_take(&stream->out, bytes);
    hr_release(connection, bytes);
    connection->moved_ns = connection->loop->now_ns;
    if (bytes > 0 && connection->back != NULL) {
        if (stream->back_id != 0) nghttp2_session_consume(connection->back, stream->back_id, bytes);
        else nghttp2_session_consume_connection(connection->back, bytes);
    }
    if (hr_buffer_bytes(&stream->out) > 0) return (ssize_t)bytes;
    if (stream->back_error != 0) {
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, stream->back_error);
        stream->out_deferred = 1;
        return bytes > 0 ? (ssize_t)bytes : NGHTTP2_ERR_DEFERRED;
    }
    if (stream->response_ended) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (stream->trailers.count > 0) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            nghttp2_submit_trailer(session, id, fields, hr_nvs(&stream->trailers, fields));
        }
        return (ssize_t)bytes;
    }
    if (bytes > 0) return (ssize_t)bytes;
    stream->out_deferred = 1;
    return NGHTTP2_ERR_DEFERRED;
}

static inline void hr_front_resume(hr_stream *stream)
{
    if (!stream->out_deferred) return;
    stream->out_deferred = 0;
    nghttp2_session_resume_data(stream->connection->front, stream->id);
}

static inline hr_stream *hr_back_stream(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static inline int hr_back_on_header(
    nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_bytes, const uint8_t *value,
    size_t value_bytes, uint8_t flags, void *user)
{
    hr_stream *stream = hr_back_stream(session, frame->hd.stream_id);
    (void)flags, (void)user;
    if (frame->hd.type != NGHTTP2_HEADERS || stream == NULL) return 0;
    hr_fields_add(stream->response_begun ? &stream->trailers : &stream->response, name, name_bytes, value, value_bytes);
    return 0;
}

static inline void hr_back_headers(hr_stream *stream, int is_end)
{
    nghttp2_nv fields[HR_H2_FIELDS_MAX];
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = hr_front_read};
    size_t count;
    if (stream->response_begun) return;
    count = hr_nvs(&stream->response, fields);
    if (count > 0 && hr_span_begins(hr_field_value(&stream->response, 0), "1")) {
        hr_fields_reset(&stream->response);  /* 1xx: the true answer follows */
        return;
    }
    stream->response_begun = 1;
    nghttp2_submit_response(stream->connection->front, stream->id, fields, count, is_end ? NULL : &provider);
}

static inline int hr_back_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    hr_stream *stream = frame->hd.stream_id > 0 ? hr_back_stream(session, frame->hd.stream_id) : NULL;
    int is_end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    (void)user;
    if (stream == NULL || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)) return 0;
    if (frame->hd.type == NGHTTP2_HEADERS) hr_back_headers(stream, is_end);
    if (!is_end) return 0;
    stream->response_ended = 1;
    hr_front_resume(stream);
    return 0;
}

static inline int hr_back_on_data(
    nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t bytes, void *user)
{
    hr_stream *stream = hr_back_stream(session, id);
    (void)flags, (void)user;
    if (stream == NULL) {
        nghttp2_session_consume_connection(session, bytes);
        return 0;
    }
    if (hr_buffer_add(&stream->out, data, bytes) != HR_OK) return NGHTTP2_ERR_CALLBACK_FAILURE;
    hr_hold(stream->connection, bytes);
    hr_front_resume(stream);
    return 0;
}

/* The back is done with a stream: what waits is still sent, and an early end goes on as the reset that it was. */
static inline int hr_back_on_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    hr_stream *stream = hr_back_stream(session, id);
    (void)user;
    if (stream == NULL) return 0;
    stream->back_id = 0;
    stream->is_deferred = 0;
    if (!stream->response_begun) hr_answer_error(stream, "14", "the call was refused inside the server; try again later");
    else if (!stream->response_ended) {
        stream->back_error = error != 0 ? error : NGHTTP2_INTERNAL_ERROR;
        hr_front_resume(stream);
    }
    /* A request that is still arriving is of no use any more: its bytes are thrown away. */
    nghttp2_session_consume(stream->connection->front, stream->id, hr_buffer_bytes(&stream->in));
    hr_release(stream->connection, hr_buffer_bytes(&stream->in));
    hr_buffer_reset(&stream->in);
    return 0;
}

/* The back has gone: streams that have no answer yet get one, the others end. */
static inline void hr_back_lost(hr_connection *connection)
{
    nghttp2_session *back = connection->back;
    if (back == NULL) return;
    for (hr_stream *stream = connection->streams; stream != NULL; stream = stream->next) {
        if (stream->back_id == 0) continue;
        nghttp2_session_set_stream_user_data(back, stream->back_id, NULL);
        stream->back_id = 0;
        if (!stream->response_begun) hr_answer_error(stream, "14", "the server is stopping; try again at another");
        else if (!stream->response_ended) {
            stream->back_error = NGHTTP2_CANCEL;
            hr_front_resume(stream);
        }
    }
    connection->back = NULL;
    nghttp2_session_del(back);
    close(connection->back_source.fd);
    connection->back_source.fd = -1;
    hr_buffer_free(&connection->back_out);
}

#endif
