/* Sends unary gRPC calls with a different body each over cleartext HTTP/2, closed loop or at a fixed rate, and prints
 * one JSON line. h2load repeats one body, which would stay in every cache; this walks through a file of bodies.
 *
 * Usage: grpc_load PORT PATH BODIES CONNECTIONS RATE SECONDS ANSWER_BYTES_MIN [KEYS OFFSET]
 * BODIES holds, per request, a little-endian u32 length and the gRPC frame. RATE 0 is a closed loop with one call in
 * flight on each connection; else a call is due every 1/RATE s, waits for a free connection, and its latency counts
 * from when it was due. An answer of fewer than ANSWER_BYTES_MIN data bytes is a failure: errors carry no message.
 * KEYS holds little-endian u32; each call writes the next one into its body at OFFSET, as a fixed64, so that a long
 * run need not repeat a body.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 256,
    INPUT_BYTES = 1 << 17,          /* one frame of 16 KiB and what follows it in one read */
    OUTPUT_BYTES = 1 << 16,         /* one request and the answers to control frames */
    BODY_BYTES_MAX = 16384 - 9,     /* one DATA frame of the default maximum */
    SAMPLES_MAX = 20000000,
    FRAME_HEADER = 9,
    KEY_BYTES = 8,
    WAIT_NS_MAX = 1000000,
    WINDOW_MAX = 0x7fffffff,
    WINDOW_DEFAULT = 65535,
    DRAIN_NS = 2000000000           /* for the calls in flight at the end */
};
enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };

struct connection {
    int socket;
    uint8_t input[INPUT_BYTES];
    size_t input_used;
    uint8_t output[OUTPUT_BYTES];
    size_t output_used;
    uint32_t stream;
    int busy;
    int64_t due_ns, answer_bytes, unacknowledged_bytes, send_window;
};

static struct connection connections[CONNECTIONS_MAX];
static uint8_t header_block[1024];
static size_t header_block_bytes;
static const uint8_t *bodies, *bodies_end, *next_body, *keys, *keys_end, *next_key;
static size_t key_at;
static uint32_t *samples_us;
static int64_t sample_count, failed_count, answer_bytes_min;

static int64_t now_ns(void) {
    struct timespec moment;
    clock_gettime(CLOCK_MONOTONIC, &moment);
    return (int64_t)moment.tv_sec * 1000000000 + moment.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "grpc_load: %s: %s\n", what, errno ? strerror(errno) : "refused");
    exit(1);
}

static uint32_t big_endian(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put_frame(struct connection *c, int type, int flags, uint32_t stream, const void *payload, size_t bytes) {
    if (c->output_used + FRAME_HEADER + bytes > OUTPUT_BYTES) fail("output buffer");
    uint8_t *at = c->output + c->output_used;
    at[0] = (uint8_t)(bytes >> 16), at[1] = (uint8_t)(bytes >> 8), at[2] = (uint8_t)bytes;
    at[3] = (uint8_t)type, at[4] = (uint8_t)flags;
    uint32_t id = htonl(stream);
    memcpy(at + 5, &id, 4);
    memcpy(at + FRAME_HEADER, payload, bytes);
    c->output_used += FRAME_HEADER + bytes;
}

static void put_header_text(const char *text) {
    size_t bytes = strlen(text);
    if (bytes > 126 || header_block_bytes + bytes + 1 > sizeof header_block) fail("header too long");
    header_block[header_block_bytes++] = (uint8_t)bytes;
    memcpy(header_block + header_block_bytes, text, bytes);
    header_block_bytes += bytes;
}

/* HPACK without the dynamic table and without Huffman codes: the block is the same for every request. */
static void make_header_block(const char *path) {
    header_block[header_block_bytes++] = 0x83; /* :method POST */
    header_block[header_block_bytes++] = 0x86; /* :scheme http */
    header_block[header_block_bytes++] = 0x04; /* :path, by name index */
    put_header_text(path);
    header_block[header_block_bytes++] = 0x01; /* :authority, by name index */
    put_header_text("127.0.0.1");
    header_block[header_block_bytes++] = 0x0f; /* content-type, name index 31 */
    header_block[header_block_bytes++] = 0x10;
    put_header_text("application/grpc");
    header_block[header_block_bytes++] = 0x00; /* a name of our own */
    put_header_text("te");
    put_header_text("trailers");
}

static void flush_output(struct connection *c) {
    size_t sent = 0;
    while (sent < c->output_used) {
        ssize_t part = write(c->socket, c->output + sent, c->output_used - sent);
        if (part < 0 && (errno == EAGAIN || errno == EINTR)) continue; /* a request is far below the socket buffer */
        if (part <= 0) fail("write");
        sent += (size_t)part;
    }
    c->output_used = 0;
}

static void open_connection(struct connection *c, int port, int poll) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (c->socket < 0 || connect(c->socket, (struct sockaddr *)&address, sizeof address)) fail("connect");
    int on = 1;
    setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->socket, F_SETFL, O_NONBLOCK);
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    memcpy(c->output, preface, sizeof preface - 1);
    c->output_used = sizeof preface - 1;
    static const uint8_t settings[] = {0, 2, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0, 0};
    put_frame(c, SETTINGS, 0, 0, settings, sizeof settings); /* no push, largest stream window, no header table */
    uint32_t grow = htonl(WINDOW_MAX - WINDOW_DEFAULT);
    put_frame(c, WINDOW_UPDATE, 0, 0, &grow, 4);
    flush_output(c);
    c->stream = 1;
    c->send_window = WINDOW_DEFAULT;
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, c->socket, &interest)) fail("epoll");
}

/* Writes the next key into the body that is at the end of the output. */
static void put_key(struct connection *c, size_t body_bytes) {
    if (next_key == keys_end) next_key = keys;
    uint8_t *at = c->output + c->output_used - body_bytes + key_at;
    memset(at, 0, KEY_BYTES);
    memcpy(at, next_key, 4);
    next_key += 4;
}

static void start_call(struct connection *c, int64_t due_ns) {
    if (next_body + 4 > bodies_end) next_body = bodies;
    uint32_t bytes;
    memcpy(&bytes, next_body, 4);
    if (bytes > BODY_BYTES_MAX || next_body + 4 + bytes > bodies_end) fail("bodies file");
    put_frame(c, HEADERS, END_HEADERS, c->stream, header_block, header_block_bytes);
    put_frame(c, DATA, END_STREAM, c->stream, next_body + 4, bytes);
    if (keys) {
        if (key_at + KEY_BYTES > bytes) fail("the key is outside of the body");
        put_key(c, bytes);
    }
    next_body += 4 + bytes;
    c->send_window -= bytes;
    c->busy = 1, c->due_ns = due_ns, c->answer_bytes = 0;
    flush_output(c);
}

static void end_call(struct connection *c, int good) {
    if (!c->busy) return;
    if (!good || c->answer_bytes < answer_bytes_min) failed_count++;
    else if (sample_count < SAMPLES_MAX) samples_us[sample_count++] = (uint32_t)((now_ns() - c->due_ns) / 1000);
    c->busy = 0;
    c->stream += 2;
    if (c->unacknowledged_bytes > WINDOW_MAX / 2) { /* streams need none: each is closed before its window is used */
        uint32_t grow = htonl((uint32_t)c->unacknowledged_bytes);
        put_frame(c, WINDOW_UPDATE, 0, 0, &grow, 4);
        c->unacknowledged_bytes = 0;
    }
}

static void take_frame(struct connection *c, int type, int flags, uint32_t stream, const uint8_t *payload,
                       size_t bytes) {
    if (type == DATA) {
        c->answer_bytes += (int64_t)bytes;
        c->unacknowledged_bytes += (int64_t)bytes;
    }
    if (type == SETTINGS && !(flags & ACK)) put_frame(c, SETTINGS, ACK, 0, NULL, 0);
    if (type == PING && !(flags & ACK) && bytes == 8) put_frame(c, PING, ACK, 0, payload, 8);
    if (type == WINDOW_UPDATE && stream == 0 && bytes == 4) c->send_window += big_endian(payload) & WINDOW_MAX;
    if (type == GOAWAY) fail("the server closes the connection");
    if (type == RST_STREAM && stream == c->stream) end_call(c, 0);
    if ((type == DATA || type == HEADERS) && (flags & END_STREAM) && stream == c->stream) end_call(c, 1);
}

static void take_input(struct connection *c) {
    ssize_t part = read(c->socket, c->input + c->input_used, INPUT_BYTES - c->input_used);
    if (part < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (part <= 0) fail("read");
    c->input_used += (size_t)part;
    size_t at = 0;
    while (c->input_used - at >= FRAME_HEADER) {
        const uint8_t *frame = c->input + at;
        size_t bytes = (size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2];
        if (FRAME_HEADER + bytes > INPUT_BYTES) fail("frame too large");
        if (c->input_used - at < FRAME_HEADER + bytes) break;
        take_frame(c, frame[3], frame[4], big_endian(frame + 5) & WINDOW_MAX, frame + FRAME_HEADER, bytes);
        at += FRAME_HEADER + bytes;
    }
    memmove(c->input, c->input + at, c->input_used - at);
    c->input_used -= at;
    if (c->output_used) flush_output(c);
}

static int by_size(const void *one, const void *other) {
    uint32_t left = *(const uint32_t *)one, right = *(const uint32_t *)other;
    return left < right ? -1 : left > right;
}

/* The smallest sample that so many of a thousand do not exceed. */
static uint32_t slowest(int64_t of_thousand) {
    return sample_count ? samples_us[(sample_count * of_thousand + 999) / 1000 - 1] : 0;
}

static void report(double seconds) {
    qsort(samples_us, (size_t)sample_count, sizeof *samples_us, by_size);
    printf("{\"answered\": %lld, \"failed\": %lld, \"rate\": %.1f, ", (long long)sample_count,
           (long long)failed_count, (double)sample_count / seconds);
    printf("\"p50_us\": %u, \"p99_us\": %u, \"p999_us\": %u, \"max_us\": %u}\n", slowest(500), slowest(990), slowest(999),
           slowest(1000));
}

static const uint8_t *read_all(const char *name, const uint8_t **end) {
    int file = open(name, O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about)) fail(name);
    uint8_t *all = malloc((size_t)about.st_size);
    for (off_t used = 0; used < about.st_size;) {
        ssize_t part = read(file, all + used, (size_t)(about.st_size - used));
        if (part <= 0) fail(name);
        used += part;
    }
    close(file);
    if (about.st_size < 4) fail(name);
    *end = all + about.st_size;
    return all;
}

static volatile sig_atomic_t stopping; /* SIGTERM ends a run early, with the report of what it did */

static void stop(int number) {
    (void)number;
    stopping = 1;
}

int main(int count, char **words) {
    if (count != 8 && count != 10)
        fail("usage: grpc_load PORT PATH BODIES CONNECTIONS RATE SECONDS ANSWER_BYTES_MIN [KEYS OFFSET]");
    int port = atoi(words[1]), connection_count = atoi(words[4]);
    double rate = atof(words[5]), seconds = atof(words[6]);
    answer_bytes_min = atoll(words[7]);
    if (connection_count < 1 || connection_count > CONNECTIONS_MAX || seconds <= 0) fail("arguments");
    make_header_block(words[2]);
    bodies = next_body = read_all(words[3], &bodies_end);
    if (count == 10) {
        keys = next_key = read_all(words[8], &keys_end);
        keys_end -= (keys_end - keys) % 4;
        key_at = (size_t)atoll(words[9]);
    }
    prctl(PR_SET_TIMERSLACK, 1); /* else a call that is due is 50 us late */
    samples_us = malloc(SAMPLES_MAX * sizeof *samples_us);
    int poll = epoll_create1(0);
    for (int at = 0; at < connection_count; at++) open_connection(&connections[at], port, poll);
    int64_t began = now_ns(), end = began + (int64_t)(seconds * 1e9), due_count = 0;
    signal(SIGTERM, stop);
    for (int busy = 1; now_ns() < end || (busy && now_ns() < end + DRAIN_NS);) {
        busy = 0;
        if (stopping && now_ns() < end) end = now_ns();
        for (int at = 0; at < connection_count; at++) {
            struct connection *c = &connections[at];
            int64_t now = now_ns(), due = rate > 0 ? began + (int64_t)((double)due_count / rate * 1e9) : now;
            if (!c->busy && due <= now && due < end && now < end + DRAIN_NS && c->send_window > BODY_BYTES_MAX) {
                start_call(c, due);
                due_count++;
            }
            busy |= c->busy;
        }
        struct epoll_event events[CONNECTIONS_MAX];
        int64_t wait_ns = WAIT_NS_MAX, next_ns = rate > 0 ? began + (int64_t)((double)due_count / rate * 1e9) - now_ns() : 0;
        if (next_ns > 0 && next_ns < wait_ns) wait_ns = next_ns;
        struct timespec wait = {.tv_nsec = wait_ns};
        int ready = epoll_pwait2(poll, events, CONNECTIONS_MAX, &wait, NULL);
        for (int at = 0; at < ready; at++) take_input(events[at].data.ptr);
    }
    for (int at = 0; at < connection_count; at++) failed_count += connections[at].busy;
    report((double)(end - began) / 1e9);
    return 0;
}
