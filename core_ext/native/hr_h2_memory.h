/* Memory of all connections together: requests and answers that wait, and frames prepared for sockets.
 *
 * A loop counts by a credit of its own, taken from the server in steps, so that a call which comes and goes touches no
 * memory that other loops write. What a client sends within its windows is always counted in, and may exceed the bound
 * by them; an answer is made only where there is room: hr_h2_greedy.h. */
#ifndef HR_H2_MEMORY_H
#define HR_H2_MEMORY_H

#include "hr_h2.h"

enum {
    HR_H2_CREDIT_BYTES = 256 << 10,
    HR_H2_GREEDY_BYTES = 16 << 10             /* who holds less is nobody's trouble: all connections together 64 MiB */
};

static inline uint64_t hr_memory_bytes(const hr_server *server)
{
    return __atomic_load_n(&server->memory_bytes, __ATOMIC_RELAXED);
}

/* Whether so many bytes more may be held. Larger answers leave an eighth to small ones, which so always find room. */
static inline int hr_has_room(const hr_server *server, uint64_t used, uint64_t bytes)
{
    return used + bytes <= server->memory_max - (bytes > HR_H2_GREEDY_BYTES ? server->memory_max / 8 : 0);
}

/* Counts bytes that a connection holds from now on. */
static inline void hr_hold(hr_connection *connection, uint64_t bytes)
{
    hr_loop *loop = connection->loop;
    connection->memory_bytes += bytes;
    if (loop->credit_bytes < bytes) {
        __atomic_add_fetch(&loop->server->memory_bytes, bytes + HR_H2_CREDIT_BYTES, __ATOMIC_RELAXED);
        loop->credit_bytes += bytes + HR_H2_CREDIT_BYTES;
    }
    loop->credit_bytes -= bytes;
}

/* Counts bytes that a connection has given up. */
static inline void hr_release(hr_connection *connection, uint64_t bytes)
{
    hr_loop *loop = connection->loop;
    connection->memory_bytes -= bytes;
    loop->credit_bytes += bytes;
    if (loop->credit_bytes <= 2 * HR_H2_CREDIT_BYTES) return;
    __atomic_sub_fetch(&loop->server->memory_bytes, loop->credit_bytes - HR_H2_CREDIT_BYTES, __ATOMIC_RELAXED);
    loop->credit_bytes = HR_H2_CREDIT_BYTES;
}

/* Counts what the buffers of a connection's sockets hold now. */
static inline void hr_hold_wire(hr_connection *connection)
{
    uint64_t bytes = connection->front_out.room + connection->back_out.room + connection->sealed.room;
    if (bytes == connection->wire_bytes) return;
    if (bytes > connection->wire_bytes) hr_hold(connection, bytes - connection->wire_bytes);
    else hr_release(connection, connection->wire_bytes - bytes);
    connection->wire_bytes = bytes;
}

/* Gives back buffers of sockets that are larger than a small answer needs. */
static inline void hr_trim_wire(hr_connection *connection)
{
    if (hr_buffer_bytes(&connection->front_out) == 0) hr_buffer_reset(&connection->front_out);
    if (hr_buffer_bytes(&connection->back_out) == 0) hr_buffer_reset(&connection->back_out);
    if (hr_buffer_bytes(&connection->sealed) == 0) hr_buffer_reset(&connection->sealed);
    hr_hold_wire(connection);
}

/* Counts a worker's answer, which belongs to no connection yet. Returns 0 where there is no room. */
static inline int hr_hold_answer(hr_server *server, uint64_t bytes)
{
    if (hr_has_room(server, __atomic_fetch_add(&server->memory_bytes, bytes, __ATOMIC_RELAXED), bytes)) return 1;
    __atomic_sub_fetch(&server->memory_bytes, bytes, __ATOMIC_RELAXED);
    return 0;
}

static inline void hr_release_answer(hr_server *server, uint64_t bytes)
{
    __atomic_sub_fetch(&server->memory_bytes, bytes, __ATOMIC_RELAXED);
}

#endif
