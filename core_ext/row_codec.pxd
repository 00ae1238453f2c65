cimport cython
from libc.stdint cimport uint8_t, uint32_t


cdef extern from "hr_layout.h" nogil:
    ctypedef struct hr_column:
        uint8_t scalar
        uint8_t shape
        uint8_t element_bytes
        uint8_t is_variable
        uint32_t list_size
        uint32_t slot_bytes
        uint32_t offset


@cython.final
cdef class Schema:
    cdef readonly uint32_t schema_id
    cdef readonly uint32_t column_count
    cdef readonly uint32_t fixed_bytes  # from row start to heap start, a multiple of 8
    cdef hr_column *columns
