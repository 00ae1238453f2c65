/* Two edges move over the sorted events of a group, once per window and state. What can be taken back is; least and
 * greatest values stand in a queue, ordered ones at the edges; the others, and states that have passed a cap, are put
 * together from tiles. */
#ifndef HR_WINDOW_WALK_H
#define HR_WINDOW_WALK_H

#include "hr_window_fold.h"
#include "hr_window_plain.h"
#include "hr_window_update.h"

/* Values of one feature by the number of the read, and those of the group at hand by its sorted reads. */
typedef struct {
    uint8_t *values;        /* of `width` bytes; for texts and lists u32 start and u32 length in the heap */
    uint8_t *nulls;         /* 1 for NULL */
    uint8_t *held;          /* the value of sorted read i of the group at [i * stride] */
    uint8_t *held_nulls;    /* is NULL, and HR_LOST_* above that bit */
    hr_window_bytes heap;
    uint64_t null_count, losses[HR_LOST_CAUSES];
    size_t stride;
    uint32_t width, offset; /* in a row of values */
    int is_done;            /* of the window at hand: without a walk */
} hr_history_column;

/* Events [low, high) of the group are in the window of a read. All before `known` were available by then. */
typedef struct {
    uint32_t low, high, known;
} hr_history_edge;

/* Events [low, end) of the group are in the window of a read, and no others. */
typedef struct {
    uint32_t low, end;
} hr_history_range;

/* Where windows of one hop start. */
typedef struct {
    uint64_t hop, factor;        /* 2^64 / hop, so that a division is a multiplication */
    int64_t window, bias;        /* a multiple of the hop, with which every time is above 0 */
} hr_history_hop;

typedef struct {
    const hr_window_plan *plan;
    const hr_window_events *events;
    uint32_t input_count;
    hr_window_sorted sorted, reads;  /* shared by the workers, as are the values of the columns */
    hr_window_writer writer;
    hr_window_fold fold;
    hr_history_column *columns;  /* one per feature */
    hr_history_hop *hops;        /* one per window */
    uint8_t *held_rows;          /* the values of each sorted read in a row; NULL: values go to their places at once */
    size_t row_bytes;
    uint32_t *places;            /* the sorted number of each read, where there are rows */
    uint8_t *tiled;              /* per ladder: the writer holds its tiles of the group */
    /* Of the group at hand: */
    const uint32_t *rows;
    const int64_t *times;
    uint32_t count;
    hr_value *values;            /* input c of event i at [c * count + i]; gathered where a walk needs them */
    int64_t *ranks;              /* the same of inputs that are not texts, as whole numbers that order them */
    int64_t *seen, *seen_latest; /* when each event was first seen, and the latest of those up to it; NULL: at its time */
    uint32_t *queue;
    hr_history_edge *edges;      /* of the reads of the group in one window */
    hr_history_range *ranges;    /* the same where each window holds all events of a range */
    uint32_t *present;           /* values of input `present_of` in these, where it is not HR_PRESENT_NONE */
    int32_t present_of;
    uint32_t longest;            /* events of a range, at most */
    hr_plain_column *plain;      /* one per input */
    int is_gathered;
    size_t value_capacity, queue_capacity, seen_capacity, read_capacity;
} hr_history;

#define HR_WALK_NONE_FED (UINT32_MAX - 1)  /* the state holds more than a head; no event has this number */

/* One state moved along one window. Events [low, high) of the group are in it, all of them available; later ones that
 * came before others are added for one read alone, which leaves the walk dirty. */
typedef struct {
    hr_history *history;
    const hr_window_span *span;
    const hr_window_state *planned;
    hr_state *state;
    uint32_t n, first_use, end_use;
    uint32_t low, high, queue_first, queue_end;
    uint32_t head, fed;  /* least or greatest event of a queue, and the one that the state holds */
    int uses_tiles, is_moved, is_started, is_dirty, is_queued;
} hr_history_walk;

/* ---- one event ---- */

static inline const hr_value *hr_walk_value(const hr_history_walk *walk, int32_t column, uint32_t i)
{
    const hr_history *history = walk->history;
    return column < 0 ? NULL : &history->values[(size_t)column * history->count + i];
}

static inline int hr_walk_feed(const hr_history_walk *walk, uint32_t i, int is_retracted)
{
    const hr_window_state *planned = walk->planned;
    const hr_value *value = hr_walk_value(walk, planned->column, i), *second = hr_walk_value(walk, planned->column2, i);
    hr_order order = {0, 0, 0, 0, 0};
    if (hr_state_reads_order(&planned->spec)) order = hr_events_order(walk->history->events, walk->history->rows[i]);
    return is_retracted ? hr_state_retract(walk->state, value, second, &order)
                        : hr_state_add(walk->state, value, second, &order);
}

static inline int hr_walk_feed_all(const hr_history_walk *walk, uint32_t first, uint32_t end)
{
    int status = HR_STATE_OK;
    for (; first < end && status == HR_STATE_OK; first++) status = hr_walk_feed(walk, first, 0);
    return status;
}

/* ---- what can be taken back ---- */

static inline int hr_walk_retract(hr_history_walk *walk, uint32_t low, uint32_t high)
{
    int status = HR_STATE_OK;
    uint32_t kept = walk->high > low ? walk->high - low : 0;
    /* A session that a late event has joined to the one before begins earlier; else, taking in what stays may be less
     * work than taking back what goes. */
    if (low < walk->low || kept < low - walk->low) {
        hr_state_reset(walk->state);
        return hr_walk_feed_all(walk, low, high);
    }
    for (; walk->low < low && status == HR_STATE_OK; walk->low++) status = hr_walk_feed(walk, walk->low, 1);
    if (status == HR_STATE_OK) status = hr_walk_feed_all(walk, walk->high, high);
    if (status != HR_STATE_TOO_LARGE) return status;
    hr_state_reset(walk->state);
    return hr_walk_feed_all(walk, low, high);
}

/* ---- least and greatest values ---- */

static inline int hr_walk_compare(const hr_history_walk *walk, uint32_t a, uint32_t b)
{
    const hr_history *history = walk->history;
    int32_t column = walk->planned->column;
    const int64_t *ranks = history->ranks + (size_t)column * history->count;
    if (hr_scalar_is_text(walk->planned->spec.scalar))
        return hr_value_compare(
            walk->planned->spec.scalar, hr_walk_value(walk, column, a), hr_walk_value(walk, column, b));
    return ranks[a] < ranks[b] ? -1 : ranks[a] > ranks[b];
}

/* The queue holds the events that may yet be the answer: the answer first, each better than those after it. The state
 * is brought up to it only where more events are added to it, or where it keeps a text. */
static inline int hr_walk_queue(hr_history_walk *walk, uint32_t low, uint32_t high, int has_more)
{
    const hr_window_state *planned = walk->planned;
    uint32_t *queue = walk->history->queue, i;
    int wanted = planned->spec.kind == HR_KIND_MIN ? -1 : 1, is_earlier = low < walk->low;
    if (is_earlier) walk->queue_first = walk->queue_end = 0;
    for (i = walk->high > low && !is_earlier ? walk->high : low; i < high; i++) {
        if (hr_walk_value(walk, planned->column, i)->is_null) continue;
        while (walk->queue_end > walk->queue_first && hr_walk_compare(walk, queue[walk->queue_end - 1], i) * wanted <= 0)
            walk->queue_end--;
        queue[walk->queue_end++] = i;
    }
    while (walk->queue_first < walk->queue_end && queue[walk->queue_first] < low) walk->queue_first++;
    i = walk->queue_first < walk->queue_end ? queue[walk->queue_first] : UINT32_MAX;
    walk->is_queued = !has_more && !hr_scalar_is_text(planned->spec.scalar);
    walk->is_moved = i != walk->head || !walk->is_started || walk->is_dirty || has_more;
    walk->head = i;
    if (walk->is_queued || (i == walk->fed && !has_more)) return HR_STATE_OK;
    walk->fed = has_more ? HR_WALK_NONE_FED : i;
    hr_state_reset(walk->state);
    return i == UINT32_MAX ? HR_STATE_OK : hr_walk_feed(walk, i, 0);
}

/* The head of the queue as the state would answer it; every NaN is one. */
static inline void hr_walk_head(const hr_history_walk *walk, hr_result *result)
{
    memset(result, 0, sizeof(*result));
    result->value = walk->head == UINT32_MAX ? hr_value_null() : *hr_walk_value(walk, walk->planned->column, walk->head);
    if (hr_scalar_is_float(walk->planned->spec.scalar) && walk->head != UINT32_MAX)
        result->value.f = result->value.f == result->value.f ? result->value.f : hr_float_of(HR_NAN_BITS);
}

/* ---- first and last values ---- */

/* From the edge inwards: as many values as the state keeps, and those that equal the innermost of them in the order. */
static inline int hr_walk_edge(hr_history_walk *walk, uint32_t low, uint32_t high)
{
    const hr_history *history = walk->history;
    const hr_window_state *planned = walk->planned;
    int is_first = planned->spec.kind == HR_KIND_FIRST, status = HR_STATE_OK;
    int64_t wanted = planned->spec.kind == HR_KIND_LAST_N ? planned->spec.parameter : 1;
    uint32_t i, at;
    hr_order innermost = {0, 0, 0, 0, 0};
    hr_state_reset(walk->state);
    for (i = 0; i < high - low && status == HR_STATE_OK; i++) {
        hr_order order;
        at = is_first ? low + i : high - 1 - i;
        if (hr_walk_value(walk, planned->column, at)->is_null) continue;
        order = hr_events_order(history->events, history->rows[at]);
        if (wanted <= 0 && hr_order_fields_compare(&order, &innermost) != 0) break;
        innermost = order;
        wanted--;
        status = hr_walk_feed(walk, at, 0);
    }
    return status;
}

/* ---- everything else ---- */

/* Tiles of the group for the states of a ladder; the writer keeps those of the other ladders. */
static inline int hr_walk_tiles(hr_history_walk *walk)
{
    hr_history *history = walk->history;
    const hr_window_ladder *ladder = &history->plan->ladders[walk->span->ladder];
    uint32_t level;
    int status;
    if (history->tiled[walk->span->ladder]) return HR_WINDOW_OK;
    history->tiled[walk->span->ladder] = 1;
    status = hr_update_finest(&history->writer, ladder, history->events, &history->sorted,
                              (uint32_t)(history->rows - history->sorted.rows),
                              (uint32_t)(history->rows - history->sorted.rows) + history->count);
    for (level = 1; level < ladder->level_count && status == HR_WINDOW_OK; level++)
        status = hr_writer_raise(&history->writer, ladder, level);
    return status;
}

/* Whole tiles up to `end_us`, then the events of the finest tile that holds it. */
static inline int hr_walk_fold(hr_history_walk *walk, uint32_t low, uint32_t high, int64_t start, int64_t end_us)
{
    hr_history *history = walk->history;
    const hr_window_ladder *ladder = &history->plan->ladders[walk->span->ladder];
    int64_t edge = hr_floor_to(end_us, ladder->sizes[0]);
    uint32_t level, at, first = high;
    int status = hr_walk_tiles(walk);
    for (level = 0; level < ladder->level_count && status == HR_WINDOW_OK; level++)
        history->fold.map.sections[ladder->first_section + level] =
            hr_writer_view(&history->writer, ladder, ladder->first_section + level);
    history->fold.map.newest = end_us;
    history->fold.piece_count = 0;
    if (status == HR_WINDOW_OK && start < end_us)
        status = hr_fold_cover(&history->fold, walk->span, start, end_us, 0);
    if (status == HR_WINDOW_OK) status = hr_fold_state(&history->fold, ladder, walk->n);
    if (status != HR_WINDOW_OK) return status;
    while (first > low && history->times[first - 1] > edge) first--;
    for (at = first; at < high && status == HR_WINDOW_OK; at++) status = hr_merged(hr_walk_feed(walk, at, 0));
    return status;
}

/* ---- a walk ---- */

/* Where the tiles of the events [low, high) begin: sessions, and no others, may leave earlier ones of the window out. */
static inline int64_t hr_walk_start(const hr_history_walk *walk, uint32_t low, uint32_t high, int64_t read_us)
{
    const hr_history *history = walk->history;
    int64_t start = hr_window_start(walk->span, read_us), size = history->plan->ladders[walk->span->ladder].sizes[0];
    if (walk->span->gap_us == 0) return start;
    return low == high ? read_us : hr_later(start, hr_tile_of(history->times[low], size) * size);
}

/* Moves to the events [low, high). `end_us` is no earlier than any of them, and earlier than those after them. */
static inline int hr_walk_move(
    hr_history_walk *walk, uint32_t low, uint32_t high, int64_t start, int64_t end_us, int has_more)
{
    uint8_t kind = walk->planned->spec.kind;
    int status = HR_STATE_OK;
    if (!walk->uses_tiles) {
        if (hr_state_can_retract(&walk->planned->spec)) status = hr_walk_retract(walk, low, high);
        else if (kind == HR_KIND_MIN || kind == HR_KIND_MAX) status = hr_walk_queue(walk, low, high, has_more);
        else if (kind == HR_KIND_DISTINCT) walk->uses_tiles = 1;
        else status = hr_walk_edge(walk, low, high);
        if (status == HR_STATE_NOT_RETRACTABLE) walk->uses_tiles = 1;
        else if (status != HR_STATE_OK) return hr_merged(status);
    }
    walk->low = low, walk->high = high;
    return walk->uses_tiles ? hr_walk_fold(walk, low, high, start, end_us) : HR_WINDOW_OK;
}

/* Adds the events [first, end) that were seen by the read, or takes them back. */
static inline int hr_walk_more(
    hr_history_walk *walk, uint32_t first, uint32_t end, int64_t read_us, int is_retracted)
{
    const int64_t *seen = walk->history->seen;
    int status = HR_STATE_OK;
    for (; first < end && status == HR_STATE_OK; first++)
        if (seen[first] <= read_us) status = hr_walk_feed(walk, first, is_retracted);
    return status;
}

static inline int hr_walk_has_more(const hr_history *history, uint32_t first, uint32_t end, int64_t read_us)
{
    for (; first < end; first++)
        if (history->seen[first] <= read_us) return 1;
    return 0;
}

static inline void hr_width_copy(uint8_t *to, const uint8_t *from, uint32_t width)
{
    if (width == 8) memcpy(to, from, 8);
    else if (width == 4) memcpy(to, from, 4);
    else *to = *from;
}

/* Holds the value of a feature for read i of the group; where nothing has moved it is that of the read before. */
static inline int hr_walk_emit(hr_history_walk *walk, uint32_t place, int64_t read_us, uint32_t i)
{
    hr_history_column *column = &walk->history->columns[place];
    const hr_window_feature *feature = &walk->history->plan->features[place];
    uint8_t *to = column->held + i * column->stride;
    hr_window_value value;
    hr_result result;
    int status;
    if (!walk->is_moved && feature->aggregate != HR_AGG_DECAYED) {
        hr_width_copy(to, to - column->stride, column->width);
        column->held_nulls[i] = column->held_nulls[i - 1];
        column->losses[column->held_nulls[i] >> 1] += column->held_nulls[i] >> 1 != 0;
        return HR_WINDOW_OK;
    }
    if (walk->is_queued) {
        hr_walk_head(walk, &result);
    } else {
        status = hr_merged(hr_window_result(walk->state, feature->aggregate, feature->parameter, read_us, &result));
        if (status != HR_WINDOW_OK) return status;
    }
    column->held_nulls[i] = (uint8_t)(result.value.is_null | result.lost << 1);
    column->losses[result.lost] += result.lost != 0;
    if (result.value.is_null) {
        memset(to, 0, column->width);
        return HR_WINDOW_OK;
    }
    if (!feature->is_list && !hr_scalar_is_text(feature->scalar)) {
        hr_scalar_store(feature->scalar, &result.value, to);
        return HR_WINDOW_OK;
    }
    status = hr_fold_store(&column->heap, feature, &result, &value);
    hr_store_u32(to, value.heap.start);
    hr_store_u32(to + 4, value.heap.length);
    return status;
}

/* The values of read i of the group. */
static inline int hr_walk_read(hr_history_walk *walk, hr_history_edge edge, int64_t read_us, uint32_t i)
{
    const hr_history *history = walk->history;
    uint32_t high = edge.known > edge.low ? edge.known : edge.low, u;
    int has_more = high < edge.high && hr_walk_has_more(history, high, edge.high, read_us);
    int status = HR_WINDOW_OK;
    walk->is_moved =
        !walk->is_started || edge.low != walk->low || high != walk->high || walk->is_dirty || has_more;
    if (walk->is_moved)
        status = hr_walk_move(walk, edge.low, high, hr_walk_start(walk, edge.low, high, read_us),
                              high < edge.high ? history->times[high] - 1 : read_us, has_more);
    if (has_more && status == HR_WINDOW_OK) status = hr_merged(hr_walk_more(walk, high, edge.high, read_us, 0));
    for (u = walk->first_use; u < walk->end_use && status == HR_WINDOW_OK; u++)
        if (!history->columns[history->plan->uses[u]].is_done)
            status = hr_walk_emit(walk, history->plan->uses[u], read_us, i);
    walk->is_started = 1, walk->is_dirty = has_more;
    if (!has_more || status != HR_WINDOW_OK || walk->uses_tiles || !hr_state_can_retract(&walk->planned->spec))
        return status;
    if (hr_walk_more(walk, high, edge.high, read_us, 1) != HR_STATE_OK) walk->uses_tiles = 1;
    return status;
}

/* Values of the `count` sorted reads of the group, the first of which is first_read. */
static inline int hr_walk_run(hr_history_walk *walk, uint32_t first_read, uint32_t count)
{
    const hr_history *history = walk->history;
    uint32_t i;
    int status = HR_WINDOW_OK;
    hr_state_reset(walk->state);
    for (i = 0; i < count && status == HR_WINDOW_OK; i++)
        status = hr_walk_read(walk, history->edges[i], history->reads.times[first_read + i], i);
    return status;
}

#endif
