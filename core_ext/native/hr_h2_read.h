/* A read answered in the loop: who calls, what is asked, and the answer's bytes; whatever is odd is left to the back. */
#ifndef HR_H2_READ_H
#define HR_H2_READ_H

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "hr_h2_rows.h"

#define HR_H2_FEATURES_PATH "/headrace.feature.v1.OnlineFeatureService/GetOnlineFeatures"
#define HR_H2_ROWS_PATH "/headrace.feature.v1.ShardService/BatchGetRows"
#define HR_H2_HEALTH_PATH "/grpc.health.v1.Health/Check"
#define HR_H2_SAMPLED "headrace-sampled"    /* ours: headrace/serving/telemetry.py reads it */
#define HR_H2_CERTIFICATE "headrace-certificate"  /* ours: headrace/serving/certificates.py reads it */

/* Upper bounds of the latency buckets: LATENCY_BOUNDS_S of headrace/serving/call_metrics.py. */
static const int64_t hr_h2_bounds_ns[HR_H2_BUCKETS - 1] = {
    0, 10000, 50000, 100000, 300000, 600000, 800000, 1000000, 2000000, 3000000, 4000000, 5000000, 6000000, 8000000,
    10000000, 13000000, 16000000, 20000000, 25000000, 30000000, 40000000, 50000000, 65000000, 80000000, 100000000,
    130000000, 160000000, 200000000, 250000000, 300000000, 400000000, 500000000, 650000000, 800000000, 1000000000,
    2000000000, 5000000000, 10000000000, 20000000000, 50000000000, 100000000000,
};

/* Calls that took this long, each. */
static inline void hr_count_answers(hr_calls *calls, int64_t spent_ns, uint64_t count)
{
    int bucket = 0;
    while (bucket < HR_H2_BUCKETS - 1 && hr_h2_bounds_ns[bucket] < spent_ns) bucket++;
    hr_count(&calls->buckets[bucket], count);
    hr_count(&calls->seconds_ns, (uint64_t)spent_ns * count);
    hr_count(&calls->answered, count);
}

static inline void hr_count_answer(hr_calls *calls, int64_t spent_ns) { hr_count_answers(calls, spent_ns, 1); }

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

/* Permissions of a digest, as bits. Every one is compared, so that time tells nothing. */
static inline int hr_digest_permissions(const hr_access *access, const uint8_t *digest)
{
    int found = 0;
    for (int permission = 0; permission < HR_PERMISSIONS; permission++)
        for (uint32_t i = 0; i < access[permission].count; i++)
            found |= (CRYPTO_memcmp(access[permission].digests[i], digest, SHA256_DIGEST_LENGTH) == 0) << permission;
    return found;
}

/* Permissions of the header's token. */
static inline int hr_token_permissions(const hr_access *access, hr_span header)
{
    static const char scheme[] = "bearer ";
    size_t scheme_bytes = sizeof(scheme) - 1;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    if (hr_span_bytes(header) <= scheme_bytes) return 0;
    for (size_t i = 0; i < scheme_bytes; i++)
        if ((header.at[i] >= 'A' && header.at[i] <= 'Z' ? header.at[i] + 32 : header.at[i]) != scheme[i]) return 0;
    header.at += scheme_bytes;
    if (hr_span_bytes(header) > HR_H2_TOKEN_BYTES_MAX) return 0;
    SHA256(header.at, hr_span_bytes(header), digest);
    return hr_digest_permissions(access, digest);
}

static inline int hr_permissions(const hr_connection *connection, hr_span header)
{
    hr_server *server = connection->loop->server;
    if (hr_span_bytes(header) > 0) return hr_token_permissions(server->access[HR_CREDENTIAL_TOKEN], header);
    return hr_digest_permissions(server->access[HR_CREDENTIAL_CERTIFICATE], connection->identity);
}

/* Whether the caller holds a permission: by the token that the call shows, without one by the certificate that the
 * connection has shown. What this connection showed before, and was good under the same tokens, is not looked up again:
 * whoever could tell by the time already holds the connection of the one it is of. */
static inline int hr_may(hr_connection *connection, hr_span header, hr_permission permission)
{
    hr_server *server = connection->loop->server;
    size_t bytes = hr_span_bytes(header);
    int may, granted;
    hr_lock_shared(&server->access_lock);
    may = server->access[HR_CREDENTIAL_TOKEN][permission].is_open;
    if (!may && (bytes > 0 || connection->has_identity)) {
        if (connection->access_generation == server->access_generation && connection->authorization_bytes == bytes
            && (bytes == 0 || CRYPTO_memcmp(connection->authorization, header.at, bytes) == 0))
            granted = connection->access_granted;
        else if ((granted = hr_permissions(connection, header)) && bytes <= HR_H2_AUTHORIZATION_KEPT) {
            if (bytes > 0) memcpy(connection->authorization, header.at, bytes);
            connection->authorization_bytes = (uint32_t)bytes;
            connection->access_generation = server->access_generation;
            connection->access_granted = granted;
        }
        may = granted >> permission & 1;
    }
    hr_unlock_shared(&server->access_lock);
    return may;
}

/* Whether a trace of this call is wanted, which only Python can take. */
static inline int hr_is_sampled(hr_loop *loop)
{
    if (loop->server->sample_one_in == 0 || ++loop->sample_count < loop->server->sample_one_in) return 0;
    loop->sample_count = 0;
    return 1;
}

/* The first authorization header, or nothing. */
static inline hr_span hr_authorization(const hr_fields *fields)
{
    hr_span none = {NULL, NULL};
    for (uint32_t i = 0; i < fields->count; i++)
        if (hr_span_is(hr_field_name(fields, i), "authorization")) return hr_field_value(fields, i);
    return none;
}

static inline hr_method hr_method_of(hr_span path)
{
    if (hr_span_is(path, HR_H2_FEATURES_PATH)) return HR_METHOD_FEATURES;
    if (hr_span_is(path, HR_H2_ROWS_PATH)) return HR_METHOD_ROWS;
    return hr_span_is(path, HR_H2_HEALTH_PATH) ? HR_METHOD_HEALTH : HR_METHOD_OTHER;
}

/* Whether the caller may call a method that the loop answers. */
static inline int hr_may_call(hr_connection *connection, hr_span authorization, hr_method method)
{
    if (method == HR_METHOD_HEALTH) return connection->loop->server->is_health_open;
    return hr_may(connection, authorization, method == HR_METHOD_ROWS ? HR_PERMISSION_PEER : HR_PERMISSION_READ);
}

/* Whether a stream whose headers are whole may be answered in the loop, once its message is. */
static inline int hr_is_ours_to_answer(hr_stream *stream)
{
    hr_fields *fields = &stream->request;
    hr_span authorization = {NULL, NULL};
    int is_post = 0, is_grpc = 0, is_traced = 0;
    for (uint32_t i = 0; i < fields->count; i++) {
        hr_span name = hr_field_name(fields, i), value = hr_field_value(fields, i);
        switch (hr_span_bytes(name)) {
        case 5:
            if (hr_span_is(name, ":path")) stream->method = hr_method_of(value);
            break;
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
    if (!is_post || stream->method == HR_METHOD_OTHER || !is_grpc) return 0;
    if (!hr_may_call(stream->connection, authorization, stream->method)) return 0;
    if (stream->method == HR_METHOD_HEALTH || stream->connection->loop->server->sample_one_in == 0) return 1;
    stream->is_sampled = !is_traced && hr_is_sampled(stream->connection->loop);
    return !is_traced && !stream->is_sampled;
}

/* HealthCheckResponse of a part that is known: field 1 is its state. HealthCheckRequest names it in field 1. */
static inline int hr_answer_health(hr_server *server, hr_span message, uint8_t **answer, size_t *bytes)
{
    hr_span name = {message.at, message.at};
    uint32_t field, type;
    int state = 0;
    while (message.at < message.end)
        if (!hr_read_tag(&message, &field, &type) || field != 1 || type != HR_WIRE_LEN || !hr_read_bytes(&message, &name))
            return HR_MISS;
    hr_lock_shared(&server->access_lock);
    for (uint32_t i = 0; i < server->health_count && state == 0; i++)
        if (server->healths[i].name_bytes == hr_span_bytes(name)
            && memcmp(server->healths[i].name, name.at, hr_span_bytes(name)) == 0)
            state = server->healths[i].state;
    hr_unlock_shared(&server->access_lock);
    if (state == 0) return HR_MISS;
    *bytes = HR_GRPC_PREFIX_BYTES + 2;
    *answer = malloc(*bytes);
    if (*answer == NULL) return HR_E_NO_MEMORY;
    memcpy(*answer, (const uint8_t[]){0, 0, 0, 0, 2, 1 << 3 | HR_WIRE_VARINT, (uint8_t)state}, *bytes);
    return HR_OK;
}

/* The one message of a unary call, or 0 where the bytes are not just that, uncompressed. */
static inline int hr_grpc_message(const hr_buffer *in, hr_span *message)
{
    size_t bytes = hr_buffer_bytes(in);
    const uint8_t *at = in->data + in->start;
    if (bytes < HR_GRPC_PREFIX_BYTES || at[0] != 0 || hr_load_u32_be(at + 1) != bytes - HR_GRPC_PREFIX_BYTES) return 0;
    message->at = at + HR_GRPC_PREFIX_BYTES;
    message->end = at + bytes;
    return 1;
}

/* Prefix and message of the answer, for the caller to free. HR_E_RESPONSE_TOO_LARGE is beyond `room`; `waits` tells
 * whether the read may have to wait for a write. On HR_OK the caller ends the draft, once it knows that it is served. */
static inline int hr_answer_message(
    hr_server *server, hr_span message, size_t room, uint8_t **answer, size_t *bytes, int *waits, hr_served_draft *draft)
{
    hr_call call;
    struct timespec now;
    int64_t read_us;
    int status;
    clock_gettime(CLOCK_REALTIME, &now);
    read_us = now.tv_sec * 1000000LL + now.tv_nsec / 1000;
    memset(&call, 0, sizeof(call));
    call.room = room > HR_GRPC_PREFIX_BYTES ? room - HR_GRPC_PREFIX_BYTES : 1;
    hr_served_choose(server->served, draft, NULL, message.at, hr_span_bytes(message), read_us);
    hr_lock_shared(&server->published->lock);
    status = hr_call_begin(
        &call, server->table, server->published->plans, NULL, NULL, read_us, message.at, hr_span_bytes(message));
    if (status == HR_OK && call.response_bytes + HR_GRPC_PREFIX_BYTES > room) status = HR_E_RESPONSE_TOO_LARGE;
    *waits = call.request.min_offset_count > 0;
    if (status == HR_OK) {
        *bytes = call.response_bytes + HR_GRPC_PREFIX_BYTES;
        *answer = malloc(*bytes);
        status = *answer != NULL ? HR_OK : HR_E_NO_MEMORY;
    }
    if (status == HR_OK) {
        hr_served_note(draft, &call, NULL);
        (*answer)[0] = 0;
        hr_store_u32_be(*answer + 1, (uint32_t)call.response_bytes);
        status = hr_write_answer(&call, *answer + HR_GRPC_PREFIX_BYTES);
        if (status != HR_OK) free(*answer);
    }
    if (status != HR_OK) hr_served_finish(draft, NULL);
    hr_call_end(&call);
    hr_unlock_shared(&server->published->lock);
    return status;
}

#endif
