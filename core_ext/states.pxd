cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t


cdef extern from "hr_state.h" nogil:
    enum:
        HR_KIND_COUNT
        HR_KIND_SUM
        HR_KIND_MOMENTS
        HR_KIND_MIN
        HR_KIND_MAX
        HR_KIND_FIRST
        HR_KIND_LAST
        HR_KIND_DISTINCT
        HR_KIND_QUANTILE
        HR_KIND_TOP
        HR_KIND_LAST_N
        HR_KIND_RATIO
        HR_KIND_DECAYED
        HR_STATE_OK
        HR_STATE_NO_MEMORY
        HR_STATE_TOO_LARGE
        HR_STATE_CORRUPT
        HR_STATE_NOT_RETRACTABLE
        HR_STATE_MISUSED
        HR_LOST_NOTHING
        HR_LOST_OVERFLOW
        HR_LOST_DIVISION
        HR_LOST_BUCKETS
        HR_LOST_VALUES
        HR_BUCKETS_MAX
        HR_TOP_VALUES_MAX
        HR_TOP_BYTES_MAX
        HR_HALF_LIVES_MAX

    ctypedef struct hr_order:
        int64_t event_us
        int64_t write_us
        uint32_t source_id
        int32_t partition
        int64_t offset

    ctypedef struct hr_state_spec:
        uint8_t kind
        uint8_t scalar
        uint8_t scalar2
        int64_t parameter

    ctypedef struct hr_value:
        int64_t i
        double f
        const uint8_t *bytes
        uint32_t length
        uint8_t is_null

    ctypedef struct hr_result:
        hr_value value
        const hr_value *items
        uint32_t item_count
        uint8_t is_list
        uint8_t lost

    ctypedef struct hr_state:
        hr_state_spec spec

    int hr_state_spec_of(int aggregate, uint8_t scalar, uint8_t scalar2, int64_t parameter, hr_state_spec *spec)
    int hr_state_spec_check(const hr_state_spec *spec)
    int hr_state_answers(const hr_state_spec *spec, int aggregate, int64_t parameter)
    uint8_t hr_state_result_scalar(int aggregate, uint8_t scalar)
    int hr_state_can_retract(const hr_state_spec *spec)
    size_t hr_state_bytes_max(const hr_state_spec *spec, size_t text_bytes)
    int hr_state_init(hr_state *state, const hr_state_spec *spec)
    void hr_state_free(hr_state *state)
    void hr_state_reset(hr_state *state)
    int hr_state_is_empty(const hr_state *state)
    int hr_state_add(hr_state *state, const hr_value *value, const hr_value *second, const hr_order *order)
    int hr_state_retract(hr_state *state, const hr_value *value, const hr_value *second, const hr_order *order)
    int hr_state_merge_bytes(hr_state *state, const uint8_t *bytes, size_t length)
    int hr_state_retract_bytes(hr_state *state, const uint8_t *bytes, size_t length)
    int hr_state_merge(hr_state *state, hr_state *other)
    int hr_state_encode(hr_state *state, uint8_t *to, size_t capacity, size_t *length)
    int hr_state_check(const hr_state_spec *spec, const uint8_t *bytes, size_t length)
    int hr_state_result(hr_state *state, int aggregate, int64_t parameter, int64_t read_us, hr_result *result)


@cython.final
cdef class State:
    cdef hr_state *state
    cdef readonly object spec

    cdef int take(self, value, second, order, bint back) except -1
    cdef int settle(self, int status, what) except -1
