/* A lineage graph in memory: for every node its edges down and up, each with the span of time in which it held.
 *
 * A way (down or up) is a CSR whose blocks can grow: a node has a block of entries in one array, in the order in which
 * its edges came. A full block moves to one of twice the size, so that an edge costs O(degree), and the old one is
 * given to the next node that needs its size. An entry is 12 bytes and stands once in each way: 24 bytes an edge, and
 * 24 a node.
 *
 * Times are kept once: an entry holds the number of its span, and edges of one change share a span. A span says when an
 * edge was valid and when that was known, both half open, so that any moment's belief can be asked again. */
#ifndef HR_LINEAGE_H
#define HR_LINEAGE_H

#include <stdlib.h>
#include <string.h>

#include "hr_hash.h"
#include "hr_lock.h"

enum {
    HR_LINEAGE_OK = 0,
    HR_LINEAGE_NO_MEMORY = 1,
    HR_LINEAGE_FULL = 2,     /* a number does not fit 32 bits any more */
    HR_LINEAGE_UNKNOWN = 3,  /* no such node or edge */
    HR_LINEAGE_CLOSED = 4,   /* the edge was replaced before */
    HR_LINEAGE_CLASSES = 32,
    HR_LINEAGE_BLOCK_MIN = 2,
    HR_LINEAGE_SLOTS_MIN = 1 << 6
};
#define HR_LINEAGE_NONE UINT32_MAX
#define HR_LINEAGE_FOREVER INT64_MAX
#define HR_LINEAGE_ENDED 0x80000000U  /* bit of the number of a span that ends: now sees no such edge, mostly unread */

typedef struct {
    uint32_t node, span, edge;  /* node: the other end */
} hr_lineage_entry;

typedef struct {
    uint32_t start, count, capacity;
} hr_lineage_block;

typedef struct {
    int64_t valid_from, valid_to, known_from, known_to;
} hr_lineage_span;

typedef struct {
    hr_lineage_block *blocks;  /* by node */
    hr_lineage_entry *entries;
    uint64_t entry_count, entry_capacity;
    uint32_t free_blocks[HR_LINEAGE_CLASSES];  /* of at least 2^class entries; the first one holds next and capacity */
} hr_lineage_way;

typedef struct {
    hr_lock lock;
    uint32_t node_count, node_capacity, edge_count;
    hr_lineage_way ways[2];    /* down, up */
    hr_lineage_span *spans;
    uint32_t *span_slots;      /* number + 1, or 0 */
    uint32_t span_count, span_capacity, span_slot_count;
    int64_t newest_valid, newest_known;  /* the greatest starts */
} hr_lineage;

/* What is asked: edges that were valid at one time, by what was known at another. */
typedef struct {
    int64_t valid, known;
    int is_newest;  /* every span has begun */
} hr_lineage_view;

static inline int hr_lineage_init(hr_lineage *graph)
{
    memset(graph, 0, sizeof(*graph));
    graph->newest_valid = graph->newest_known = INT64_MIN;
    for (int way = 0; way < 2; way++)
        memset(graph->ways[way].free_blocks, 0xFF, sizeof(graph->ways[way].free_blocks));
    return hr_lock_init(&graph->lock) == 0 ? HR_LINEAGE_OK : HR_LINEAGE_NO_MEMORY;
}

static inline void hr_lineage_free(hr_lineage *graph)
{
    for (int way = 0; way < 2; way++) {
        free(graph->ways[way].blocks);
        free(graph->ways[way].entries);
    }
    free(graph->spans);
    free(graph->span_slots);
    hr_lock_destroy(&graph->lock);
}

/* Bytes that the graph holds, with the room that it keeps for more. */
static inline uint64_t hr_lineage_bytes(const hr_lineage *graph)
{
    uint64_t bytes = sizeof(*graph);
    for (int way = 0; way < 2; way++)
        bytes += (uint64_t)graph->node_capacity * sizeof(hr_lineage_block)
               + graph->ways[way].entry_capacity * sizeof(hr_lineage_entry);
    bytes += (uint64_t)graph->span_capacity * sizeof(hr_lineage_span);
    return bytes + (uint64_t)graph->span_slot_count * sizeof(uint32_t);
}

static inline int hr_lineage_grow(void **array, uint64_t count, size_t item_bytes)
{
    void *grown = realloc(*array, (count > 0 ? count : 1) * item_bytes);
    if (grown == NULL) return HR_LINEAGE_NO_MEMORY;
    *array = grown;
    return HR_LINEAGE_OK;
}

static inline int hr_lineage_add_nodes(hr_lineage *graph, uint64_t count)
{
    uint64_t needed = graph->node_count + count, capacity = graph->node_capacity;
    if (needed >= HR_LINEAGE_NONE) return HR_LINEAGE_FULL;
    if (needed > capacity) {
        capacity += capacity / 8;
        if (capacity < needed) capacity = needed;
        if (capacity >= HR_LINEAGE_NONE) capacity = HR_LINEAGE_NONE - 1;
        for (int way = 0; way < 2; way++)
            if (hr_lineage_grow((void **)&graph->ways[way].blocks, capacity, sizeof(hr_lineage_block)))
                return HR_LINEAGE_NO_MEMORY;
        graph->node_capacity = (uint32_t)capacity;
    }
    for (int way = 0; way < 2; way++)
        memset(graph->ways[way].blocks + graph->node_count, 0, count * sizeof(hr_lineage_block));
    graph->node_count = (uint32_t)needed;
    return HR_LINEAGE_OK;
}

static inline uint32_t hr_lineage_span_slot(const hr_lineage *graph, const hr_lineage_span *span)
{
    uint32_t mask = graph->span_slot_count - 1;
    uint32_t slot = (uint32_t)hr_xxh3_64((const uint8_t *)span, sizeof(*span)) & mask;
    while (graph->span_slots[slot] != 0
           && memcmp(&graph->spans[graph->span_slots[slot] - 1], span, sizeof(*span)) != 0)
        slot = (slot + 1) & mask;
    return slot;
}

static inline int hr_lineage_grow_spans(hr_lineage *graph)
{
    uint64_t capacity = graph->span_capacity < 32 ? 32 : (uint64_t)graph->span_capacity + graph->span_capacity / 4;
    uint64_t slots = graph->span_slot_count < HR_LINEAGE_SLOTS_MIN ? HR_LINEAGE_SLOTS_MIN : graph->span_slot_count;
    if (graph->span_count >= HR_LINEAGE_ENDED - 1) return HR_LINEAGE_FULL;
    if (graph->span_count == graph->span_capacity) {
        if (hr_lineage_grow((void **)&graph->spans, capacity, sizeof(hr_lineage_span))) return HR_LINEAGE_NO_MEMORY;
        graph->span_capacity = (uint32_t)capacity;
    }
    while (slots < 2 * ((uint64_t)graph->span_count + 1)) slots *= 2;
    if (slots != graph->span_slot_count) {
        uint32_t *made = calloc(slots, sizeof(uint32_t));
        if (made == NULL) return HR_LINEAGE_NO_MEMORY;
        free(graph->span_slots);
        graph->span_slots = made;
        graph->span_slot_count = (uint32_t)slots;
        for (uint32_t i = 0; i < graph->span_count; i++)
            graph->span_slots[hr_lineage_span_slot(graph, &graph->spans[i])] = i + 1;
    }
    return HR_LINEAGE_OK;
}

/* Number of a span, with its bit where it ends. */
static inline int hr_lineage_intern(hr_lineage *graph, const hr_lineage_span *span, uint32_t *number)
{
    int has_end = span->valid_to != HR_LINEAGE_FOREVER || span->known_to != HR_LINEAGE_FOREVER;
    int status = graph->span_slot_count == 0 ? hr_lineage_grow_spans(graph) : HR_LINEAGE_OK;
    if (status != HR_LINEAGE_OK) return status;
    uint32_t slot = hr_lineage_span_slot(graph, span);
    if (graph->span_slots[slot] == 0) {
        status = hr_lineage_grow_spans(graph);
        if (status != HR_LINEAGE_OK) return status;
        slot = hr_lineage_span_slot(graph, span);
        graph->spans[graph->span_count++] = *span;
        graph->span_slots[slot] = graph->span_count;
        if (span->valid_from > graph->newest_valid) graph->newest_valid = span->valid_from;
        if (span->known_from > graph->newest_known) graph->newest_known = span->known_from;
    }
    *number = (graph->span_slots[slot] - 1) | (has_end ? HR_LINEAGE_ENDED : 0);
    return HR_LINEAGE_OK;
}

static inline hr_lineage_view hr_lineage_view_at(const hr_lineage *graph, int64_t valid, int64_t known)
{
    int is_past_all = valid == HR_LINEAGE_FOREVER || known == HR_LINEAGE_FOREVER;  /* no span holds there */
    int has_all = valid >= graph->newest_valid && known >= graph->newest_known;
    hr_lineage_view view = {valid, known, has_all && !is_past_all};
    return view;
}

static inline int hr_lineage_sees(const hr_lineage *graph, const hr_lineage_view *view, uint32_t span)
{
    if (view->is_newest && !(span & HR_LINEAGE_ENDED)) return 1;
    const hr_lineage_span *held = &graph->spans[span & ~HR_LINEAGE_ENDED];
    return (held->valid_from <= view->valid) & (view->valid < held->valid_to) & (held->known_from <= view->known)
         & (view->known < held->known_to);
}

#endif
