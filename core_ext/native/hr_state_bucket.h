/* Counts of logarithmic buckets, 32 an octave, for quantiles. */
#ifndef HR_STATE_BUCKET_H
#define HR_STATE_BUCKET_H

#include "hr_state_value.h"

typedef struct {
    int32_t key;
    int64_t count;
} hr_bucket;

typedef struct {
    hr_bucket *list, *spare;  /* by key, ascending */
    uint32_t count, capacity;
    int64_t total;
    uint8_t is_over;          /* the cap was passed; nothing else is known then */
} hr_buckets;

#endif
