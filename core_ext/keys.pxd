cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from core_ext.arrow cimport hr_arrow, hr_arrow_fault
from core_ext.row_codec cimport hr_column


cdef extern from "hr_key.h" nogil:
    ctypedef struct hr_key_part:
        uint8_t tag
        uint16_t length
        int64_t integer
        const uint8_t *data

    ctypedef struct hr_key_batch:
        const hr_column *columns
        const hr_arrow *arrays
        uint32_t part_count
        int64_t row_count
        uint64_t *starts
        uint8_t *bytes
        uint16_t *slots

    hr_arrow_fault hr_key_check(const hr_key_batch *batch)
    hr_arrow_fault hr_key_measure(hr_key_batch *batch)
    void hr_key_write(const hr_key_batch *batch)


@cython.final
cdef class KeyBatch:
    cdef readonly object slots
    cdef int64_t row_count
    cdef uint64_t *starts  # row_count + 1 positions in bytes
    cdef uint8_t *bytes
