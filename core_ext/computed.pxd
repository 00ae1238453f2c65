cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from core_ext.expressions cimport hr_expression
from core_ext.row_codec cimport Schema, hr_column
from core_ext.window_kernel cimport hr_window_plan
from core_ext.windows cimport Windows


cdef extern from "hr_computed.h" nogil:
    enum:
        HR_FROM_LATEST
        HR_FROM_WINDOW
        HR_FROM_DERIVED
        HR_COMPUTED_IDLE_MAX
        HR_COMPUTED_OK
        HR_COMPUTED_CORRUPT
        HR_COMPUTED_NO_MEMORY

    ctypedef struct hr_computed_reader:
        pass

    ctypedef struct hr_computed_source:
        uint8_t from_ "from"
        uint32_t place

    ctypedef struct hr_computed_program:
        const hr_expression *program
        uint32_t *inputs

    ctypedef struct hr_computed:
        const hr_window_plan *windows
        uint32_t schema_id
        uint32_t column_count
        uint32_t fixed_bytes
        uint32_t stored_count
        uint32_t stored_fixed_bytes
        uint32_t program_count
        const hr_column *columns
        const hr_column *stored
        hr_computed_source *sources
        hr_computed_program *programs
        void **idle

    hr_computed_reader *hr_computed_take(hr_computed *view)
    void hr_computed_give_back(hr_computed *view, hr_computed_reader *reader)
    void hr_computed_reader_close(const hr_computed *view, hr_computed_reader *reader)
    int hr_computed_cells(const hr_computed *view, hr_computed_reader *reader, const uint8_t *row, int64_t read_us)
    uint64_t hr_image_bytes(const hr_computed *view, const hr_computed_reader *reader)
    void hr_image_write(
        const hr_computed *view, const hr_computed_reader *reader, const uint8_t *row, uint32_t length, uint8_t *to)
    uint32_t hr_tiled_bytes(const uint8_t *latest, size_t map_bytes)
    void hr_tiled_write(
        const uint8_t *latest, const uint8_t *tiles, size_t map_bytes, uint32_t length, uint8_t *to)


@cython.final
cdef class ComputedView:
    cdef hr_computed view
    cdef readonly Schema stored
    cdef readonly Schema answered
    cdef readonly Windows windows
    cdef tuple programs  # owns what `view` points into

    cdef int set_sources(self, sources, columns) except -1
    cdef int set_programs(self, programs) except -1
    cdef bint is_computed(self, uint32_t column)
