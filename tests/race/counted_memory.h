/* Counts what the table takes from the allocator, and lets it run short on demand. */
#ifndef COUNTED_MEMORY_H
#define COUNTED_MEMORY_H

#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

static int64_t counted_bytes;      /* atomic: usable bytes and 8 of overhead of every live block */
static uint32_t shortage_one_in;   /* every so many allocations fail; 0: none */
static uint64_t shortage_state = 88172645463325252ULL;

static inline int runs_short(void)
{
    if (shortage_one_in == 0) return 0;
    /* xorshift64 */
    shortage_state ^= shortage_state << 13;
    shortage_state ^= shortage_state >> 7;
    shortage_state ^= shortage_state << 17;
    return shortage_state % shortage_one_in == 0;
}

static inline void *counted(void *block)
{
    if (block != NULL) __atomic_add_fetch(&counted_bytes, (int64_t)malloc_usable_size(block) + 8, __ATOMIC_RELAXED);
    return block;
}

static inline void uncount(void *block)
{
    if (block != NULL) __atomic_sub_fetch(&counted_bytes, (int64_t)malloc_usable_size(block) + 8, __ATOMIC_RELAXED);
}

static inline void *counted_malloc(size_t bytes) { return runs_short() ? NULL : counted(malloc(bytes)); }
static inline void *counted_calloc(size_t count, size_t bytes)
{
    return runs_short() ? NULL : counted(calloc(count, bytes));
}
static inline void *counted_realloc(void *block, size_t bytes)
{
    void *grown;
    if (runs_short()) return NULL;
    uncount(block);
    grown = realloc(block, bytes);
    return counted(grown != NULL ? grown : block) == grown ? grown : NULL;
}
static inline void counted_free(void *block)
{
    uncount(block);
    free(block);
}

#define malloc counted_malloc
#define calloc counted_calloc
#define realloc counted_realloc
#define free counted_free

#endif
