/* One fuzz input against the native loop: what clients send, what the server behind sends, workers, time, in turns.
 *
 * An input is a list of steps: u8 kind, u16 little-endian length, bytes. Kinds: 0 a client's bytes, 1 bytes of the
 * server behind, 2 a turn of the workers, 3 time passes, 4 the client takes what was sent, 5 another client, 6 a client
 * leaves, 7 the server behind leaves, 8 a drain begins, 9 bytes on a client's socket beside TLS. The loop runs in this
 * thread, so that a fault belongs to its input. Compiled with HR_FUZZ_TLS the server speaks TLS and a client shakes
 * hands before its first bytes. Entry of libFuzzer; `driver.c` is the one that needs no clang. */
#define _GNU_SOURCE
#include <assert.h>
#include <fcntl.h>

#include "hr_h2_server.h"
#include "../../race/certificate.h"

#ifdef HR_FUZZ_TLS
enum { IS_TLS = 1 };
#else
enum { IS_TLS = 0 };
#endif
enum { SHAKES = 8 };              /* turns of a handshake */
enum { CLIENTS_MAX = 3, BACKS_MAX = 8, STEPS_MAX = 64 };

static hr_server server;
static hr_loop *loop;
static int back_listener;
static int clients[CLIENTS_MAX], backs[BACKS_MAX];
static SSL *lines[CLIENTS_MAX];   /* of clients, from their first bytes on */
static SSL_CTX *client_tls;
static uint32_t client_count, back_count;

static void begin_tls(void)
{
    own_certificate own = make_certificate();
    char problem[256];
    SSL_CTX *context = hr_tls_context(own.certificate_pem, own.key_pem, own.certificate_pem, problem, sizeof(problem));
    assert(context != NULL && hr_server_set_tls(&server, context) == HR_OK);
    client_tls = client_context(&own, 1);
    signal(SIGPIPE, SIG_IGN);
}

static void begin(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length;
    uint8_t(*digests)[32] = calloc(1, 32);
    static hr_plan_name no_names[2];
    static hr_plan_set plans = {1, 0, no_names};
    static hr_published published;
    static const char answered[] = "headrace.feature.v1.ShardService";
    SHA256((const uint8_t *)"token", 5, digests[0]);
    server.table = hr_table_new(1 << 20);
    assert(server.table != NULL && hr_published_begin(&published, &plans) == 0);
    server.published = &published;
    server.connections_max = CLIENTS_MAX;
    server.is_health_open = 1;
    server.idle_s = 20;
    server.full_message = "full", server.full_details = "";
    assert(hr_misses_begin(&server.misses) == 0 && hr_lock_init(&server.access_lock) == 0);
    if (IS_TLS) begin_tls();
    assert(hr_server_build(&server, 1) == HR_OK && hr_misses_join(&server.misses));
    hr_server_set_access(&server, HR_CREDENTIAL_TOKEN, HR_PERMISSION_READ, 0, digests, 1);
    hr_server_set_access(&server, HR_CREDENTIAL_TOKEN, HR_PERMISSION_PEER, 1, NULL, 0);
    hr_server_set_health(&server, "", 0, 1);
    hr_server_set_health(&server, answered, sizeof(answered) - 1, 2);
    loop = server.loops[0];
    back_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    length = snprintf(server.back_name, sizeof(server.back_name), "headrace-fuzz-%d", getpid());
    memcpy(address.sun_path + 1, server.back_name, (size_t)length);
    assert(bind(back_listener, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)) == 0);
    assert(listen(back_listener, 64) == 0);
}

static void discard(int fd)
{
    uint8_t scratch[1 << 16];
    while (recv(fd, scratch, sizeof(scratch), MSG_DONTWAIT) > 0) {}
}

/* Lets the loop see what happened at its sockets, and takes the connections that it opened behind. */
static void turn(void)
{
    struct epoll_event events[16];
    int count, fd;
    for (int round = 0; round < 4; round++) {
        loop->shakes_left = HR_TLS_SHAKES_MAX;
        count = epoll_wait(loop->epoll, events, 16, 0);
        for (int i = 0; i < count; i++) {
            hr_source *source = events[i].data.ptr;
            if (source == &loop->event_source) hr_take_inbox(loop);
            else hr_on_event(loop, source, events[i].events);
        }
        hr_free_dead(loop);
        while ((fd = accept4(back_listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
            if (back_count == BACKS_MAX) close(backs[--back_count]);
            backs[back_count++] = fd;
        }
        for (uint32_t i = 0; i < back_count; i++) discard(backs[i]);
        if (count <= 0) return;
    }
}

static void connect_client(void)
{
    int pair[2];
    if (client_count == CLIENTS_MAX || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) return;
    clients[client_count++] = pair[0];
    __atomic_add_fetch(&server.connection_count, 1, __ATOMIC_RELAXED);
    hr_open(loop, pair[1]);
}

static void send_all(int fd, const uint8_t *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t sent = send(fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0) return;
        data += sent, bytes -= (size_t)sent;
        turn();
    }
}

/* The line of a client whose handshake is over, or NULL. */
static SSL *line_of(uint32_t at)
{
    if (lines[at] == NULL) {
        lines[at] = SSL_new(client_tls);
        assert(lines[at] != NULL && SSL_set_fd(lines[at], clients[at]) == 1);
    }
    for (int shake = 0; shake < SHAKES && SSL_connect(lines[at]) != 1; shake++) turn();
    return SSL_is_init_finished(lines[at]) ? lines[at] : NULL;
}

static void say(uint32_t at, const uint8_t *data, size_t bytes)
{
    size_t written;
    ERR_clear_error();
    if (!IS_TLS) send_all(clients[at], data, bytes);
    else if (bytes > 0 && line_of(at) != NULL && SSL_write_ex(lines[at], data, bytes, &written) == 1) turn();
}

/* Each byte is what becomes of one job: an answer of that many bytes, a refusal, or nothing. */
static void work(const uint8_t *data, size_t bytes)
{
    static const uint8_t answer[1 << 16];
    hr_job *jobs[HR_H2_TURN_MAX];
    uint32_t count = server.misses.count > 0 ? hr_misses_take(&server.misses, jobs) : 0;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t choice = i < bytes ? data[i] : 1;
        if (hr_job_is_cancelled(jobs[i])) choice = 255;
        if (choice < 200) hr_job_answer(jobs[i], answer, (size_t)choice * choice);
        else if (choice < 250) hr_job_refuse(jobs[i], choice % 16 + 1, "no%20more", choice % 2 ? "" : "CAE");
        hr_job_post(jobs[i]);
    }
    turn();
}

static void leave(int *from, uint32_t *count, uint32_t at)
{
    if (*count == 0) return;
    at %= *count;
    close(from[at]);
    from[at] = from[--*count];
    turn();
}

static void leave_client(uint32_t at)
{
    if (client_count == 0) return;
    at %= client_count;
    SSL_free(lines[at]);
    lines[at] = lines[client_count - 1];
    lines[client_count - 1] = NULL;
    leave(clients, &client_count, at);
}

static void step(uint8_t kind, const uint8_t *data, size_t bytes)
{
    uint32_t first = bytes > 0 ? data[0] : 0;
    switch (kind) {
    case 0:
        if (client_count > 0) say(client_count - 1, data, bytes);
        break;
    case 1:
        if (back_count > 0) send_all(backs[back_count - 1], data, bytes);
        break;
    case 2: work(data, bytes); break;
    case 3:
        loop->now_ns += first * HR_H2_SECOND / 4;
        hr_tick(loop);
        hr_free_dead(loop);
        break;
    case 4:
        if (client_count > 0) discard(clients[client_count - 1]);
        break;
    case 5: connect_client(); break;
    case 6: leave_client(first); break;
    case 7: leave(backs, &back_count, first); break;
    case 8: __atomic_store_n(&server.draining, 1, __ATOMIC_RELEASE); break;
    case 9:
        if (client_count > 0) send_all(clients[client_count - 1], data, bytes);
        break;
    default: break;
    }
    turn();
}

/* Nothing may be left of an input. */
static void end(void)
{
    while (client_count > 0) leave_client(0);
    while (loop->connections != NULL) hr_close(loop->connections);
    while (server.misses.count > 0) work(NULL, 0);
    turn();
    while (back_count > 0) leave(backs, &back_count, 0);
    hr_free_dead(loop);
    assert(loop->connections == NULL && loop->stream_count == 0 && server.connection_count == 0);
    assert(server.misses.first == NULL && server.misses.bytes == 0 && loop->done == NULL);
    hr_trim_spare(loop, 0);
    server.draining = 0, loop->drain_stage = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (loop == NULL) begin();
    loop->now_ns = loop->ticked_ns = hr_now_ns();
    connect_client();
    turn();
    for (int steps = 0; size >= 3 && steps < STEPS_MAX; steps++) {
        size_t bytes = data[1] | (size_t)data[2] << 8;
        if (bytes > size - 3) bytes = size - 3;
        step(data[0] % 10, data + 3, bytes);
        data += 3 + bytes, size -= 3 + bytes;
    }
    end();
    return 0;
}
