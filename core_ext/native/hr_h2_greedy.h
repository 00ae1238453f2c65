/* Room for an answer where connections hold as much as they may together: those that hold most and take nothing go. */
#ifndef HR_H2_GREEDY_H
#define HR_H2_GREEDY_H

#include "hr_h2_misses.h"
#include "hr_h2_socket.h"

enum { HR_H2_MOVING_NS = 100000000 };  /* a reader whose answers moved within it goes last */

/* The connection that holds most, of those that take nothing where there is one. `but` is in the middle of a call. */
static inline hr_connection *hr_greediest(hr_loop *loop, const hr_connection *but)
{
    hr_connection *still = NULL, *moving = NULL;
    for (hr_connection *one = loop->connections; one != NULL; one = one->next) {
        hr_connection **most = loop->now_ns - one->moved_ns > HR_H2_MOVING_NS ? &still : &moving;
        if (one == but || one->memory_bytes < HR_H2_GREEDY_BYTES) continue;
        if (*most == NULL || one->memory_bytes > (*most)->memory_bytes) *most = one;
    }
    return still != NULL ? still : moving;
}

/* Whether so many bytes more may be held. Where not, connections of this loop are closed until a quarter is free. What
 * the loop has in credit it may spend at any time, so that small answers go on. */
static inline int hr_free_room(hr_loop *loop, const hr_connection *but, uint64_t bytes)
{
    hr_server *server = loop->server;
    if ((bytes > 0 && loop->credit_bytes >= bytes) || hr_has_room(server, hr_memory_bytes(server), bytes)) return 1;
    while (hr_memory_bytes(server) + bytes > server->memory_max - server->memory_max / 4) {
        hr_connection *most = hr_greediest(loop, but);
        if (most == NULL) break;
        hr_count(&loop->counts.greedy_connections, 1);
        nghttp2_submit_goaway(
            most->front, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(most->front),
            NGHTTP2_ENHANCE_YOUR_CALM, (const uint8_t *)"too_much_unread", sizeof("too_much_unread") - 1);
        hr_pump(loop, &most->front_source, most->front, &most->front_out);
        hr_close(most);
    }
    return hr_has_room(server, hr_memory_bytes(server), bytes);
}

/* The same; connections of other loops are theirs to close: they are woken. Who was woken wakes nobody, or loops that
 * have nothing to close would wake each other for ever. */
static inline int hr_make_room(hr_loop *loop, const hr_connection *but, uint64_t bytes)
{
    hr_server *server = loop->server;
    if (hr_free_room(loop, but, bytes)) return 1;
    for (uint32_t i = 0; i < server->loop_count; i++)
        if (server->loops[i] != loop) hr_wake(server->loops[i]);
    return 0;
}

#endif
