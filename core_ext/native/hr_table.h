/* The row table: entity prefix to the rows of its views, bounded, read without locks.
 *
 * Why readers need no lock. An entry never changes after it was published: a writer builds a new one, stores
 * its pointer with release order and retires the old one. A reader announces the epoch it started in
 * (hr_read_begin) and loads pointers with acquire order. A retired block is freed once every announced epoch
 * is past the one it was retired in. The announcement and the scan of announcements are separated from the
 * loads and the unlinking by sequentially consistent fences: either the scan sees the reader, or the reader
 * sees the unlinking. Epoch-based reclamation: K. Fraser, "Practical lock-freedom", 2004, section 5.2.3.
 *
 * Why a fill is never stale. A write of storage commits first, then raises the table's ticket and marks the
 * stripe of its key. A fill carries the ticket that stood before its read of storage: a greater mark says that
 * a write finished after the ticket was taken, so what was read may be old, and the fill is dropped. */
#ifndef HR_TABLE_H
#define HR_TABLE_H

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "hr_entry.h"
#include "hr_hash.h"
#include "hr_rules.h"

enum {
    HR_SEGMENTS = 64,         /* independent writer locks; the low hash bits choose */
    HR_STRIPES = 256,         /* write marks of a segment */
    HR_READERS = 64,          /* threads inside a read at once; one more waits */
    HR_INDEX_MIN = 64         /* first index of a segment */
};
enum { HR_TABLE_OK = 0, HR_TABLE_NO_MEMORY = -1 };
enum { HR_UNKNOWN = 0, HR_NEWER = 1, HR_NOT_NEWER = 2 };

/* Open addressing by linear probing. A slot holds the entry's address and, in its top 16 bits, hash bits. */
typedef struct {
    size_t bytes;
    uint64_t mask;
    uint64_t slots[];
} hr_index;

typedef struct {
    void *block;
    uint64_t epoch;
    size_t bytes;
} hr_retired;

typedef struct {
    pthread_mutex_t lock;           /* writers */
    hr_index *index;                /* atomic */
    uint64_t entity_count, removed_count, row_count, eviction_count, dropped_fill_count;
    uint64_t hand;
    size_t used_bytes;              /* retired blocks included */
    size_t retired_bytes;
    hr_retired *retired;
    size_t retired_count, retired_room;
    uint64_t written[HR_STRIPES];   /* ticket of the last write of a stripe */
} __attribute__((aligned(64))) hr_segment;

typedef struct {
    uint64_t epoch;                 /* 0: free */
} __attribute__((aligned(64))) hr_reader;

typedef struct {
    hr_segment segments[HR_SEGMENTS];
    hr_reader readers[HR_READERS];
    uint64_t epoch;                 /* atomic, from 1 */
    uint64_t ticket;                /* atomic */
    size_t segment_bytes_max;
} hr_table;

#define HR_SLOT_FREE 0ULL
#define HR_SLOT_REMOVED 1ULL
#define HR_ADDRESS_MASK 0x0000FFFFFFFFFFFFULL

static inline uint64_t hr_table_hash(const uint8_t *prefix, size_t prefix_bytes)
{
    return hr_xxh3_64(prefix, prefix_bytes);
}

static inline hr_segment *hr_segment_of(hr_table *table, uint64_t hash)
{
    return &table->segments[hash % HR_SEGMENTS];
}

/* ---- readers ---- */

/* Enters a read; hand the result to hr_read_end. Waits while HR_READERS threads are inside. */
static inline int hr_read_begin(hr_table *table)
{
    static __thread int preferred = 0;
    int at = preferred;
    for (;;) {
        for (int i = 0; i < HR_READERS; i++, at = (at + 1) % HR_READERS) {
            uint64_t idle = 0;
            uint64_t epoch = __atomic_load_n(&table->epoch, __ATOMIC_ACQUIRE);
            if (__atomic_compare_exchange_n(
                    &table->readers[at].epoch, &idle, epoch, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
                __atomic_thread_fence(__ATOMIC_SEQ_CST);
                preferred = at;
                return at;
            }
        }
        sched_yield();
    }
}

static inline void hr_read_end(hr_table *table, int reader)
{
    __atomic_store_n(&table->readers[reader].epoch, 0, __ATOMIC_RELEASE);
}

static inline void hr_prefetch_slot(hr_table *table, uint64_t hash)
{
    hr_index *index = __atomic_load_n(&hr_segment_of(table, hash)->index, __ATOMIC_ACQUIRE);
    __builtin_prefetch(&index->slots[(hash >> 8) & index->mask]);
}

/* First entry whose hash bits agree, unchecked, to prefetch it; NULL when there is none. */
static inline hr_entry *hr_table_candidate(hr_table *table, uint64_t hash)
{
    hr_index *index = __atomic_load_n(&hr_segment_of(table, hash)->index, __ATOMIC_ACQUIRE);
    for (uint64_t at = (hash >> 8) & index->mask;; at = (at + 1) & index->mask) {
        uint64_t slot = __atomic_load_n(&index->slots[at], __ATOMIC_ACQUIRE);
        if (slot == HR_SLOT_FREE) return NULL;
        if (slot != HR_SLOT_REMOVED && (slot >> 48) == (hash >> 48))
            return (hr_entry *)(uintptr_t)(slot & HR_ADDRESS_MASK);
    }
}

/* The entity's slot in the index, or the mask + 1 when it is not there. */
static inline uint64_t hr_index_find(
    const hr_index *index, uint64_t hash, const uint8_t *prefix, size_t prefix_bytes, hr_entry **found)
{
    for (uint64_t at = (hash >> 8) & index->mask;; at = (at + 1) & index->mask) {
        uint64_t slot = __atomic_load_n(&index->slots[at], __ATOMIC_ACQUIRE);
        hr_entry *entry;
        if (slot == HR_SLOT_FREE) break;
        if (slot == HR_SLOT_REMOVED || (slot >> 48) != (hash >> 48)) continue;
        entry = (hr_entry *)(uintptr_t)(slot & HR_ADDRESS_MASK);
        if (hr_entry_is(entry, hash, prefix, prefix_bytes)) {
            *found = entry;
            return at;
        }
    }
    *found = NULL;
    return index->mask + 1;
}

/* The entity's entry or NULL; valid until hr_read_end. */
static inline hr_entry *hr_table_find(hr_table *table, uint64_t hash, const uint8_t *prefix, size_t prefix_bytes)
{
    hr_entry *found;
    hr_index *index = __atomic_load_n(&hr_segment_of(table, hash)->index, __ATOMIC_ACQUIRE);
    hr_index_find(index, hash, prefix, prefix_bytes, &found);
    if (found != NULL && !__atomic_load_n(&found->referenced, __ATOMIC_RELAXED))
        __atomic_store_n(&found->referenced, 1, __ATOMIC_RELAXED);
    return found;
}

/* ---- writers: every function below wants the segment's lock ---- */

static inline void hr_segment_free_retired(hr_table *table, hr_segment *segment)
{
    uint64_t oldest = UINT64_MAX;
    size_t kept = 0;
    if (segment->retired_count == 0) return;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (int i = 0; i < HR_READERS; i++) {
        uint64_t epoch = __atomic_load_n(&table->readers[i].epoch, __ATOMIC_SEQ_CST);
        if (epoch != 0 && epoch < oldest) oldest = epoch;
    }
    for (size_t i = 0; i < segment->retired_count; i++) {
        hr_retired *old = &segment->retired[i];
        if (old->epoch < oldest) {
            segment->used_bytes -= old->bytes;
            segment->retired_bytes -= old->bytes;
            free(old->block);
        } else {
            segment->retired[kept++] = *old;
        }
    }
    segment->retired_count = kept;
}

/* Makes room for `more` retirements, so that none can fail halfway. */
static inline int hr_segment_reserve(hr_segment *segment, size_t more)
{
    size_t need = segment->retired_count + more, room = segment->retired_room ? segment->retired_room : 16;
    size_t held = hr_block_bytes(segment->retired);
    hr_retired *grown;
    if (need <= segment->retired_room) return HR_TABLE_OK;
    while (room < need) room *= 2;
    grown = realloc(segment->retired, room * sizeof(hr_retired));
    if (grown == NULL) return HR_TABLE_NO_MEMORY;
    segment->used_bytes += hr_block_bytes(grown) - held;
    segment->retired = grown;
    segment->retired_room = room;
    return HR_TABLE_OK;
}

static inline void hr_segment_retire(hr_table *table, hr_segment *segment, void *block, size_t bytes)
{
    hr_retired *old = &segment->retired[segment->retired_count++];
    old->block = block;
    old->bytes = bytes;
    segment->retired_bytes += bytes;
    old->epoch = __atomic_fetch_add(&table->epoch, 1, __ATOMIC_SEQ_CST);
}

static inline uint64_t hr_slot_of(const hr_entry *entry)
{
    return ((entry->hash >> 48) << 48) | (uint64_t)(uintptr_t)entry;
}

static inline hr_index *hr_index_new(uint64_t slot_count)
{
    size_t bytes = sizeof(hr_index) + slot_count * sizeof(uint64_t);
    hr_index *index = calloc(1, bytes);
    if (index == NULL) return NULL;
    index->bytes = hr_block_bytes(index);
    index->mask = slot_count - 1;
    return index;
}

/* Rebuilds the index when less than a quarter of it is free; readers go on in the old one. */
static inline int hr_segment_make_slot(hr_table *table, hr_segment *segment)
{
    hr_index *old = segment->index, *grown;
    uint64_t slot_count = old->mask + 1;
    if ((segment->entity_count + segment->removed_count + 1) * 4 <= slot_count * 3) return HR_TABLE_OK;
    while ((segment->entity_count + 1) * 2 > slot_count) slot_count *= 2;
    if (hr_segment_reserve(segment, 1) != HR_TABLE_OK) return HR_TABLE_NO_MEMORY;
    grown = hr_index_new(slot_count);
    if (grown == NULL) return HR_TABLE_NO_MEMORY;
    for (uint64_t i = 0; i <= old->mask; i++) {
        uint64_t slot = old->slots[i], at;
        if (slot == HR_SLOT_FREE || slot == HR_SLOT_REMOVED) continue;
        at = (((hr_entry *)(uintptr_t)(slot & HR_ADDRESS_MASK))->hash >> 8) & grown->mask;
        while (grown->slots[at] != HR_SLOT_FREE) at = (at + 1) & grown->mask;
        grown->slots[at] = slot;
    }
    segment->used_bytes += grown->bytes;
    segment->removed_count = 0;
    segment->hand = 0;
    __atomic_store_n(&segment->index, grown, __ATOMIC_RELEASE);
    hr_segment_retire(table, segment, old, old->bytes);
    return HR_TABLE_OK;
}

static inline void hr_segment_remove(hr_table *table, hr_segment *segment, uint64_t at)
{
    hr_entry *entry = (hr_entry *)(uintptr_t)(segment->index->slots[at] & HR_ADDRESS_MASK);
    __atomic_store_n(&segment->index->slots[at], HR_SLOT_REMOVED, __ATOMIC_RELEASE);
    segment->entity_count--;
    segment->removed_count++;
    segment->row_count -= hr_entry_row_count(entry);
    hr_segment_retire(table, segment, entry, entry->bytes);
}

/* CLOCK: takes entries away until what is live fits; each is spared once for a read since the last pass. What waits
 * for readers to be freed comes on top: were it counted, every write during one long read would evict it again. */
static inline void hr_segment_evict(hr_table *table, hr_segment *segment)
{
    uint64_t steps = 2 * (segment->index->mask + 1);
    hr_segment_free_retired(table, segment);
    while (steps-- && segment->used_bytes - segment->retired_bytes > table->segment_bytes_max) {
        uint64_t at = segment->hand++ & segment->index->mask, slot = segment->index->slots[at];
        hr_entry *entry = (hr_entry *)(uintptr_t)(slot & HR_ADDRESS_MASK);
        if (slot == HR_SLOT_FREE || slot == HR_SLOT_REMOVED) continue;
        if (__atomic_load_n(&entry->referenced, __ATOMIC_RELAXED)) {
            __atomic_store_n(&entry->referenced, 0, __ATOMIC_RELAXED);
            continue;
        }
        if (hr_segment_reserve(segment, 1) != HR_TABLE_OK) break;
        hr_segment_remove(table, segment, at);
        segment->eviction_count++;
    }
    hr_segment_free_retired(table, segment);
}

/* Publishes the merge of what is held and the puts. An entity that is not held is entered only on `insert`. */
static inline int hr_segment_put(
    hr_table *table, hr_segment *segment, uint64_t hash, const uint8_t *prefix, uint32_t prefix_bytes,
    const hr_row_put *puts, uint32_t put_count, int insert)
{
    hr_entry *old, *entry;
    uint64_t at = hr_index_find(segment->index, hash, prefix, prefix_bytes, &old);
    if (old == NULL && !insert) return HR_TABLE_OK;
    if (hr_segment_reserve(segment, 1) != HR_TABLE_OK) return HR_TABLE_NO_MEMORY;
    entry = hr_entry_merge(old, hash, prefix, prefix_bytes, puts, put_count);
    if (entry == NULL) return HR_TABLE_NO_MEMORY;
    if (old == NULL) {
        if (hr_segment_make_slot(table, segment) != HR_TABLE_OK) {
            free(entry);
            return HR_TABLE_NO_MEMORY;
        }
        at = (hash >> 8) & segment->index->mask;
        while (segment->index->slots[at] != HR_SLOT_FREE) at = (at + 1) & segment->index->mask;
        segment->entity_count++;
    }
    segment->used_bytes += entry->bytes;
    segment->row_count += hr_entry_row_count(entry);
    __atomic_store_n(&segment->index->slots[at], hr_slot_of(entry), __ATOMIC_RELEASE);
    if (old != NULL) {
        segment->row_count -= hr_entry_row_count(old);
        hr_segment_retire(table, segment, old, old->bytes);
    }
    if (segment->retired_count >= 64) hr_segment_free_retired(table, segment);
    if (segment->used_bytes > table->segment_bytes_max) hr_segment_evict(table, segment);
    return HR_TABLE_OK;
}

/* Takes an entry away for certain, whatever memory is left. */
static inline void hr_segment_drop(hr_table *table, hr_segment *segment, uint64_t at)
{
    hr_entry *entry = (hr_entry *)(uintptr_t)(segment->index->slots[at] & HR_ADDRESS_MASK);
    if (hr_segment_reserve(segment, 1) == HR_TABLE_OK) {
        hr_segment_remove(table, segment, at);
        return;
    }
    /* No memory even for the note: leak the block rather than free it under a reader. */
    __atomic_store_n(&segment->index->slots[at], HR_SLOT_REMOVED, __ATOMIC_RELEASE);
    segment->entity_count--;
    segment->removed_count++;
    segment->row_count -= hr_entry_row_count(entry);
}

/* Forgets an entity whose update could not be kept: a miss is right, an old row is not. */
static inline void hr_segment_forget(
    hr_table *table, hr_segment *segment, uint64_t hash, const uint8_t *prefix, uint32_t prefix_bytes)
{
    hr_entry *old;
    uint64_t at = hr_index_find(segment->index, hash, prefix, prefix_bytes, &old);
    if (old != NULL) hr_segment_drop(table, segment, at);
}

/* ---- whole operations ---- */

/* Enters what storage held at a time not before the ticket. Returns 1 entered, 0 dropped, or no memory. */
static inline int hr_table_fill(
    hr_table *table, const uint8_t *prefix, uint32_t prefix_bytes, const hr_row_put *puts, uint32_t put_count,
    uint64_t ticket)
{
    uint64_t hash = hr_table_hash(prefix, prefix_bytes);
    hr_segment *segment = hr_segment_of(table, hash);
    int result = 1;
    pthread_mutex_lock(&segment->lock);
    if (segment->written[(hash >> 40) % HR_STRIPES] > ticket) {
        segment->dropped_fill_count++;
        result = 0;
    } else if (hr_segment_put(table, segment, hash, prefix, prefix_bytes, puts, put_count, 1) != HR_TABLE_OK) {
        result = HR_TABLE_NO_MEMORY;
    }
    pthread_mutex_unlock(&segment->lock);
    return result;
}

/* Replaces rows after their commit. */
static inline void hr_table_apply(
    hr_table *table, const uint8_t *prefix, uint32_t prefix_bytes, const hr_row_put *puts, uint32_t put_count)
{
    uint64_t hash = hr_table_hash(prefix, prefix_bytes);
    hr_segment *segment = hr_segment_of(table, hash);
    pthread_mutex_lock(&segment->lock);
    segment->written[(hash >> 40) % HR_STRIPES] = __atomic_add_fetch(&table->ticket, 1, __ATOMIC_SEQ_CST);
    if (hr_segment_put(table, segment, hash, prefix, prefix_bytes, puts, put_count, 0) != HR_TABLE_OK)
        hr_segment_forget(table, segment, hash, prefix, prefix_bytes);
    pthread_mutex_unlock(&segment->lock);
}

static inline uint64_t hr_table_ticket(hr_table *table)
{
    return __atomic_load_n(&table->ticket, __ATOMIC_SEQ_CST);
}

/* How a row stands to the one held: HR_NEWER, HR_NOT_NEWER, or HR_UNKNOWN where the view is not held. */
static inline int hr_table_compare(
    hr_table *table, const uint8_t *prefix, uint32_t prefix_bytes, uint32_t view_id, const uint8_t *row)
{
    int reader = hr_read_begin(table), answer = HR_UNKNOWN;
    const hr_entry *entry = hr_table_find(table, hr_table_hash(prefix, prefix_bytes), prefix, prefix_bytes);
    const uint8_t *held;
    if (entry != NULL && hr_entry_row(entry, view_id, &held))
        answer = held == NULL || hr_order_compare(row, held) > 0 ? HR_NEWER : HR_NOT_NEWER;
    hr_read_end(table, reader);
    return answer;
}

static inline void hr_segment_lock(hr_segment *segment) { pthread_mutex_lock(&segment->lock); }
static inline void hr_segment_unlock(hr_segment *segment) { pthread_mutex_unlock(&segment->lock); }

/* Memory of the table: its own struct, indexes, entries, notes of what is retired. */
static inline size_t hr_table_bytes(hr_table *table)
{
    size_t bytes = sizeof(hr_table);
    for (int i = 0; i < HR_SEGMENTS; i++) {
        pthread_mutex_lock(&table->segments[i].lock);
        bytes += table->segments[i].used_bytes;
        pthread_mutex_unlock(&table->segments[i].lock);
    }
    return bytes;
}

/* Gives an empty segment the memory of a new one, as far as there is any to build it with. */
static inline void hr_segment_shrink(hr_table *table, hr_segment *segment)
{
    hr_index *old = segment->index, *small;
    if (old->mask + 1 > HR_INDEX_MIN && hr_segment_reserve(segment, 1) == HR_TABLE_OK
        && (small = hr_index_new(HR_INDEX_MIN)) != NULL) {
        segment->used_bytes += small->bytes;
        segment->removed_count = 0;
        segment->hand = 0;
        __atomic_store_n(&segment->index, small, __ATOMIC_RELEASE);
        hr_segment_retire(table, segment, old, old->bytes);
    }
    hr_segment_free_retired(table, segment);
    if (segment->retired_count > 0) return;
    segment->used_bytes -= hr_block_bytes(segment->retired);
    free(segment->retired);
    segment->retired = NULL;
    segment->retired_room = 0;
}

/* Drops every entry, and every fill whose ticket is older: who clears may have changed storage beneath. */
static inline void hr_table_clear(hr_table *table)
{
    for (int i = 0; i < HR_SEGMENTS; i++) {
        hr_segment *segment = &table->segments[i];
        uint64_t ticket;
        pthread_mutex_lock(&segment->lock);
        ticket = __atomic_add_fetch(&table->ticket, 1, __ATOMIC_SEQ_CST);
        for (int j = 0; j < HR_STRIPES; j++) segment->written[j] = ticket;
        for (uint64_t at = 0; at <= segment->index->mask; at++) {
            uint64_t slot = segment->index->slots[at];
            if (slot == HR_SLOT_FREE || slot == HR_SLOT_REMOVED) continue;
            hr_segment_drop(table, segment, at);
        }
        hr_segment_shrink(table, segment);
        pthread_mutex_unlock(&segment->lock);
    }
}

static inline void hr_table_free(hr_table *table);

/* NULL when memory is short. */
static inline hr_table *hr_table_new(size_t capacity_bytes)
{
    hr_table *table = NULL;
    if (posix_memalign((void **)&table, 64, sizeof(hr_table)) != 0) return NULL;
    memset(table, 0, sizeof(hr_table));
    table->epoch = 1;
    table->segment_bytes_max = (capacity_bytes > sizeof(hr_table) ? capacity_bytes - sizeof(hr_table) : 0) / HR_SEGMENTS;
    for (int i = 0; i < HR_SEGMENTS; i++) pthread_mutex_init(&table->segments[i].lock, NULL);
    for (int i = 0; i < HR_SEGMENTS; i++) {
        hr_segment *segment = &table->segments[i];
        segment->index = hr_index_new(HR_INDEX_MIN);
        if (segment->index == NULL) {
            hr_table_free(table);
            return NULL;
        }
        segment->used_bytes = segment->index->bytes;
    }
    return table;
}

/* Frees everything; no reader or writer may be inside. */
static inline void hr_table_free(hr_table *table)
{
    if (table == NULL) return;
    for (int i = 0; i < HR_SEGMENTS; i++) {
        hr_segment *segment = &table->segments[i];
        for (uint64_t at = 0; segment->index != NULL && at <= segment->index->mask; at++) {
            uint64_t slot = segment->index->slots[at];
            if (slot != HR_SLOT_FREE && slot != HR_SLOT_REMOVED) free((void *)(uintptr_t)(slot & HR_ADDRESS_MASK));
        }
        for (size_t j = 0; j < segment->retired_count; j++) free(segment->retired[j].block);
        free(segment->retired);
        free(segment->index);
        pthread_mutex_destroy(&segment->lock);
    }
    free(table);
}

#endif
