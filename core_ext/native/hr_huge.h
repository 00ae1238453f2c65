/* Memory of large tables, on huge pages where it fills some. */
#ifndef HR_HUGE_H
#define HR_HUGE_H

#include <stdlib.h>
#include <sys/mman.h>

enum { HR_HUGE_BYTES = 1 << 21 };

/* free() takes what this gives. */
static inline void *hr_huge_allocate(size_t bytes)
{
    size_t whole = (bytes + HR_HUGE_BYTES - 1) / HR_HUGE_BYTES * HR_HUGE_BYTES;
    void *at;
    if (bytes < 2 * HR_HUGE_BYTES) return malloc(bytes);
    at = aligned_alloc(HR_HUGE_BYTES, whole);
#ifdef MADV_HUGEPAGE
    if (at != NULL) madvise(at, whole, MADV_HUGEPAGE);  /* advice: where it is not taken, nothing else changes */
#endif
    return at;
}

#endif
