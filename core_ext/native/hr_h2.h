/* Shapes and bounds of the native loop: threads that speak HTTP/2 by libnghttp2.
 *
 * One front connection carries the streams of one client. A read whose rows are all in the table is answered in
 * the loop; one that misses rows, or is refused, is handed to a worker that has the interpreter and comes back as a
 * job; every other stream is forwarded, frame by frame, to the grpcio server of this process over one connection of
 * its own (the back), which is opened when it is first needed. So whatever is odd, a compressed message, a refused
 * token, another method, is answered by the code that answers it without the loop.
 *
 * Ownership: a connection and all it holds belong to the one thread of its loop; nothing of it is locked. Other
 * threads touch a loop through `inbox` and `done` (under its lock), `draining` and `stopping` (atomic) and the
 * eventfd. */
#ifndef HR_H2_H
#define HR_H2_H

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hr_answer.h"
#include "hr_h2_buffer.h"
#include "hr_published.h"
#include "hr_served.h"

enum {
    HR_H2_LOOPS_MAX = 64,
    HR_H2_CONNECTIONS_MAX = 4096,             /* of all loops; each may need two descriptors of the 16,384 */
    HR_H2_STREAMS_MAX = 1024,                 /* of a connection, as the grpcio server has it */
    HR_H2_METADATA_BYTES_MAX = 16 << 10,      /* as the grpcio server has it; counted as HPACK counts, 32 a field */
    HR_H2_FIELDS_MAX = 128,
    HR_H2_REQUEST_BYTES_MAX = 192 << 10,      /* within a stream's window; larger ones are forwarded as they arrive */
    HR_H2_HELD_BYTES_MAX = 4 << 20,           /* requests of one connection that wait for their end */
    HR_H2_ANSWER_BYTES_MAX = 4 << 20,         /* a larger answer takes the loop for milliseconds: forwarded */
    HR_H2_MEMORY_BYTES = 512 << 20,           /* of all connections, unless the server is told otherwise */
    HR_H2_MEMORY_BYTES_MIN = 16 << 20,
    HR_H2_ANSWERS_BYTES_MAX = 16 << 20,       /* unsent answers of one connection; then reads are forwarded */
    HR_H2_FRONT_STREAM_WINDOW = 256 << 10,
    HR_H2_FRONT_WINDOW = 16 << 20,            /* 64 stalled uploads do not stop the others */
    HR_H2_BACK_STREAM_WINDOW = 256 << 10,     /* what a slow reader makes us hold per stream */
    HR_H2_BACK_WINDOW = 1 << 28,              /* all streams' windows: a slow one does not stop the others */
    HR_H2_OUT_BYTES = 64 << 10,               /* frames prepared ahead of the socket */
    HR_H2_SCRATCH_BYTES = 64 << 10,
    HR_TLS_PLAIN_BYTES = 16 << 10,            /* of one record */
    HR_TLS_SHAKING_MAX = 512,                 /* handshakes that run in all loops; a new one puts out the oldest */
    HR_TLS_SHAKES_MAX = 2,                    /* steps of handshakes in one wake: about a millisecond of RSA */
    HR_TLS_IDENTITY_BYTES = 32,               /* SHA-256 of what a certificate names */
    HR_TLS_SECRET_BYTES = 64,                 /* by which the back knows that an identity is of ours */
    HR_H2_RECEIVES_MAX = 4,                   /* reads of one socket before others get their turn */
    HR_H2_EVENTS_MAX = 64,
    HR_H2_TOKEN_BYTES_MAX = 4096,             /* headrace/serving/auth.py */
    HR_H2_AUTHORIZATION_KEPT = 256,           /* longer headers are hashed at every call */
    HR_H2_MISSES_MAX = 1024,                  /* reads that wait for a worker, as many as the grpcio server runs */
    HR_H2_OPEN_MAX = 4096,                    /* with those that workers took and that wait for peers */
    HR_H2_MISSES_BYTES_MAX = 32 << 20,        /* of the requests of all of them */
    HR_H2_TURN_MAX = 16,                      /* jobs that a worker takes at once: about a millisecond of Python */
    HR_H2_TURN_BYTES_MAX = 2 << 10,           /* of their requests, as those of a turn wait for one another's rows here */
    HR_GRPC_PREFIX_BYTES = 5,
    HR_GRPC_EXHAUSTED = 8,
    HR_H2_BUCKETS = 42                        /* latency buckets of headrace/serving/call_metrics.py, plus one */
};
enum {
    HR_H2_TICK_MS = 500,
    HR_H2_HEADER_S = 10,                      /* a header block, or the preface, must be whole within it */
    HR_TLS_HANDSHAKE_S = 5,
    HR_H2_BODY_S = 10,                        /* then a read that is still arriving is forwarded */
    HR_H2_KEEPALIVE_S = 60,                   /* silence after which we ping, as the grpcio server has it */
    HR_H2_KEEPALIVE_TIMEOUT_S = 20,
    HR_H2_IDLE_S = 600,                       /* a connection without a stream is told to leave; clients open another */
    HR_H2_STALL_S = 60,                       /* a socket that takes no byte of ours this long is closed */
    HR_H2_PING_S = 10,                        /* pings may come this often without data; gRPC's own rule */
    HR_H2_PING_STRIKES_MAX = 2,
    HR_H2_BUDGET = 2000,                      /* control frames at once: resets and priorities 1, SETTINGS 20 */
    HR_H2_BUDGET_PER_S = 500                  /* resets of a client that cancels every other call at 1,000/s */
};

#define HR_H2_SECOND 1000000000LL

typedef struct {
    uint32_t name_at, value_at;
    uint16_t name_bytes, value_bytes;
} hr_field;

/* Header fields in the order they came; text and fields stay allocated while their stream is reused. */
typedef struct {
    hr_buffer text;
    hr_field *fields;
    uint32_t count, list_bytes;
    int too_large;
} hr_fields;

/* READ: its message is arriving; AWAITED: a worker has it. */
typedef enum {
    HR_STREAM_OPENING, HR_STREAM_READ, HR_STREAM_AWAITED, HR_STREAM_FORWARDED, HR_STREAM_ANSWERED
} hr_stream_kind;

/* What the loop may answer itself. */
typedef enum { HR_METHOD_OTHER, HR_METHOD_FEATURES, HR_METHOD_ROWS, HR_METHOD_HEALTH } hr_method;

struct hr_connection;

typedef struct hr_stream {
    struct hr_connection *connection;
    struct hr_stream *next, *previous;
    hr_stream_kind kind;
    hr_method method;
    int32_t id, back_id;                      /* back_id 0: no stream behind */
    int64_t begin_ns, timeout_ns;             /* timeout -1: none */
    hr_fields request, response, trailers;
    hr_buffer in;                             /* request bytes that wait, for their end or for the back */
    hr_buffer out;                            /* response bytes of the back that wait for the front */
    int is_ended, is_deferred, is_sampled;    /* request: its end came; the back's reader sleeps; a trace is wanted */
    int response_begun, response_ended, out_deferred;
    uint32_t back_error;
    uint8_t *answer;                          /* prefix and message of an answered read */
    size_t answer_bytes, answer_at;
    struct hr_job *job;                       /* of a read that a worker has */
} hr_stream;

/* A read on its way to a worker and back: hr_h2_misses.h. */
typedef struct hr_job {
    struct hr_job *next;
    struct hr_loop *loop;
    hr_stream *stream;
    int is_cancelled;                         /* atomic */
    int is_alone;                             /* it may wait for a write: nothing else waits behind it */
    int64_t begin_ns, deadline_ns;            /* deadline 0: none */
    int is_over;                              /* there was no room for its answer */
    uint32_t code;                            /* status; of an error `answer` is its sentence and its details */
    uint8_t *answer;
    size_t answer_bytes, counted_bytes, details_at, request_bytes, authorization_bytes;
    size_t identity_bytes;                    /* 0 or HR_TLS_IDENTITY_BYTES */
    uint8_t identity[HR_TLS_IDENTITY_BYTES];
    uint8_t data[];                           /* request message, then authorization header */
} hr_job;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed, gone;             /* a job or the end came; a worker left */
    hr_job *first, *last;
    size_t bytes;                             /* of the requests that wait or are open */
    uint32_t count, worker_count, idle_count;
    uint32_t open_count;                      /* jobs that were taken and are not posted */
    int is_waking, is_closed;
} hr_misses;

typedef struct {
    struct hr_connection *connection;         /* NULL: a descriptor of the loop itself */
    int fd, is_back, is_writing;              /* is_writing: EPOLLOUT is asked for */
} hr_source;

typedef struct hr_connection {
    struct hr_loop *loop;
    struct hr_connection *next, *previous, *next_answered;
    hr_source front_source, back_source;
    nghttp2_session *front, *back;
    hr_buffer front_out, back_out;
    hr_stream *streams;
    uint32_t stream_count;
    size_t held_bytes, answers_bytes;
    uint64_t memory_bytes, wire_bytes;        /* that hr_hold counts; of them the buffers of the sockets */
    int64_t moved_ns;                         /* when a byte of an answer last went out */
    int64_t open_ns, received_ns, header_ns, ping_sent_ns, ping_received_ns, stalled_ns, budget_ns;
    int64_t idle_ns;                          /* since when it has no stream; 0: it has one */
    int64_t budget;
    int settled, ping_strikes, shutdown_stage, is_closing, is_dead, is_answered;
    uint64_t access_generation;
    int access_granted;                       /* bits of hr_permission that `authorization` has */
    uint32_t authorization_bytes;
    uint8_t authorization[HR_H2_AUTHORIZATION_KEPT];

    SSL *tls;                                 /* NULL: plain */
    hr_span wire;                             /* received records while OpenSSL reads them */
    hr_buffer sealed;                         /* records that wait for the socket */
    size_t handshake_bytes;
    int is_shaking, has_identity, is_expired; /* in the line of handshakes; who its certificate names; it is over */
    struct hr_connection *shaking_next, *shaking_previous;
    int64_t identity_until_ns;
    uint8_t identity[HR_TLS_IDENTITY_BYTES];
    char forwarded_identity[HR_TLS_SECRET_BYTES + 2 * HR_TLS_IDENTITY_BYTES + 1];
} hr_connection;

typedef enum { HR_PERMISSION_READ, HR_PERMISSION_PEER, HR_PERMISSIONS } hr_permission;

/* Kept apart, so that no token passes for a certificate. */
typedef enum { HR_CREDENTIAL_TOKEN, HR_CREDENTIAL_CERTIFICATE, HR_CREDENTIALS } hr_credential;

/* Who holds a permission: digests of the tokens, or identities of the certificates, whose principals do. */
typedef struct {
    int is_open;                              /* no tokens: everybody does */
    uint32_t count;
    uint8_t (*digests)[32];
} hr_access;

enum { HR_HEALTH_NAME_BYTES_MAX = 64, HR_HEALTH_NAMES_MAX = 2048 };

/* State of a part, as grpc.health.v1 names and numbers it. */
typedef struct {
    uint32_t name_bytes;
    char name[HR_HEALTH_NAME_BYTES_MAX];
    uint8_t state;
} hr_health;

/* Answered calls of one method. */
typedef struct {
    uint64_t answered, seconds_ns, buckets[HR_H2_BUCKETS];
} hr_calls;

/* Counts of one loop; read by others with relaxed loads. */
typedef struct {
    hr_calls features, rows;
    hr_calls turns;                           /* reads by the time from the wake of the loop to the socket */
    uint64_t missed, full, forwarded, connections, refused_connections, abusive_connections, timed_out_connections, idle_connections;
    uint64_t memory_refused, greedy_connections;
    uint64_t handshakes, failed_handshakes, evicted_handshakes;
} hr_counts;

typedef struct hr_loop {
    struct hr_server *server;
    int number, epoll, event;
    pthread_t thread;
    int is_started;
    hr_source event_source, listen_source;
    pthread_mutex_t lock;
    int *inbox;
    uint32_t inbox_count;
    hr_job *done;
    hr_connection *connections, *dead;
    hr_connection *shaking_first, *shaking_last;  /* handshakes that run, the oldest first */
    uint32_t shaking_count, shakes_left;
    hr_stream *spare;
    uint32_t spare_count, sample_count;
    uint32_t stream_count;                    /* atomic: open streams of all connections */
    uint64_t credit_bytes;                    /* of the server's memory, taken ahead: hr_h2_memory.h */
    int64_t now_ns, ticked_ns;
    int is_accepting, drain_stage;
    nghttp2_session_callbacks *front_callbacks, *back_callbacks;
    nghttp2_option *option;
    hr_counts counts;
    uint8_t scratch[HR_H2_SCRATCH_BYTES];
    uint8_t plain[HR_TLS_PLAIN_BYTES];
} hr_loop;

typedef struct hr_server {
    hr_table *table;
    hr_published *published;
    hr_served *served;                        /* NULL: no reads are logged */
    hr_lock access_lock;                      /* of what follows to the blank line, and of the end of the loops */
    hr_access access[HR_CREDENTIALS][HR_PERMISSIONS];
    uint64_t access_generation;
    SSL_CTX *tls;                             /* of connections to come; NULL: they are plain */
    hr_health *healths;
    uint32_t health_count;
    int is_health_open;                       /* anybody may ask for it */

    hr_loop *loops[HR_H2_LOOPS_MAX];
    uint32_t loop_count, next_loop;
    int listener;
    char back_name[64];                       /* of the abstract unix socket */
    uint32_t sample_one_in;                   /* 0: no traces are taken */
    uint32_t connections_max, idle_s;
    uint32_t shaking_max;                     /* of each loop */
    BIO_METHOD *bio_method;                   /* NULL: plain; set before the loops start */
    char secret[HR_TLS_SECRET_BYTES + 1];
    uint32_t connection_count;                /* atomic */
    int draining, stopping;                   /* atomic */
    uint64_t memory_max, memory_bytes;        /* of all connections together; the second is atomic */
    hr_misses misses;
    const char *full_message, *full_details;  /* refusal of a read for which the queue has no room */
    const char *memory_message, *memory_details;  /* refusal of a read whose answer there is no memory for */
    hr_counts ended;                          /* of loops that are gone */
} hr_server;

/* ---- small things that every part needs ---- */

static inline int64_t hr_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * HR_H2_SECOND + now.tv_nsec;
}

static inline void hr_count(uint64_t *counter, uint64_t more)
{
    /* One writer: a plain load is enough, the store must only not tear. */
    __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

/* Whether a stream's request counts among `held_bytes`. */
static inline int hr_is_held(const hr_stream *stream)
{
    return stream->kind == HR_STREAM_READ || stream->kind == HR_STREAM_AWAITED;
}

static inline void hr_fields_reset(hr_fields *fields)
{
    hr_buffer_reset(&fields->text);
    fields->count = fields->list_bytes = 0;
    fields->too_large = 0;
}

static inline void hr_fields_free(hr_fields *fields)
{
    hr_buffer_free(&fields->text);
    free(fields->fields);
    fields->fields = NULL;
}

/* Adds a field, or notes that the list is beyond its bound and drops what follows. */
static inline int hr_fields_add(hr_fields *fields, const uint8_t *name, size_t name_bytes, const uint8_t *value, size_t value_bytes)
{
    hr_field *field;
    size_t bytes = name_bytes + value_bytes + 32;
    if (fields->too_large || fields->count == HR_H2_FIELDS_MAX || fields->list_bytes + bytes > HR_H2_METADATA_BYTES_MAX) {
        fields->too_large = 1;
        return HR_OK;
    }
    if (fields->fields == NULL) fields->fields = malloc(HR_H2_FIELDS_MAX * sizeof(hr_field));
    if (fields->fields == NULL) return HR_E_NO_MEMORY;
    fields->list_bytes += (uint32_t)bytes;
    field = &fields->fields[fields->count];
    field->name_at = (uint32_t)fields->text.end;
    field->value_at = field->name_at + (uint32_t)name_bytes;
    field->name_bytes = (uint16_t)name_bytes;
    field->value_bytes = (uint16_t)value_bytes;
    if (hr_buffer_add(&fields->text, name, name_bytes) != HR_OK) return HR_E_NO_MEMORY;
    if (hr_buffer_add(&fields->text, value, value_bytes) != HR_OK) return HR_E_NO_MEMORY;
    fields->count++;
    return HR_OK;
}

static inline hr_span hr_field_name(const hr_fields *fields, uint32_t i)
{
    const uint8_t *at = fields->text.data + fields->fields[i].name_at;
    hr_span span = {at, at + fields->fields[i].name_bytes};
    return span;
}

static inline hr_span hr_field_value(const hr_fields *fields, uint32_t i)
{
    const uint8_t *at = fields->text.data + fields->fields[i].value_at;
    hr_span span = {at, at + fields->fields[i].value_bytes};
    return span;
}

static inline int hr_span_is(hr_span span, const char *text)
{
    size_t bytes = strlen(text);
    return hr_span_bytes(span) == bytes && memcmp(span.at, text, bytes) == 0;
}

static inline int hr_span_begins(hr_span span, const char *text)
{
    size_t bytes = strlen(text);
    return hr_span_bytes(span) >= bytes && memcmp(span.at, text, bytes) == 0;
}

static inline nghttp2_nv hr_nv(const char *name, const char *value)
{
    nghttp2_nv nv = {(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NO_COPY_NAME};
    return nv;
}

#endif
