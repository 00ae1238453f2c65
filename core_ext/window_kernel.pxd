cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "hr_window_map.h" nogil:
    enum:
        HR_STATE_OK
        HR_WINDOW_LEVELS_MAX
        HR_TILE_ENDS
        HR_COLUMN_EVENT_TIME
        HR_TIMESTAMP_US
        HR_KIND_MIN
        HR_KIND_MAX

    ctypedef struct hr_state_spec:
        uint8_t kind
        uint8_t scalar
        uint8_t scalar2
        int64_t parameter

    ctypedef struct hr_window_state:
        hr_state_spec spec
        int32_t column
        int32_t column2

    ctypedef struct hr_window_ladder:
        uint32_t level_count
        uint32_t first_state
        uint32_t state_count
        uint32_t first_section
        uint32_t entry_bytes
        int64_t *sizes
        int64_t *keeps

    ctypedef struct hr_window_span:
        uint32_t ladder
        uint32_t level
        uint32_t first_use
        uint32_t use_count
        int64_t window_us
        int64_t hop_us
        int64_t gap_us

    ctypedef struct hr_window_feature:
        int aggregate
        int64_t parameter
        uint32_t state
        uint32_t span
        uint8_t scalar
        uint8_t is_list

    ctypedef struct hr_window_plan:
        uint64_t check
        uint32_t state_count
        uint32_t ladder_count
        uint32_t span_count
        uint32_t feature_count
        uint32_t section_count
        hr_window_state *states
        hr_window_ladder *ladders
        hr_window_span *spans
        hr_window_feature *features
        uint32_t *uses

    int hr_state_spec_check(const hr_state_spec *spec)
    int hr_state_answers(const hr_state_spec *spec, int aggregate, int64_t parameter)
    uint8_t hr_state_result_scalar(int aggregate, uint8_t scalar)


@cython.final
cdef class NativePlan:
    cdef hr_window_plan plan  # it stays in place as long as the object lives
