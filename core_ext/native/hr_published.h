/* The plans that are published now, for readers without the interpreter, which cannot count references. */
#ifndef HR_PUBLISHED_H
#define HR_PUBLISHED_H

#include <pthread.h>

#include "hr_plan.h"

typedef struct {
    pthread_rwlock_t lock;       /* a reader holds it as long as it uses the plans */
    const hr_plan_set *plans;
} hr_published;

/* Writers go first: readers that follow one another without a gap would keep a new plan out for ever. */
static inline int hr_lock_init(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t kind;
    int status;
    pthread_rwlockattr_init(&kind);
#ifdef __GLIBC__
    pthread_rwlockattr_setkind_np(&kind, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    status = pthread_rwlock_init(lock, &kind);
    pthread_rwlockattr_destroy(&kind);
    return status;
}

static inline int hr_published_begin(hr_published *published, const hr_plan_set *plans)
{
    published->plans = plans;
    return hr_lock_init(&published->lock);
}

/* Waits for the readers of the plans before; call it without the interpreter. */
static inline void hr_publish(hr_published *published, const hr_plan_set *plans)
{
    pthread_rwlock_wrlock(&published->lock);
    published->plans = plans;
    pthread_rwlock_unlock(&published->lock);
}

/* Tolerates a half-built owner, whose memory is zero: no plans were given to it. */
static inline void hr_published_end(hr_published *published)
{
    if (published->plans != NULL) pthread_rwlock_destroy(&published->lock);
}

#endif
