/* A read answered in the loop: who calls, what is asked, and the answer's bytes; whatever is odd is left to the back. */
#ifndef HR_H2_READ_H
#define HR_H2_READ_H

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "hr_h2.h"

#define HR_H2_READ_PATH "/headrace.feature.v1.OnlineFeatureService/GetOnlineFeatures"
#define HR_H2_SAMPLED "headrace-sampled"    /* ours: headrace/serving/telemetry.py reads it */

/* Upper bounds of the latency buckets: LATENCY_BOUNDS_S of headrace/serving/call_metrics.py. */
static const int64_t hr_h2_bounds_ns[HR_H2_BUCKETS - 1] = {
    0, 10000, 50000, 100000, 300000, 600000, 800000, 1000000, 2000000, 3000000, 4000000, 5000000, 6000000, 8000000,
    10000000, 13000000, 16000000, 20000000, 25000000, 30000000, 40000000, 50000000, 65000000, 80000000, 100000000,
    130000000, 160000000, 200000000, 250000000, 300000000, 400000000, 500000000, 650000000, 800000000, 1000000000,
    2000000000, 5000000000, 10000000000, 20000000000, 50000000000, 100000000000,
};

static inline void hr_count_answer(hr_counts *counts, int64_t spent_ns)
{
    int bucket = 0;
    while (bucket < HR_H2_BUCKETS - 1 && hr_h2_bounds_ns[bucket] < spent_ns) bucket++;
    hr_count(&counts->buckets[bucket], 1);
    hr_count(&counts->seconds_ns, (uint64_t)spent_ns);
    hr_count(&counts->answered, 1);
}

/* Nanoseconds of "1S", "20m" and so on, at most eight digits and a unit, or -1 where it is malformed. */
static inline int64_t hr_parse_timeout(hr_span text)
{
    int64_t value = 0, unit;
    size_t digits = hr_span_bytes(text);
    if (digits < 2 || digits > 9) return -1;
    digits--;
    for (size_t i = 0; i < digits; i++) {
        if (text.at[i] < '0' || text.at[i] > '9') return -1;
        value = value * 10 + (text.at[i] - '0');
    }
    switch (text.at[digits]) {
    case 'H': unit = 3600 * HR_H2_SECOND; break;
    case 'M': unit = 60 * HR_H2_SECOND; break;
    case 'S': unit = HR_H2_SECOND; break;
    case 'm': unit = 1000000; break;
    case 'u': unit = 1000; break;
    case 'n': unit = 1; break;
    default: return -1;
    }
    return value > INT64_MAX / 2 / unit ? INT64_MAX / 2 : value * unit;
}

/* Whether the header's token is one that may read. Every digest is compared, so that time tells nothing. */
static inline int hr_token_may_read(const hr_access *access, hr_span header)
{
    static const char scheme[] = "bearer ";
    size_t scheme_bytes = sizeof(scheme) - 1;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    int found = 0;
    if (hr_span_bytes(header) <= scheme_bytes) return 0;
    for (size_t i = 0; i < scheme_bytes; i++)
        if ((header.at[i] >= 'A' && header.at[i] <= 'Z' ? header.at[i] + 32 : header.at[i]) != scheme[i]) return 0;
    header.at += scheme_bytes;
    if (hr_span_bytes(header) > HR_H2_TOKEN_BYTES_MAX) return 0;
    SHA256(header.at, hr_span_bytes(header), digest);
    for (uint32_t i = 0; i < access->count; i++) found |= CRYPTO_memcmp(access->digests[i], digest, sizeof(digest)) == 0;
    return found;
}

/* Whether the caller may read. A header that this connection showed before, and that was good under the same
 * tokens, is not hashed again: whoever could tell by the time already holds the connection of the one it is of. */
static inline int hr_may_read(hr_connection *connection, hr_span header)
{
    hr_server *server = connection->loop->server;
    size_t bytes = hr_span_bytes(header);
    int may;
    pthread_rwlock_rdlock(&server->access_lock);
    may = server->access.is_open;
    if (!may && bytes > 0) {
        may = connection->access_generation == server->access.generation && connection->authorization_bytes == bytes
            && CRYPTO_memcmp(connection->authorization, header.at, bytes) == 0;
        if (!may && (may = hr_token_may_read(&server->access, header)) && bytes <= HR_H2_AUTHORIZATION_KEPT) {
            memcpy(connection->authorization, header.at, bytes);
            connection->authorization_bytes = (uint32_t)bytes;
            connection->access_generation = server->access.generation;
        }
    }
    pthread_rwlock_unlock(&server->access_lock);
    return may;
}

/* Whether a trace of this call is wanted, which only Python can take. */
static inline int hr_is_sampled(hr_loop *loop)
{
    if (loop->server->sample_one_in == 0 || ++loop->sample_count < loop->server->sample_one_in) return 0;
    loop->sample_count = 0;
    return 1;
}

/* Whether a stream whose headers are whole may be answered in the loop, once its message is. */
static inline int hr_is_read(hr_stream *stream)
{
    hr_fields *fields = &stream->request;
    hr_span authorization = {NULL, NULL};
    int is_post = 0, is_path = 0, is_grpc = 0, is_traced = 0;
    for (uint32_t i = 0; i < fields->count; i++) {
        hr_span name = hr_field_name(fields, i), value = hr_field_value(fields, i);
        switch (hr_span_bytes(name)) {
        case 5: is_path |= hr_span_is(name, ":path") && hr_span_is(value, HR_H2_READ_PATH); break;
        case 7: is_post |= hr_span_is(name, ":method") && hr_span_is(value, "POST"); break;
        case 11: is_traced |= hr_span_is(name, "traceparent"); break;
        case 12:
            is_grpc |= hr_span_is(name, "content-type")
                && (hr_span_is(value, "application/grpc") || hr_span_is(value, "application/grpc+proto"));
            if (!hr_span_is(name, "grpc-timeout")) break;
            stream->timeout_ns = hr_parse_timeout(value);
            if (stream->timeout_ns <= 0) return 0;
            break;
        case 13:
            if (hr_span_is(name, "authorization") && authorization.at == NULL) authorization = value;
            break;
        default: break;
        }
    }
    if (!is_post || !is_path || !is_grpc || !hr_may_read(stream->connection, authorization)) return 0;
    if (stream->connection->loop->server->sample_one_in == 0) return 1;
    stream->is_sampled = !is_traced && hr_is_sampled(stream->connection->loop);
    return !is_traced && !stream->is_sampled;
}

/* The one message of a unary call, or 0 where the bytes are not just that, uncompressed. */
static inline int hr_grpc_message(const hr_buffer *in, hr_span *message)
{
    size_t bytes = hr_buffer_bytes(in);
    const uint8_t *at = in->data + in->start;
    if (bytes < 5 || at[0] != 0 || hr_load_u32_be(at + 1) != bytes - 5) return 0;
    message->at = at + 5;
    message->end = at + bytes;
    return 1;
}

/* Prefix and message of the answer, for the caller to free; HR_MISS and the rest are for the back to answer. */
static inline int hr_answer_message(hr_server *server, hr_span message, size_t room, uint8_t **answer, size_t *bytes)
{
    hr_call call;
    struct timespec now;
    int status;
    clock_gettime(CLOCK_REALTIME, &now);
    memset(&call, 0, sizeof(call));
    pthread_rwlock_rdlock(&server->published->lock);
    status = hr_call_begin(
        &call, server->table, server->published->plans, NULL, NULL, now.tv_sec * 1000000LL + now.tv_nsec / 1000,
        message.at, hr_span_bytes(message));
    if (status == HR_OK && call.response_bytes + 5 > room) status = HR_MISS;
    if (status == HR_OK) {
        *bytes = call.response_bytes + 5;
        *answer = malloc(*bytes);
        status = *answer != NULL ? HR_OK : HR_E_NO_MEMORY;
    }
    if (status == HR_OK) {
        (*answer)[0] = 0;
        hr_store_u32_be(*answer + 1, (uint32_t)call.response_bytes);
        status = hr_write_answer(&call, *answer + 5);
        if (status != HR_OK) free(*answer);
    }
    hr_call_end(&call);
    pthread_rwlock_unlock(&server->published->lock);
    return status;
}

#endif
