/* What a client may not do: control frames beyond their budget, and pings too soon. */
#ifndef HR_H2_BUDGET_H
#define HR_H2_BUDGET_H

#include "hr_h2.h"

static inline int hr_abuse(hr_connection *connection, const char *what)
{
    hr_count(&connection->loop->counts.abusive_connections, 1);
    nghttp2_submit_goaway(
        connection->front, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(connection->front),
        NGHTTP2_ENHANCE_YOUR_CALM, (const uint8_t *)what, strlen(what));
    connection->is_closing = 1;
    return 0;
}

/* Takes from the budget of control frames, which fills again with time. */
static inline int hr_spend(hr_connection *connection, int64_t cost, const char *what)
{
    int64_t now_ns = connection->loop->now_ns;
    int64_t gained = (now_ns - connection->budget_ns) / (HR_H2_SECOND / HR_H2_BUDGET_PER_S);
    if (gained > 0) {
        connection->budget = connection->budget + gained > HR_H2_BUDGET ? HR_H2_BUDGET : connection->budget + gained;
        connection->budget_ns = now_ns;
    }
    connection->budget -= cost;
    return connection->budget < 0 && !connection->is_closing ? hr_abuse(connection, what) : 0;
}

static inline int hr_on_ping(hr_connection *connection)
{
    int64_t now_ns = connection->loop->now_ns;
    int is_early = now_ns - connection->ping_received_ns < HR_H2_PING_S * HR_H2_SECOND;
    connection->ping_received_ns = now_ns;
    if (!is_early) return hr_spend(connection, 1, "too_many_pings");
    if (++connection->ping_strikes <= HR_H2_PING_STRIKES_MAX || connection->is_closing) return 0;
    return hr_abuse(connection, "too_many_pings");
}

#endif
