cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from core_ext.arrow cimport hr_arrow, hr_arrow_fault


cdef extern from "hr_layout.h" nogil:
    ctypedef struct hr_column:
        uint8_t scalar
        uint8_t shape
        uint8_t element_bytes
        uint8_t is_variable
        uint32_t list_size
        uint32_t slot_bytes
        uint32_t offset


cdef extern from "hr_encode.h" nogil:
    ctypedef struct hr_batch:
        const hr_column *columns
        const hr_arrow *arrays
        const int64_t *event_times
        uint32_t column_count
        uint32_t schema_id
        uint32_t fixed_bytes
        int64_t row_count
        uint64_t *starts
        uint32_t *heap_ends
        uint8_t *bytes

    hr_arrow_fault hr_encode_measure(hr_batch *batch)
    void hr_encode_write(const hr_batch *batch)


@cython.final
cdef class Schema:
    cdef readonly uint32_t schema_id
    cdef readonly uint32_t column_count
    cdef readonly uint32_t fixed_bytes  # from row start to heap start, a multiple of 8
    cdef hr_column *columns

    cdef int place(self, hr_column *column, object scalar, object shape, object list_size, uint64_t *end) except -1


@cython.final
cdef class RowBatch:
    cdef int64_t row_count
    cdef uint64_t *starts  # row_count + 1 positions in bytes
    cdef uint8_t *bytes
