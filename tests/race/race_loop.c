/* Runs the native loop with clients, workers and writers of the table at once, and checks what clients read.
 *
 *   race_loop SECONDS SEED CLIENTS [tls]
 *
 * Clients read features and rows and ask for health over loopback, cancel some calls and leave in the middle of others.
 * Meanwhile rows change, plans are published, tokens, certificates and health are set, and workers answer what misses or
 * leave it to a thread that answers late. At the end the server drains beside running clients. Over TLS half of the
 * clients show a certificate in place of a token. */
#define _GNU_SOURCE
#include <arpa/inet.h>

#include "hr_h2_server.h"
#include "certificate.h"
#include "hr_read_answer.h"
#include "rows.h"

enum {
    ENTITIES = 256, LOOPS = 2, WORKERS = 3, WRITERS = 2, CLIENTS_MAX = 16,
    CALLS = 12,                  /* of one connection at once */
    ROUNDS = 20,                 /* of one connection */
    CAPACITY_BYTES = 420 << 10,  /* fewer than all rows, so that reads miss */
    VALUE_OFFSET = 72            /* second word of a row */
};
enum { FEATURES, ROWS, HEALTH, KINDS };

static const char *const paths[KINDS] = {HR_H2_FEATURES_PATH, HR_H2_ROWS_PATH, HR_H2_HEALTH_PATH};
static hr_server server;
static uint32_t committed[ENTITIES], published[ENTITIES];   /* atomic */
static int stopping, stopped;                               /* atomic */
static pthread_mutex_t late_lock = PTHREAD_MUTEX_INITIALIZER;
static hr_job *late;                                        /* under its lock */
static uint64_t answers[KINDS], others, jobs_done;          /* atomic */
static uint16_t port;
static own_certificate own;
static SSL_CTX *contexts[2];     /* of clients, the second shows the certificate; NULL: plain */

/* ---- plans ---- */

static hr_join_key join_key = {(const uint8_t *)"k", 1, HR_I64};
static hr_lookup lookup = {1, 1, {0}, 0, 1};
static hr_group group = {NULL, 0, 0, 0, VALUE_OFFSET + 8, 2, 0, 0, 0, 0, 1};
static uint32_t by_group;
static hr_output output = {
    {HR_I64, HR_SINGLE, 8, 0, 0, 8, VALUE_OFFSET}, 0, 0, (const uint8_t *)"", (const uint8_t *)"\x32\x02\x08\x03", NULL, 0, 4, 0, 0, 0, 1};
static hr_plan plans[2];
static hr_plan_name names[2][4];
static hr_plan_set sets[2] = {{3, 1, names[0]}, {3, 2, names[1]}};

static void make_plans(void)
{
    for (int i = 0; i < 2; i++) {
        plans[i] = (hr_plan){
            .revision = i + 1, .join_key_count = 1, .lookup_count = 1, .group_count = 1, .output_count = 1,
            .join_keys = &join_key, .lookups = &lookup, .groups = &group, .outputs = &output, .by_group = &by_group};
        hr_plan_set_add(&sets[i], (const uint8_t *)"a.b.c", 5, &plans[i]);
    }
}

/* ---- what changes beside the loops ---- */

static void put_one(uint32_t entity, int is_write)
{
    uint8_t prefix[PREFIX_BYTES], row[HR_ROW_BITMAP + 8 * WORDS_MAX + 4];
    uint64_t ticket = hr_table_ticket(server.table);
    uint32_t version = __atomic_load_n(&committed[entity], __ATOMIC_SEQ_CST) + (uint32_t)is_write;
    hr_row_put put = {0, version > 0 ? make_row(row, entity, 0, version) : 0, version > 0 ? row : NULL};
    prefix_of(entity, prefix);
    if (!is_write) {
        hr_table_fill(server.table, prefix, PREFIX_BYTES, &put, 1, ticket);
        return;
    }
    __atomic_store_n(&committed[entity], version, __ATOMIC_SEQ_CST);
    hr_table_apply(server.table, prefix, PREFIX_BYTES, &put, 1);
    __atomic_store_n(&published[entity], version, __ATOMIC_SEQ_CST);
}

static void *writes(void *argument)
{
    worker *self = argument;
    while (!__atomic_load_n(&stopping, __ATOMIC_RELAXED)) {
        put_one(draw(self, ENTITIES / WRITERS) * WRITERS + self->number % WRITERS, 1);
        put_one(draw(self, ENTITIES), 0);
        if (draw(self, 16) == 0) usleep(100);
    }
    return NULL;
}

static void set_certificate(void)
{
    char problem[256];
    SSL_CTX *context = hr_tls_context(own.certificate_pem, own.key_pem, own.certificate_pem, problem, sizeof(problem));
    if (context == NULL || hr_server_set_tls(&server, context) != HR_OK) exit(2);
}

static void *administers(void *argument)
{
    worker *self = argument;
    while (!__atomic_load_n(&stopping, __ATOMIC_RELAXED)) {
        uint8_t (*digests)[32] = calloc(2, 32);
        hr_counts counts;
        SHA256((const uint8_t *)"token", 5, digests[draw(self, 2)]);
        hr_server_set_access(&server, HR_CREDENTIAL_TOKEN, HR_PERMISSION_READ, 0, digests, 2);
        digests = calloc(2, 32);
        hr_tls_name("name", (const uint8_t *)CERTIFICATE_NAME, strlen(CERTIFICATE_NAME), digests[draw(self, 2)]);
        hr_server_set_access(&server, HR_CREDENTIAL_CERTIFICATE, HR_PERMISSION_READ, 0, digests, 2);
        if (contexts[0] != NULL) set_certificate();
        hr_server_set_health(&server, "", 0, (uint8_t)(1 + draw(self, 2)));
        hr_publish(server.published, &sets[draw(self, 2)]);
        hr_server_counts(&server, &counts);
        hr_server_streams(&server);
        usleep(1000);
    }
    return NULL;
}

/* Answers a job, refuses it or leaves it as it is, and posts it. */
static void settle(worker *self, hr_job *job)
{
    uint32_t choice = hr_job_is_cancelled(job) ? 9 : draw(self, 10);
    if (choice < 6) hr_job_answer(job, job->data, job->request_bytes);
    else if (choice < 9) hr_job_refuse(job, 9, "no", "CAE");
    hr_job_post(job);
    __atomic_add_fetch(&jobs_done, 1, __ATOMIC_RELAXED);
}

/* Hands a job on to the thread that gives late outcomes. */
static void put_off(hr_job *job)
{
    pthread_mutex_lock(&late_lock);
    job->next = late;
    late = job;
    pthread_mutex_unlock(&late_lock);
}

/* Gives outcomes of jobs that workers took, also of those that are open while the server stops. */
static void *gives(void *argument)
{
    while (!__atomic_load_n(&stopped, __ATOMIC_ACQUIRE)) {
        hr_job *job;
        pthread_mutex_lock(&late_lock);
        job = late;
        late = NULL;
        pthread_mutex_unlock(&late_lock);
        while (job != NULL) {
            hr_job *next = job->next;
            settle(argument, job);
            job = next;
        }
        usleep(2000);
    }
    return NULL;
}

static void *works(void *argument)
{
    worker *self = argument;
    hr_job *jobs[HR_H2_TURN_MAX];
    if (!hr_misses_join(&server.misses)) return NULL;
    while (hr_misses_wait(&server.misses)) {
        uint32_t count = hr_misses_take(&server.misses, jobs);
        for (uint32_t i = 0; i < count; i++) {
            put_one(draw(self, ENTITIES), 0);
            if (draw(self, 8) == 0) usleep(200);
            if (draw(self, 3) == 0) put_off(jobs[i]);
            else settle(self, jobs[i]);
        }
    }
    hr_misses_leave(&server.misses);
    return NULL;
}

/* ---- a client ---- */

typedef struct {
    int kind, is_open;
    uint32_t entity, least;
} call;

typedef struct {
    worker self;
    int fd;
    SSL *tls;                    /* NULL: plain */
    uint32_t stream, open_count;
    call calls[CALLS];
    uint8_t in[1 << 16];
    size_t in_bytes;
} client;

static int shows(const client *one) { return contexts[0] != NULL && one->self.number % 2 == 1; }

/* Connects, or tells that the server takes no more. */
static int meet(client *one)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(one->fd, (struct sockaddr *)&address, sizeof(address)) != 0) return 0;
    if (contexts[0] == NULL) return 1;
    one->tls = SSL_new(contexts[shows(one)]);
    return one->tls != NULL && SSL_set_fd(one->tls, one->fd) == 1 && SSL_connect(one->tls) == 1;
}

static int say(client *one, const void *data, size_t bytes)
{
    size_t written;
    if (one->tls != NULL) return SSL_write_ex(one->tls, data, bytes, &written) == 1;
    return send(one->fd, data, bytes, MSG_NOSIGNAL) > 0;
}

/* As recv: 0 and less where nothing came. */
static ssize_t take(client *one, void *to, size_t room)
{
    errno = 0;
    return one->tls != NULL ? SSL_read(one->tls, to, (int)room) : recv(one->fd, to, room, 0);
}

static void part(client *one)
{
    SSL_free(one->tls);
    one->tls = NULL;
    close(one->fd);
}

static uint8_t *put_frame(uint8_t *out, size_t bytes, uint8_t type, uint8_t flags, uint32_t stream)
{
    hr_store_u32_be(out, (uint32_t)bytes << 8 | type);
    out[4] = flags;
    hr_store_u32_be(out + 5, stream);
    return out + 9;
}

static uint8_t *put_field(uint8_t *out, const char *name, const char *value)
{
    *out++ = 0;
    for (int i = 0; i < 2; i++) {
        const char *text = i == 0 ? name : value;
        size_t bytes = strlen(text);
        *out++ = (uint8_t)bytes;
        memcpy(out, text, bytes);
        out += bytes;
    }
    return out;
}

static uint8_t *put_message(uint8_t *out, const call *asked)
{
    uint8_t *start = out;
    out += HR_GRPC_PREFIX_BYTES;
    if (asked->kind == ROWS) {
        out = hr_write_length(out, 2, PREFIX_BYTES + 4);
        prefix_of(asked->entity, out);
        hr_store_u32_be(out + PREFIX_BYTES, 0);
        out += PREFIX_BYTES + 4;
    } else if (asked->kind == FEATURES) {
        /* service "a.b.c"; entity column "k" of one fixed64, as protos/feature/v1 has them */
        static const uint8_t head[] = {0x0a, 5, 'a', '.', 'b', '.', 'c', 0x22, 13, 0x0a, 1, 'k', 0x12, 8};
        memcpy(out, head, sizeof(head));
        out += sizeof(head);
        hr_store_u64(out, asked->entity);
        out += 8;
    }
    start[0] = 0;
    hr_store_u32_be(start + 1, (uint32_t)(out - start - HR_GRPC_PREFIX_BYTES));
    return out;
}

static void ask(client *one, uint32_t at)
{
    uint8_t out[1024], *block = out + 9, *end, *body;
    call *asked = &one->calls[at];
    *asked = (call){(int)draw(&one->self, KINDS), 1, draw(&one->self, ENTITIES), 0};
    asked->least = __atomic_load_n(&published[asked->entity], __ATOMIC_SEQ_CST);
    end = put_field(block, ":method", "POST");
    end = put_field(end, ":scheme", "http");
    end = put_field(end, ":path", paths[asked->kind]);
    end = put_field(end, ":authority", "t");
    end = put_field(end, "content-type", "application/grpc");
    end = put_field(end, "te", "trailers");
    if (!shows(one)) end = put_field(end, "authorization", "Bearer token");
    if (draw(&one->self, 4) == 0) end = put_field(end, "grpc-timeout", "5S");
    put_frame(out, (size_t)(end - block), NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, one->stream + 2 * at);
    body = end + 9;
    body = put_message(body, asked);
    put_frame(end, (size_t)(body - end - 9), NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, one->stream + 2 * at);
    if (draw(&one->self, 10) == 0) {
        uint8_t *code = put_frame(body, 4, NGHTTP2_RST_STREAM, 0, one->stream + 2 * at);
        hr_store_u32_be(code, NGHTTP2_CANCEL);
        body = code + 4;
        asked->is_open = 0;
    }
    one->open_count += (uint32_t)asked->is_open;
    if (!say(one, out, (size_t)(body - out))) one->open_count = 0;
}

static void check_features(const call *asked, hr_span message)
{
    hr_answer_head head;
    hr_answer_column column;
    uint64_t value;
    if (!hr_read_answer(message, &head, NULL) || head.column_count != 1 || !hr_read_answer(message, &head, &column)) {
        /* A worker sends the request back. */
        if (hr_span_bytes(message) < 2 || message.at[0] != 0x0a || message.at[1] != 5) fault("no answer", asked->entity, 0, 0, 0);
        return;
    }
    if (column.blocks[HR_BLOCK_STATUSES].at == NULL || *column.blocks[HR_BLOCK_STATUSES].at != 1) return;  /* no row yet */
    value = hr_load_u64(column.blocks[HR_BLOCK_VALUES].at);
    if (value >> 32 != asked->entity) fault("another entity", asked->entity, 0, (uint32_t)(value >> 32), 0);
    if ((uint32_t)value < asked->least) fault("an old value", asked->entity, 0, (uint32_t)value, asked->least);
}

static void check(const call *asked, hr_span data)
{
    hr_span message = {data.at + HR_GRPC_PREFIX_BYTES, data.end}, row;
    uint32_t field, type;
    if (hr_span_bytes(data) < HR_GRPC_PREFIX_BYTES || data.at[0] != 0
        || hr_load_u32_be(data.at + 1) != hr_span_bytes(message)) {
        fault("a torn message", asked->entity, 0, 0, 0);
        return;
    }
    __atomic_add_fetch(&answers[asked->kind], 1, __ATOMIC_RELAXED);
    if (asked->kind == FEATURES) check_features(asked, message);
    if (asked->kind != ROWS) return;
    if (!hr_read_tag(&message, &field, &type) || field != 1 || !hr_read_bytes(&message, &row)) fault("no row", asked->entity, 0, 0, 0);
    else if (hr_span_bytes(row) > 0) check_row(row.at, asked->entity, 0, asked->least);
}

/* Takes one frame. Returns 0 where the server says goodbye. */
static int hear(client *one, const uint8_t *frame, size_t bytes)
{
    uint32_t stream = hr_load_u32_be(frame + 5) & 0x7fffffff, at = (stream - one->stream) / 2;
    hr_span data = {frame + 9, frame + bytes};
    if (frame[3] == NGHTTP2_GOAWAY) return 0;
    if (stream < one->stream || at >= CALLS || !one->calls[at].is_open) return 1;
    if (frame[3] == NGHTTP2_DATA && bytes > 9) check(&one->calls[at], data);
    if (frame[3] == NGHTTP2_RST_STREAM || (frame[4] & NGHTTP2_FLAG_END_STREAM)) {
        one->calls[at].is_open = 0;
        one->open_count--;
    }
    return 1;
}

static int listen_to(client *one)
{
    while (one->open_count > 0) {
        ssize_t got = take(one, one->in + one->in_bytes, sizeof(one->in) - one->in_bytes);
        size_t at = 0;
        if (got <= 0) {
            if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) fault("a call without an end", one->open_count, 0, 0, 0);
            return 0;
        }
        one->in_bytes += (size_t)got;
        while (one->in_bytes - at >= 9) {
            size_t bytes = 9 + (hr_load_u32_be(one->in + at) >> 8);
            if (one->in_bytes - at < bytes) break;
            if (!hear(one, one->in + at, bytes)) return 0;
            at += bytes;
        }
        memmove(one->in, one->in + at, one->in_bytes - at);
        one->in_bytes -= at;
    }
    return 1;
}

static void *reads(void *argument)
{
    client *one = argument;
    struct timeval limit = {20, 0};
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\4\10\0\0\0\0\0\77\377\0\0";
    while (!__atomic_load_n(&stopping, __ATOMIC_RELAXED)) {
        one->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(one->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
        one->in_bytes = one->open_count = 0;
        one->stream = 1;
        if (meet(one) && say(one, preface, sizeof(preface) - 1))
            for (int round = 0; round < ROUNDS && !__atomic_load_n(&stopping, __ATOMIC_RELAXED); round++) {
                for (uint32_t at = 0; at < CALLS; at++) ask(one, at);
                if (draw(&one->self, 40) == 0 || !listen_to(one)) break;
                one->stream += 2 * CALLS;
            }
        else usleep(1000);
        __atomic_add_fetch(&others, 1, __ATOMIC_RELAXED);
        part(one);
    }
    return NULL;
}

/* ---- the run ---- */

static void begin(void)
{
    static hr_published live;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    make_plans();
    server.table = hr_table_new(CAPACITY_BYTES);
    server.published = &live;
    server.connections_max = 64;
    server.is_health_open = 1;
    server.idle_s = 20;
    server.full_message = "full", server.full_details = "";
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    snprintf(server.back_name, sizeof(server.back_name), "headrace-race-%d", getpid());
    if (server.table == NULL || hr_published_begin(&live, &sets[0]) || hr_misses_begin(&server.misses)
        || hr_lock_init(&server.access_lock) || bind(server.listener, (struct sockaddr *)&address, bytes)
        || listen(server.listener, 64) || getsockname(server.listener, (struct sockaddr *)&address, &bytes)
        || hr_server_build(&server, LOOPS) != HR_OK)
        exit(2);
    if (contexts[0] != NULL) set_certificate();
    if (hr_server_start(&server) != 0) exit(2);
    hr_server_set_access(&server, HR_CREDENTIAL_TOKEN, HR_PERMISSION_PEER, 1, NULL, 0);
    port = address.sin_port;
}

int main(int count_of_words, char **words)
{
    static client clients[CLIENTS_MAX];
    pthread_t threads[CLIENTS_MAX + WORKERS + WRITERS + 1], giving;
    worker workers[WORKERS + WRITERS + 1], giver;
    uint32_t started = 0, client_count, i;
    uint64_t seed;
    if (count_of_words != 4 && count_of_words != 5) return 2;
    if (count_of_words == 5) {
        signal(SIGPIPE, SIG_IGN);
        own = make_certificate();
        contexts[0] = client_context(&own, 0), contexts[1] = client_context(&own, 1);
    }
    seed = strtoull(words[2], NULL, 10);
    client_count = (uint32_t)strtoul(words[3], NULL, 10) % (CLIENTS_MAX + 1);
    begin();
    for (i = 0; i < WORKERS + WRITERS + 1; i++) {
        workers[i] = (worker){(seed + i + 1) * 0x9E3779B97F4A7C15ULL, i};
        pthread_create(&threads[started++], NULL, i < WORKERS ? works : i < WORKERS + WRITERS ? writes : administers, &workers[i]);
    }
    giver = (worker){(seed + 50) * 0x9E3779B97F4A7C15ULL, 0};
    pthread_create(&giving, NULL, gives, &giver);
    for (i = 0; i < client_count; i++) {
        clients[i].self = (worker){(seed + 100 + i) * 0x9E3779B97F4A7C15ULL, i};
        pthread_create(&threads[started++], NULL, reads, &clients[i]);
    }
    usleep((useconds_t)(strtod(words[1], NULL) * 1e6));
    hr_server_drain(&server);
    usleep(300000);
    __atomic_store_n(&stopping, 1, __ATOMIC_RELAXED);
    hr_server_stop(&server);
    if (server.misses.open_count != 0 || server.misses.bytes != 0) fault("jobs that are open", server.misses.open_count, 0, 0, 0);
    __atomic_store_n(&stopped, 1, __ATOMIC_RELEASE);
    pthread_join(giving, NULL);
    for (i = 0; i < started; i++) pthread_join(threads[i], NULL);
    if (server.connection_count != 0) fault("connections that are left", server.connection_count, 0, 0, 0);
    if (server.memory_bytes != 0) fault("bytes that nobody holds any more", server.memory_bytes, 0, 0, 0);
    if (answers[FEATURES] == 0 || answers[ROWS] == 0 || answers[HEALTH] == 0 || jobs_done == 0) fault("an idle thread", 0, 0, 0, 0);
    if (contexts[0] != NULL && server.ended.handshakes == 0) fault("no handshake", 0, 0, 0, 0);
    printf("features %lu rows %lu health %lu jobs %lu hits %lu connections %lu faults %lu\n", answers[FEATURES], answers[ROWS],
           answers[HEALTH], jobs_done, server.ended.features.answered, others, faults);
    hr_published_end(server.published);
    hr_table_free(server.table);
    close(server.listener);
    SSL_CTX_free(contexts[0]), SSL_CTX_free(contexts[1]);
    return faults != 0;
}
