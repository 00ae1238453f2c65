/* The front: what a client's frames do to its streams, and how its reads are answered. */
#ifndef HR_H2_FRONT_H
#define HR_H2_FRONT_H

#include "hr_h2_greedy.h"

/* ---- answers ---- */

/* The request of a read has done its work. */
static inline void hr_release_request(hr_stream *stream)
{
    size_t held = hr_buffer_bytes(&stream->in);
    stream->connection->held_bytes -= held;
    hr_release(stream->connection, held);
    hr_buffer_reset(&stream->in);
    nghttp2_session_consume_connection(stream->connection->front, held);
}

static inline ssize_t hr_answer_read(
    nghttp2_session *session, int32_t id, uint8_t *to, size_t room, uint32_t *flags, nghttp2_data_source *source, void *user)
{
    hr_stream *stream = source->ptr;
    nghttp2_nv trailers[] = {hr_nv("grpc-status", "0")};
    size_t bytes = stream->answer_bytes - stream->answer_at;
    (void)user;
    if (bytes > room) bytes = room;
    memcpy(to, stream->answer + stream->answer_at, bytes);
    stream->answer_at += bytes;
    stream->connection->moved_ns = stream->connection->loop->now_ns;
    if (stream->answer_at == stream->answer_bytes) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_submit_trailer(session, id, trailers, 1);
    }
    return (ssize_t)bytes;
}

static inline void hr_submit_answer(hr_stream *stream, uint8_t *answer, size_t bytes)
{
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = hr_answer_read};
    nghttp2_nv fields[] = {hr_nv(":status", "200"), hr_nv("content-type", "application/grpc")};
    hr_release_request(stream);
    stream->kind = HR_STREAM_ANSWERED;
    stream->answer = answer;
    stream->answer_bytes = bytes;
    stream->connection->answers_bytes += bytes;
    hr_hold(stream->connection, bytes);
    nghttp2_submit_response(stream->connection->front, stream->id, fields, 2, &provider);
}

/* Refuses a read for want of room. */
static inline void hr_answer_full(hr_stream *stream, const char *message, const char *details)
{
    hr_release_request(stream);
    hr_answer_status(stream, "8", message, details);
}

/* Hands a read to a worker; to the back where there is none. */
static inline void hr_hand_to_worker(hr_stream *stream, hr_span message, int waits)
{
    hr_server *server = stream->connection->loop->server;
    hr_job *job = hr_job_new(stream, message, hr_authorization(&stream->request), waits);
    hr_push pushed = job != NULL ? hr_misses_push(&server->misses, job) : HR_NO_WORKERS;
    if (pushed == HR_PUSHED) {
        stream->kind = HR_STREAM_AWAITED;
        stream->job = job;
        hr_count(&stream->connection->loop->counts.missed, 1);
        return;
    }
    free(job);
    if (pushed == HR_NO_WORKERS) {
        hr_forward(stream);
        return;
    }
    hr_count(&stream->connection->loop->counts.full, 1);
    hr_answer_full(stream, server->full_message, server->full_details);
}

/* A worker is done with a read. An answer for which there is no room now is made once more by the back. */
static inline void hr_finish_miss(hr_job *job)
{
    hr_stream *stream = job->stream;
    hr_connection *connection = stream->connection;
    char code[12];
    stream->job = NULL;
    if (job->is_over) hr_count(&connection->loop->counts.memory_refused, 1);
    if (job->code == 0 && (job->answer == NULL || job->answer_bytes > HR_H2_ANSWERS_BYTES_MAX - connection->answers_bytes)) {
        hr_forward(stream);
    } else if (job->code == 0) {
        hr_submit_answer(stream, job->answer, job->answer_bytes);
        job->answer = NULL;
    } else {
        snprintf(code, sizeof(code), "%u", job->code);
        hr_release_request(stream);
        hr_answer_status(stream, code, (const char *)job->answer, (const char *)job->answer + job->details_at);
    }
}

/* A call whose message is whole: answered here, by a worker, or handed to the back. */
static inline void hr_serve_read(hr_stream *stream)
{
    hr_connection *connection = stream->connection;
    hr_loop *loop = connection->loop;
    size_t left = HR_H2_ANSWERS_BYTES_MAX - connection->answers_bytes, bytes = 0;
    size_t room = left < HR_H2_ANSWER_BYTES_MAX ? left : HR_H2_ANSWER_BYTES_MAX;
    int64_t begin_ns = hr_now_ns();
    uint8_t *answer = NULL;
    hr_served_draft draft = {0};
    hr_span message;
    int status, waits = 0;
    if ((stream->timeout_ns > 0 && begin_ns - stream->begin_ns >= stream->timeout_ns)
        || !hr_grpc_message(&stream->in, &message)) {
        hr_forward(stream);
        return;
    }
    if (stream->method == HR_METHOD_ROWS) status = hr_answer_rows(loop->server, message, room, &answer, &bytes);
    else if (stream->method == HR_METHOD_HEALTH) status = hr_answer_health(loop->server, message, &answer, &bytes);
    else status = hr_answer_message(loop->server, message, room, &answer, &bytes, &waits, &draft);
    if (status == HR_OK && !hr_make_room(loop, connection, bytes)) {
        hr_served_finish(&draft, NULL);
        free(answer);
        hr_count(&loop->counts.memory_refused, 1);
        hr_answer_full(stream, loop->server->memory_message, loop->server->memory_details);
    } else if (status == HR_OK) {
        hr_served_finish(&draft, answer + HR_GRPC_PREFIX_BYTES);
        hr_submit_answer(stream, answer, bytes);
        if (stream->method == HR_METHOD_FEATURES) hr_count_answer(&loop->counts.features, hr_now_ns() - begin_ns);
        if (stream->method == HR_METHOD_ROWS) hr_count_answer(&loop->counts.rows, hr_now_ns() - begin_ns);
    } else if (stream->method != HR_METHOD_FEATURES || status == HR_E_RESPONSE_TOO_LARGE || status == HR_E_NO_MEMORY)
        hr_forward(stream);
    else hr_hand_to_worker(stream, message, waits);
}

/* ---- callbacks of the front session ---- */

static inline int hr_on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    hr_connection *connection = user;
    hr_stream *stream;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    connection->header_ns = connection->loop->now_ns;
    stream = hr_stream_new(connection, frame->hd.stream_id);
    if (stream == NULL) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream);
    return 0;
}

static inline int hr_on_header(
    nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_bytes, const uint8_t *value,
    size_t value_bytes, uint8_t flags, void *user)
{
    hr_stream *stream = hr_back_stream(session, frame->hd.stream_id);
    (void)flags, (void)user;
    /* Trailers of a request mean nothing in gRPC. */
    if (stream == NULL || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    if (hr_fields_add(&stream->request, name, name_bytes, value, value_bytes) != HR_OK)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    return 0;
}

static inline void hr_on_request(hr_stream *stream)
{
    if (stream->request.too_large)
        hr_answer_error(stream, "8", "the metadata is larger than 16384 bytes or 128 fields; send less");
    else if (hr_is_ours_to_answer(stream)) stream->kind = HR_STREAM_READ;
    else hr_forward(stream);
}

static inline void hr_on_end(hr_stream *stream)
{
    stream->is_ended = 1;
    if (stream->kind == HR_STREAM_READ) hr_serve_read(stream);
    else if (stream->kind == HR_STREAM_FORWARDED) hr_back_resume(stream);
}

static inline int hr_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    hr_connection *connection = user;
    hr_stream *stream = frame->hd.stream_id > 0 ? hr_back_stream(session, frame->hd.stream_id) : NULL;
    int is_end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0, is_ack = (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0;
    connection->header_ns = 0;
    switch (frame->hd.type) {
    case NGHTTP2_SETTINGS:
        connection->settled = 1;
        return is_ack ? 0 : hr_spend(connection, 20, "too_many_settings");
    case NGHTTP2_PING:
        if (!is_ack) return hr_on_ping(connection);
        connection->ping_sent_ns = 0;
        return 0;
    case NGHTTP2_RST_STREAM: return hr_spend(connection, 1, "too_many_resets");
    case NGHTTP2_PRIORITY: return hr_spend(connection, 1, "too_many_priorities");
    case NGHTTP2_DATA:
        if (frame->hd.length == 0 && !is_end) return hr_spend(connection, 1, "too_many_empty_frames");
        break;
    case NGHTTP2_HEADERS:
        if (stream != NULL && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
            if (is_end) stream->is_ended = 1;
            hr_on_request(stream);
        }
        break;
    default: return 0;
    }
    if (stream != NULL && is_end) hr_on_end(stream);
    return 0;
}

static inline int hr_on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t bytes, void *user)
{
    hr_connection *connection = user;
    hr_stream *stream = hr_back_stream(session, id);
    (void)flags;
    connection->header_ns = 0;
    if (stream == NULL || stream->kind == HR_STREAM_ANSWERED
        || (stream->kind == HR_STREAM_FORWARDED && stream->back_id == 0)) {
        nghttp2_session_consume(session, id, bytes);  /* nobody waits for it */
        return 0;
    }
    if (hr_buffer_add(&stream->in, data, bytes) != HR_OK) return NGHTTP2_ERR_CALLBACK_FAILURE;
    hr_hold(connection, bytes);
    if (stream->kind == HR_STREAM_FORWARDED) {
        hr_back_resume(stream);
        return 0;
    }
    connection->held_bytes += bytes;
    if (hr_buffer_bytes(&stream->in) > HR_H2_REQUEST_BYTES_MAX || connection->held_bytes > HR_H2_HELD_BYTES_MAX)
        hr_forward(stream);
    return 0;
}

static inline int hr_on_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    hr_connection *connection = user;
    hr_stream *stream = hr_back_stream(session, id);
    (void)error;
    if (stream == NULL) return 0;
    nghttp2_session_consume_connection(session, hr_buffer_bytes(&stream->in));
    if (connection->back != NULL) {
        nghttp2_session_consume_connection(connection->back, hr_buffer_bytes(&stream->out));
        if (stream->back_id != 0) {
            nghttp2_session_set_stream_user_data(connection->back, stream->back_id, NULL);
            nghttp2_submit_rst_stream(connection->back, NGHTTP2_FLAG_NONE, stream->back_id, NGHTTP2_CANCEL);
        }
    }
    nghttp2_session_set_stream_user_data(session, id, NULL);
    hr_stream_free(stream);
    return 0;
}

/* Data of ours forgives pings, as gRPC clients measure the line by a ping after data. An answer that ends before its
 * request has no use for the rest, which the reset says; sent earlier it would take the answer's place. */
static inline int hr_on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    hr_connection *connection = user;
    hr_stream *stream;
    if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) return 0;
    connection->ping_strikes = 0;
    stream = hr_back_stream(session, frame->hd.stream_id);
    if (stream != NULL && !stream->is_ended && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
    return 0;
}

#endif
