/* Walks a lineage graph breadth first. The caller holds the lock, shared with other readers. */
#ifndef HR_LINEAGE_WALK_H
#define HR_LINEAGE_WALK_H

#include "hr_lineage.h"

enum { HR_LINEAGE_AHEAD = 12, HR_LINEAGE_AHEAD_ENTRIES = 6 };  /* nodes whose block, then entries, are fetched early */

/* Nodes in the order in which they were reached: by hops, then by their parents, then by age of the edge. */
typedef struct {
    uint32_t *nodes;
    uint32_t *parents;  /* position of the node that reached it, or HR_LINEAGE_NONE for a start */
    uint32_t *edges;    /* by which it was reached, likewise */
    uint32_t count;
    uint32_t *level_ends;  /* positions: hop h is [level_ends[h - 1], level_ends[h]) */
    uint32_t level_count, level_capacity;
} hr_lineage_found;

static inline void hr_lineage_drop(hr_lineage_found *found)
{
    free(found->nodes);
    free(found->parents);
    free(found->edges);
    free(found->level_ends);
}

static inline int hr_lineage_end_level(hr_lineage_found *found)
{
    if (found->level_count == found->level_capacity) {
        uint64_t capacity = found->level_capacity == 0 ? 64 : 2 * (uint64_t)found->level_capacity;
        if (hr_lineage_grow((void **)&found->level_ends, capacity, sizeof(uint32_t))) return HR_LINEAGE_NO_MEMORY;
        found->level_capacity = (uint32_t)(capacity < UINT32_MAX ? capacity : UINT32_MAX);
    }
    found->level_ends[found->level_count++] = found->count;
    return HR_LINEAGE_OK;
}

/* 1 where a node is new, and marks it. */
static inline int hr_lineage_mark(uint64_t *seen, uint32_t node)
{
    uint64_t bit = (uint64_t)1 << (node & 63), word = seen[node >> 6];
    seen[node >> 6] = word | bit;
    return (word & bit) == 0;
}

static inline void hr_lineage_fetch(const hr_lineage_way *way, const hr_lineage_found *found, uint32_t at)
{
    if (at + HR_LINEAGE_AHEAD < found->count) __builtin_prefetch(&way->blocks[found->nodes[at + HR_LINEAGE_AHEAD]]);
    if (at + HR_LINEAGE_AHEAD_ENTRIES < found->count)
        __builtin_prefetch(&way->entries[way->blocks[found->nodes[at + HR_LINEAGE_AHEAD_ENTRIES]].start]);
}

static inline void hr_lineage_visit(
    const hr_lineage *graph, const hr_lineage_way *way, const hr_lineage_view *view, uint64_t *seen,
    hr_lineage_found *found, uint32_t at)
{
    const hr_lineage_block block = way->blocks[found->nodes[at]];
    const hr_lineage_entry *entries = way->entries + block.start;
    uint32_t *nodes = found->nodes, *parents = found->parents, *edges = found->edges, count = found->count;
    for (uint32_t i = 0; i < block.count; i++) {
        if (!hr_lineage_sees(graph, view, entries[i].span) || !hr_lineage_mark(seen, entries[i].node)) continue;
        nodes[count] = entries[i].node;
        parents[count] = at;
        edges[count++] = entries[i].edge;
    }
    found->count = count;
}

/* Everything that the starts reach within a number of hops; `found` is all zeros before, and the caller drops it. */
static inline int hr_lineage_closure(
    const hr_lineage *graph, int upstream, const hr_lineage_view *view, const uint32_t *starts, uint64_t start_count,
    uint32_t hops_max, hr_lineage_found *found)
{
    const hr_lineage_way *way = &graph->ways[upstream ? 1 : 0];
    uint64_t room = (uint64_t)graph->node_count + 1;
    uint64_t *seen = calloc(room / 64 + 1, sizeof(uint64_t));
    int status = seen == NULL ? HR_LINEAGE_NO_MEMORY : HR_LINEAGE_OK;
    if (status == HR_LINEAGE_OK) status = hr_lineage_grow((void **)&found->nodes, room, sizeof(uint32_t));
    if (status == HR_LINEAGE_OK) status = hr_lineage_grow((void **)&found->parents, room, sizeof(uint32_t));
    if (status == HR_LINEAGE_OK) status = hr_lineage_grow((void **)&found->edges, room, sizeof(uint32_t));
    for (uint64_t i = 0; i < start_count && status == HR_LINEAGE_OK; i++) {
        if (starts[i] >= graph->node_count) status = HR_LINEAGE_UNKNOWN;
        else if (hr_lineage_mark(seen, starts[i])) {
            found->nodes[found->count] = starts[i];
            found->parents[found->count] = HR_LINEAGE_NONE;
            found->edges[found->count++] = HR_LINEAGE_NONE;
        }
    }
    if (status == HR_LINEAGE_OK) status = hr_lineage_end_level(found);
    for (uint32_t at = 0; status == HR_LINEAGE_OK && found->level_count <= hops_max && at < found->count;) {
        for (uint32_t end = found->count; at < end; at++) {
            hr_lineage_fetch(way, found, at);
            hr_lineage_visit(graph, way, view, seen, found, at);
        }
        if (found->count > at) status = hr_lineage_end_level(found);
    }
    free(seen);
    return status;
}

/* Counts the edges of nodes that a view sees, and writes as many as there is room for. */
static inline int hr_lineage_adjacent(
    const hr_lineage *graph, int upstream, const hr_lineage_view *view, const uint32_t *nodes, uint64_t node_count,
    uint32_t *positions, uint32_t *ends, uint32_t *edges, uint64_t room, uint64_t *count)
{
    const hr_lineage_way *way = &graph->ways[upstream ? 1 : 0];
    *count = 0;
    for (uint64_t at = 0; at < node_count; at++) {
        if (nodes[at] >= graph->node_count) return HR_LINEAGE_UNKNOWN;
        const hr_lineage_block *block = &way->blocks[nodes[at]];
        const hr_lineage_entry *entries = way->entries + block->start;
        for (uint32_t i = 0; i < block->count; i++) {
            if (!hr_lineage_sees(graph, view, entries[i].span)) continue;
            if (*count < room) {
                positions[*count] = (uint32_t)at;
                ends[*count] = entries[i].node;
                edges[*count] = entries[i].edge;
            }
            ++*count;
        }
    }
    return HR_LINEAGE_OK;
}

#endif
