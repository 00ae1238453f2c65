/* Window states: partial aggregates of the events of a tile, whose bytes and results do not depend on the order,
 * chunking or grouping of what went in. docs/decisions/0014-window-states.md has the rules and the layouts.
 *
 * An hr_state is a working form: made once per specification, reset for each tile or fold, and used by one thread.
 * Nothing is allocated once its buffers have grown. A state without values encodes to 0 bytes, equal states to equal
 * bytes. After any status but HR_STATE_OK the state must be reset before its next use; hr_state_encode and the statuses
 * HR_STATE_NOT_RETRACTABLE and HR_STATE_MISUSED leave it as it was.
 *
 * NULL values are ignored: not counted, and a state of them alone is empty. Duplicates are removed upstream. */
#ifndef HR_STATE_H
#define HR_STATE_H

#include "hr_state_bucket.h"
#include "hr_state_decay.h"
#include "hr_state_hll.h"
#include "hr_state_items.h"
#include "hr_state_top.h"

typedef struct {
    hr_state_spec spec;
    hr_sum sum, second;      /* COUNT, SUM, MOMENTS, RATIO, DECAYED; the second is the denominator */
    hr_exact squares;        /* MOMENTS */
    hr_registers registers;  /* DISTINCT */
    hr_buckets buckets;      /* QUANTILE */
    hr_items items;          /* MIN, MAX, FIRST, LAST, LAST_N */
    hr_top top;              /* TOP */
} hr_state;

/* ---- specifications ---- */

/* The state that an aggregate needs. `scalar` is 0 for a count of events; `scalar2` is that of ratio's denominator,
 * else 0; `parameter` as in headrace/definitions/plans.py. HR_STATE_MISUSED where they do not fit. */
static inline int hr_state_spec_of(
    int aggregate, uint8_t scalar, uint8_t scalar2, int64_t parameter, hr_state_spec *spec);

/* HR_KIND_* of an aggregate, 0 for an unknown one. Over one column a MOMENTS state answers what SUM does, and SUM what
 * COUNT does: a plan that has both may keep the greater alone (hr_state_answers). */
static inline int hr_state_kind_of(int aggregate);

static inline int hr_state_spec_equal(const hr_state_spec *a, const hr_state_spec *b);
static inline int hr_state_spec_check(const hr_state_spec *spec);

/* Whether a state of `spec` gives the result of `aggregate` with `parameter`. */
static inline int hr_state_answers(const hr_state_spec *spec, int aggregate, int64_t parameter);

/* Element type of the result of an aggregate over an input (headrace/types.py); top_k and last_n give lists of it. */
static inline uint8_t hr_state_result_scalar(int aggregate, uint8_t scalar);

/* Whether taken values can be taken back: COUNT, SUM, MOMENTS, RATIO, DECAYED, QUANTILE, TOP. */
static inline int hr_state_can_retract(const hr_state_spec *spec);

/* Most bytes of an encoding whose texts have at most `text_bytes` bytes each; hr_state_encode never needs more. */
static inline size_t hr_state_bytes_max(const hr_state_spec *spec, size_t text_bytes);

/* ---- the working form ---- */

/* Makes an empty state; hr_state_free tolerates one that is half made or zeroed. */
static inline int hr_state_init(hr_state *state, const hr_state_spec *spec);
static inline void hr_state_free(hr_state *state);
static inline void hr_state_reset(hr_state *state);
static inline int hr_state_is_empty(const hr_state *state);

/* Takes one value. `value` may be NULL where COUNT counts events, `second` is the denominator of RATIO and else NULL;
 * `order` is read by FIRST, LAST, LAST_N and DECAYED (its event time). */
static inline int hr_state_add(
    hr_state *state, const hr_value *value, const hr_value *second, const hr_order *order);

/* Takes a value back that was added; HR_STATE_NOT_RETRACTABLE where that is not possible. A moving window takes back
 * before it adds, as a cap that was passed stays passed. */
static inline int hr_state_retract(
    hr_state *state, const hr_value *value, const hr_value *second, const hr_order *order);

/* Takes in an encoded state of the same specification. Every read is checked; bytes need not be checked before. */
static inline int hr_state_merge_bytes(hr_state *state, const uint8_t *bytes, size_t length);

/* Takes an encoded state back that was merged or whose values were added. */
static inline int hr_state_retract_bytes(hr_state *state, const uint8_t *bytes, size_t length);

static inline int hr_state_merge(hr_state *state, hr_state *other);

/* Bytes of the encoding, or HR_STATE_TOO_LARGE where they pass `capacity`; *length is then left alone. */
static inline int hr_state_encode(hr_state *state, uint8_t *to, size_t capacity, size_t *length);

/* HR_STATE_OK where the bytes are exactly what some state encodes to. */
static inline int hr_state_check(const hr_state_spec *spec, const uint8_t *bytes, size_t length);

/* Result at T of an aggregate that the state answers. `read_us` is read by decayed_sum alone. */
static inline int hr_state_result(
    hr_state *state, int aggregate, int64_t parameter, int64_t read_us, hr_result *result);

#include "hr_state_run.h"

#endif
