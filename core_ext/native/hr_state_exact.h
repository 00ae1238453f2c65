/* Exact sums of floats of any size, and of whole numbers in 128 bits. */
#ifndef HR_STATE_EXACT_H
#define HR_STATE_EXACT_H

#include "hr_state_value.h"

/* A whole number of units: lane i counts 2^(32 (base + i)) of them. Carries are taken late, so that a lane may hold more
 * than 32 bits and either sign. */
typedef struct {
    int64_t *lanes;
    uint32_t capacity;
    uint32_t low, high;  /* lanes outside [low, high) are 0 */
    uint32_t pending;    /* additions since the last carry */
    int64_t base;
} hr_exact;

typedef struct {
    int64_t count;               /* values taken, odd ones included */
    int64_t nans, highs, lows;   /* NaN, +inf and -inf among them */
    __int128 whole;              /* sum of whole numbers */
    hr_exact exact;              /* sum of floats */
} hr_sum;

#endif
