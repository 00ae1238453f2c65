/* One entity's rows in one block of memory, which never changes once it is built. */
#ifndef HR_ENTRY_H
#define HR_ENTRY_H

#ifdef __APPLE__
#include <malloc/malloc.h>
#define malloc_usable_size malloc_size
#else
#include <malloc.h>
#endif
#include <stdlib.h>

#include "hr_layout.h"

enum { HR_MALLOC_OVERHEAD = 8 };  /* bytes of the allocator before each block */

/* One view of an entity: the row's place in the entry; 0 says that storage holds no row. */
typedef struct {
    uint32_t view_id;
    uint32_t row_start;
} hr_view_ref;

/* One entity: this header, view_count refs, the prefix, then rows aligned to 8. */
typedef struct {
    uint64_t hash;
    uint32_t bytes;          /* what the allocator gave, overhead included */
    uint16_t prefix_bytes;
    uint16_t view_count;
    uint8_t referenced;      /* CLOCK: read since the hand passed; relaxed, a lost update costs nothing */
    uint8_t reserved[7];
    hr_view_ref views[];
} hr_entry;

/* One view to enter: row NULL says that storage holds none. */
typedef struct {
    uint32_t view_id;
    uint32_t row_bytes;
    const uint8_t *row;
} hr_row_put;

/* What the allocator gave for a block, or 0 for NULL. */
static inline size_t hr_block_bytes(void *block)
{
    return block != NULL ? malloc_usable_size(block) + HR_MALLOC_OVERHEAD : 0;
}

static inline const uint8_t *hr_entry_prefix(const hr_entry *entry)
{
    return (const uint8_t *)(entry->views + entry->view_count);
}

static inline int hr_entry_is(const hr_entry *entry, uint64_t hash, const uint8_t *prefix, size_t prefix_bytes)
{
    return entry->hash == hash && entry->prefix_bytes == prefix_bytes
        && memcmp(hr_entry_prefix(entry), prefix, prefix_bytes) == 0;
}

/* 1 and the row (NULL: storage holds none) when the entry knows the view, else 0. */
static inline int hr_entry_row(const hr_entry *entry, uint32_t view_id, const uint8_t **row)
{
    for (uint32_t i = 0; i < entry->view_count; i++) {
        if (entry->views[i].view_id != view_id) continue;
        *row = entry->views[i].row_start ? (const uint8_t *)entry + entry->views[i].row_start : NULL;
        return 1;
    }
    return 0;
}

static inline uint32_t hr_entry_row_count(const hr_entry *entry)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < entry->view_count; i++) count += entry->views[i].row_start != 0;
    return count;
}

static inline const hr_row_put *hr_puts_of(const hr_row_put *puts, uint32_t put_count, uint32_t view_id)
{
    for (uint32_t i = put_count; i-- > 0;)
        if (puts[i].view_id == view_id) return &puts[i];
    return NULL;
}

static inline uint32_t hr_round8(uint32_t bytes) { return (bytes + 7u) & ~7u; }

/* Bytes of the entry that merges `old` (or NULL) with the puts, and its count of views. */
static inline uint32_t hr_merged_bytes(
    const hr_entry *old, uint32_t prefix_bytes, const hr_row_put *puts, uint32_t put_count, uint32_t *view_count)
{
    uint32_t rows = 0, views = 0;
    for (uint32_t i = 0; old != NULL && i < old->view_count; i++) {
        if (hr_puts_of(puts, put_count, old->views[i].view_id) != NULL) continue;
        views++;
        if (old->views[i].row_start != 0)
            rows += hr_round8(hr_load_u32((const uint8_t *)old + old->views[i].row_start + HR_ROW_LENGTH));
    }
    for (uint32_t i = 0; i < put_count; i++) {
        if (hr_puts_of(puts, put_count, puts[i].view_id) != &puts[i]) continue;
        views++;
        if (puts[i].row != NULL) rows += hr_round8(puts[i].row_bytes);
    }
    *view_count = views;
    return hr_round8((uint32_t)sizeof(hr_entry) + views * (uint32_t)sizeof(hr_view_ref) + prefix_bytes) + rows;
}

static inline void hr_entry_add(hr_entry *entry, uint32_t *views, uint32_t *end, hr_row_put put)
{
    hr_view_ref *ref = &entry->views[(*views)++];
    ref->view_id = put.view_id;
    ref->row_start = put.row != NULL ? *end : 0;
    if (put.row == NULL) return;
    memcpy((uint8_t *)entry + *end, put.row, put.row_bytes);
    *end += hr_round8(put.row_bytes);
}

static inline hr_entry *hr_entry_merge(
    const hr_entry *old, uint64_t hash, const uint8_t *prefix, uint32_t prefix_bytes, const hr_row_put *puts,
    uint32_t put_count)
{
    uint32_t view_count, views = 0, bytes = hr_merged_bytes(old, prefix_bytes, puts, put_count, &view_count);
    uint32_t end = hr_round8((uint32_t)sizeof(hr_entry) + view_count * (uint32_t)sizeof(hr_view_ref) + prefix_bytes);
    hr_entry *entry = view_count <= UINT16_MAX ? malloc(bytes) : NULL;
    if (entry == NULL) return NULL;
    entry->hash = hash;
    entry->bytes = (uint32_t)hr_block_bytes(entry);
    entry->prefix_bytes = (uint16_t)prefix_bytes;
    entry->view_count = (uint16_t)view_count;
    entry->referenced = old != NULL ? __atomic_load_n(&old->referenced, __ATOMIC_RELAXED) : 0;
    for (uint32_t i = 0; old != NULL && i < old->view_count; i++) {
        const uint8_t *row = old->views[i].row_start ? (const uint8_t *)old + old->views[i].row_start : NULL;
        hr_row_put kept = {old->views[i].view_id, row != NULL ? hr_load_u32(row + HR_ROW_LENGTH) : 0, row};
        if (hr_puts_of(puts, put_count, kept.view_id) == NULL) hr_entry_add(entry, &views, &end, kept);
    }
    for (uint32_t i = 0; i < put_count; i++)
        if (hr_puts_of(puts, put_count, puts[i].view_id) == &puts[i]) hr_entry_add(entry, &views, &end, puts[i]);
    memcpy((uint8_t *)(entry->views + view_count), prefix, prefix_bytes);
    return entry;
}

#endif
