/* Streams of a connection from their first header to their last byte, and calls that end by status alone. */
#ifndef HR_H2_STREAM_H
#define HR_H2_STREAM_H

#include "hr_h2_memory.h"

enum { HR_H2_SPARE_STREAMS_MAX = 1024 };    /* kept by a loop for the next streams */

static inline hr_stream *hr_stream_new(hr_connection *connection, int32_t id)
{
    hr_loop *loop = connection->loop;
    hr_stream *stream = loop->spare;
    if (stream != NULL) {
        loop->spare = stream->next;
        loop->spare_count--;
    } else if ((stream = calloc(1, sizeof(*stream))) == NULL) return NULL;
    stream->connection = connection;
    stream->id = id;
    stream->kind = HR_STREAM_OPENING;
    stream->begin_ns = loop->now_ns;
    stream->timeout_ns = -1;
    stream->previous = NULL;
    stream->next = connection->streams;
    if (stream->next != NULL) stream->next->previous = stream;
    connection->streams = stream;
    connection->stream_count++;
    connection->idle_ns = 0;
    __atomic_store_n(&loop->stream_count, loop->stream_count + 1, __ATOMIC_RELAXED);
    return stream;
}

/* Frees what a stream holds and keeps its shell for the next one. */
static inline void hr_stream_free(hr_stream *stream)
{
    hr_connection *connection = stream->connection;
    hr_loop *loop = connection->loop;
    hr_fields request = stream->request, response = stream->response, trailers = stream->trailers;
    hr_buffer in = stream->in, out = stream->out;
    if (stream->previous != NULL) stream->previous->next = stream->next;
    else connection->streams = stream->next;
    if (stream->next != NULL) stream->next->previous = stream->previous;
    if (--connection->stream_count == 0) connection->idle_ns = loop->now_ns;
    __atomic_store_n(&loop->stream_count, loop->stream_count - 1, __ATOMIC_RELAXED);
    connection->answers_bytes -= stream->answer_bytes;
    hr_release(connection, stream->answer_bytes + hr_buffer_bytes(&stream->in) + hr_buffer_bytes(&stream->out));
    if (hr_is_held(stream)) connection->held_bytes -= hr_buffer_bytes(&stream->in);
    if (stream->job != NULL) {
        stream->job->stream = NULL;
        __atomic_store_n(&stream->job->is_cancelled, 1, __ATOMIC_RELAXED);
    }
    free(stream->answer);
    hr_fields_reset(&request), hr_fields_reset(&response), hr_fields_reset(&trailers);
    hr_buffer_reset(&in), hr_buffer_reset(&out);
    memset(stream, 0, sizeof(*stream));
    stream->request = request, stream->response = response, stream->trailers = trailers;
    stream->in = in, stream->out = out;
    stream->next = loop->spare;
    loop->spare = stream;
    loop->spare_count++;
}

static inline void hr_stream_destroy(hr_stream *stream)
{
    hr_fields_free(&stream->request), hr_fields_free(&stream->response), hr_fields_free(&stream->trailers);
    hr_buffer_free(&stream->in), hr_buffer_free(&stream->out);
    free(stream->answer);
    free(stream);
}

static inline void hr_trim_spare(hr_loop *loop, uint32_t most)
{
    while (loop->spare_count > most) {
        hr_stream *stream = loop->spare;
        loop->spare = stream->next;
        loop->spare_count--;
        hr_stream_destroy(stream);
    }
}

/* ---- answers ---- */

/* Ends a call by status alone. Message and details are as they stand in trailers; details may be empty. */
static inline void hr_answer_status(hr_stream *stream, const char *code, const char *message, const char *details)
{
    nghttp2_nv fields[] = {
        hr_nv(":status", "200"), hr_nv("content-type", "application/grpc"), hr_nv("grpc-status", code),
        hr_nv("grpc-message", message), hr_nv("grpc-status-details-bin", details),
    };
    nghttp2_session *front = stream->connection->front;
    stream->kind = HR_STREAM_ANSWERED;
    stream->response_begun = stream->response_ended = 1;
    nghttp2_submit_response(front, stream->id, fields, details[0] != 0 ? 5 : 4, NULL);
}

/* `message` is of ours: ASCII without %. */
static inline void hr_answer_error(hr_stream *stream, const char *code, const char *message)
{
    hr_answer_status(stream, code, message, "");
}

#endif
