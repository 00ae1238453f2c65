# On-demand features of a plan as C sees them: native/hr_on_demand_plan.h.
from libc.stdint cimport uint8_t, uint32_t

from core_ext.expressions cimport hr_expression


cdef extern from "hr_on_demand_plan.h" nogil:
    enum:
        HR_FROM_FEATURE
        HR_FROM_REQUEST
        HR_FROM_PROGRAM
        HR_ON_DEMAND_IDLE_MAX
        HR_REQUEST_COLUMNS_MAX

    ctypedef struct hr_request_field:
        const uint8_t *name
        uint32_t name_bytes, type

    ctypedef struct hr_on_demand_source:
        uint32_t from_ "from"
        uint32_t place

    ctypedef struct hr_on_demand_program:
        const hr_expression *program
        hr_on_demand_source *sources
        const uint8_t *default_value
        uint32_t default_bytes
        int has_default, fallback

    ctypedef struct hr_on_demand_reader:
        pass

    ctypedef struct hr_on_demand:
        uint32_t field_count, program_count, block_rows
        hr_request_field *fields
        hr_on_demand_program *programs
        void **idle

    uint32_t hr_on_demand_block_rows(const hr_on_demand *view)
    uint32_t hr_field_width(uint32_t type)
    void hr_on_demand_reader_close(const hr_on_demand *view, hr_on_demand_reader *reader)


cdef class OnDemand:
    cdef hr_on_demand view
    cdef readonly dict input_types
    cdef readonly tuple result_types
    cdef list keep  # owns what `view` points into

    cdef int set_fields(self, request_fields) except -1
    cdef int set_programs(self, programs) except -1
    cdef int set_sources(self, hr_on_demand_program *made, object program, sources) except -1
    cdef int set_default(self, hr_on_demand_program *made, bytes default) except -1
