/* Adds edges to a lineage graph, one by one or many at once. The caller holds the lock alone. */
#ifndef HR_LINEAGE_EDGES_H
#define HR_LINEAGE_EDGES_H

#include "hr_lineage.h"

/* Columns of edges to add. */
typedef struct {
    const uint32_t *sources, *targets;
    const int64_t *valid_from, *valid_to, *known_from, *known_to;
    uint64_t count;
} hr_lineage_batch;

/* floor(log2(capacity)) */
static inline int hr_lineage_class(uint32_t capacity) { return 31 - __builtin_clz(capacity); }

static inline void hr_lineage_give_back(hr_lineage_way *way, const hr_lineage_block *block)
{
    if (block->capacity == 0) return;
    int kind = hr_lineage_class(block->capacity);
    way->entries[block->start].node = way->free_blocks[kind];
    way->entries[block->start].span = block->capacity;
    way->free_blocks[kind] = block->start;
}

/* Makes room for one more entry of a node; a full block moves to one of twice the size. */
static inline int hr_lineage_reserve(hr_lineage_way *way, uint32_t node)
{
    hr_lineage_block *block = &way->blocks[node], made = {0, block->count, HR_LINEAGE_BLOCK_MIN};
    if (block->count < block->capacity) return HR_LINEAGE_OK;
    if (block->count >= HR_LINEAGE_ENDED) return HR_LINEAGE_FULL;
    while (made.capacity <= block->count) made.capacity *= 2;
    int kind = hr_lineage_class(made.capacity);
    if (way->free_blocks[kind] != HR_LINEAGE_NONE) {
        made.start = way->free_blocks[kind];
        made.capacity = way->entries[made.start].span;
        way->free_blocks[kind] = way->entries[made.start].node;
    } else {
        uint64_t needed = way->entry_count + made.capacity, capacity = way->entry_capacity;
        if (needed >= HR_LINEAGE_NONE) return HR_LINEAGE_FULL;
        if (needed > capacity) {
            capacity += capacity / 8;
            if (capacity < needed) capacity = needed;
            if (hr_lineage_grow((void **)&way->entries, capacity, sizeof(hr_lineage_entry)))
                return HR_LINEAGE_NO_MEMORY;
            way->entry_capacity = capacity;
        }
        made.start = (uint32_t)way->entry_count;
        way->entry_count = needed;
    }
    memcpy(way->entries + made.start, way->entries + block->start, block->count * sizeof(hr_lineage_entry));
    hr_lineage_give_back(way, block);
    *block = made;
    return HR_LINEAGE_OK;
}

static inline void hr_lineage_put(hr_lineage_way *way, uint32_t node, uint32_t other, uint32_t span, uint32_t edge)
{
    hr_lineage_block *block = &way->blocks[node];
    hr_lineage_entry entry = {other, span, edge};
    way->entries[block->start + block->count++] = entry;
}

static inline int hr_lineage_push(hr_lineage *graph, uint32_t source, uint32_t target, const hr_lineage_span *span)
{
    uint32_t number;
    if (graph->edge_count >= HR_LINEAGE_NONE - 1) return HR_LINEAGE_FULL;
    int status = hr_lineage_intern(graph, span, &number);
    if (status == HR_LINEAGE_OK) status = hr_lineage_reserve(&graph->ways[0], source);
    if (status == HR_LINEAGE_OK) status = hr_lineage_reserve(&graph->ways[1], target);
    if (status != HR_LINEAGE_OK) return status;
    hr_lineage_put(&graph->ways[0], source, target, number, graph->edge_count);
    hr_lineage_put(&graph->ways[1], target, source, number, graph->edge_count);
    graph->edge_count++;
    return HR_LINEAGE_OK;
}

static inline hr_lineage_entry *hr_lineage_find(const hr_lineage_way *way, uint32_t node, uint32_t edge)
{
    hr_lineage_entry *entries = way->entries + way->blocks[node].start;
    for (uint32_t i = 0; i < way->blocks[node].count; i++)
        if (entries[i].edge == edge) return &entries[i];
    return NULL;
}

/* Ends what was known of an edge, and adds what is known from then on. */
static inline int hr_lineage_replace(
    hr_lineage *graph, uint32_t source, uint32_t target, uint32_t edge, int64_t valid_to, int64_t known)
{
    hr_lineage_entry *down, *up;
    hr_lineage_span before, after;
    uint32_t number;
    if (source >= graph->node_count || target >= graph->node_count) return HR_LINEAGE_UNKNOWN;
    down = hr_lineage_find(&graph->ways[0], source, edge);
    up = hr_lineage_find(&graph->ways[1], target, edge);
    if (down == NULL || up == NULL) return HR_LINEAGE_UNKNOWN;
    before = after = graph->spans[down->span & ~HR_LINEAGE_ENDED];
    if (before.known_to != HR_LINEAGE_FOREVER) return HR_LINEAGE_CLOSED;
    before.known_to = known;
    after.valid_to = valid_to;
    after.known_from = known;
    int status = hr_lineage_intern(graph, &before, &number);
    if (status == HR_LINEAGE_OK) status = hr_lineage_push(graph, source, target, &after);
    if (status != HR_LINEAGE_OK) return status;
    hr_lineage_find(&graph->ways[0], source, edge)->span = number;
    hr_lineage_find(&graph->ways[1], target, edge)->span = number;
    return HR_LINEAGE_OK;
}

/* Lays one way out anew with room for a batch: blocks in the order of the nodes, without gaps. */
static inline int hr_lineage_lay_out(hr_lineage *graph, hr_lineage_way *way, const uint32_t *ends, uint64_t count)
{
    hr_lineage_block *blocks = calloc((size_t)graph->node_capacity + 1, sizeof(hr_lineage_block));
    uint64_t total = 0;
    hr_lineage_entry *entries;
    if (blocks == NULL) return HR_LINEAGE_NO_MEMORY;
    for (uint32_t node = 0; node < graph->node_count; node++) blocks[node].capacity = way->blocks[node].count;
    for (uint64_t i = 0; i < count; i++) blocks[ends[i]].capacity++;
    for (uint32_t node = 0; node < graph->node_count; node++) {
        blocks[node].start = (uint32_t)total;
        total += blocks[node].capacity;
    }
    entries = total < HR_LINEAGE_NONE ? malloc((total > 0 ? total : 1) * sizeof(hr_lineage_entry)) : NULL;
    if (entries == NULL) {
        free(blocks);
        return total < HR_LINEAGE_NONE ? HR_LINEAGE_NO_MEMORY : HR_LINEAGE_FULL;
    }
    for (uint32_t node = 0; node < graph->node_count; node++) {
        blocks[node].count = way->blocks[node].count;
        if (blocks[node].count > 0)
            memcpy(entries + blocks[node].start, way->entries + way->blocks[node].start,
                   blocks[node].count * sizeof(hr_lineage_entry));
    }
    free(way->blocks);
    free(way->entries);
    way->blocks = blocks;
    way->entries = entries;
    way->entry_count = way->entry_capacity = total;
    memset(way->free_blocks, 0xFF, sizeof(way->free_blocks));
    return HR_LINEAGE_OK;
}

/* Adds a batch; where it fails, the edges before the one that failed stay. */
static inline int hr_lineage_extend(hr_lineage *graph, const hr_lineage_batch *batch)
{
    int status = HR_LINEAGE_OK;
    for (uint64_t i = 0; i < batch->count; i++)
        if (batch->sources[i] >= graph->node_count || batch->targets[i] >= graph->node_count) return HR_LINEAGE_UNKNOWN;
    if (batch->count > graph->edge_count) {  /* so that each edge is moved this way a few times at most */
        status = hr_lineage_lay_out(graph, &graph->ways[0], batch->sources, batch->count);
        if (status == HR_LINEAGE_OK) status = hr_lineage_lay_out(graph, &graph->ways[1], batch->targets, batch->count);
    }
    for (uint64_t i = 0; i < batch->count && status == HR_LINEAGE_OK; i++) {
        hr_lineage_span span = {batch->valid_from[i], batch->valid_to[i], batch->known_from[i], batch->known_to[i]};
        status = hr_lineage_push(graph, batch->sources[i], batch->targets[i], &span);
    }
    return status;
}

#endif
