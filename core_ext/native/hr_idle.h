/* What one thread at a time uses, kept for the next that needs one: slots that are taken and filled by exchanges. */
#ifndef HR_IDLE_H
#define HR_IDLE_H

#include <stddef.h>
#include <stdint.h>

/* One that is idle, for the caller alone; NULL where there is none. */
static inline void *hr_idle_take(void **idle, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        void *one = __atomic_exchange_n(&idle[i], NULL, __ATOMIC_ACQUIRE);
        if (one != NULL) return one;
    }
    return NULL;
}

/* Keeps one; 0 where every slot is taken, and the caller keeps it. */
static inline int hr_idle_put(void **idle, uint32_t count, void *one)
{
    for (uint32_t i = 0; i < count; i++) {
        void *none = NULL;
        if (__atomic_compare_exchange_n(&idle[i], &none, one, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) return 1;
    }
    return 0;
}

#endif
