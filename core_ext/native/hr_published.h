/* The plans that are published now, for readers without the interpreter, which cannot count references. */
#ifndef HR_PUBLISHED_H
#define HR_PUBLISHED_H

#include "hr_lock.h"
#include "hr_plan.h"

typedef struct {
    hr_lock lock;                /* a reader holds it as long as it uses the plans */
    const hr_plan_set *plans;
} hr_published;

static inline int hr_published_begin(hr_published *published, const hr_plan_set *plans)
{
    published->plans = plans;
    return hr_lock_init(&published->lock);
}

/* Waits for the readers of the plans before; call it without the interpreter. */
static inline void hr_publish(hr_published *published, const hr_plan_set *plans)
{
    hr_lock_alone(&published->lock);
    published->plans = plans;
    hr_unlock_alone(&published->lock);
}

/* Tolerates a half-built owner, whose memory is zero: no plans were given to it. */
static inline void hr_published_end(hr_published *published)
{
    if (published->plans != NULL) hr_lock_destroy(&published->lock);
}

#endif
