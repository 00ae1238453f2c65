cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t

from core_ext.arrow cimport hr_arrow
from core_ext.row_codec cimport hr_column


cdef extern from "hr_digest.h" nogil:
    void hr_digest_measure(
        const hr_column *column, const hr_arrow *array, int64_t start, int64_t count, int64_t *lengths)
    size_t hr_digest_row_bytes(const hr_column *columns, int64_t column_count)
    uint64_t hr_digest_write_single(
        const hr_column *column, const hr_arrow *array, const uint8_t *statuses, int64_t start, int64_t count,
        uint8_t *to, size_t row_bytes)
    uint64_t hr_digest_write(
        const hr_column *column, const hr_arrow *array, const uint8_t *statuses, int64_t start, int64_t count,
        uint8_t **cursors)


@cython.final
cdef class RowDigest:
    cdef Py_ssize_t column_count
    cdef hr_column *columns
    cdef uint64_t *sums  # multiset hash of each column
    cdef object sha
    cdef Py_ssize_t row_bytes  # 0 where rows differ in size
    cdef uint8_t *rooms[2]  # canonical bytes of the rows at hand, and of those before, which may still be hashed
    cdef Py_ssize_t capacities[2]
    cdef int turn
    cdef readonly int64_t row_count

    cdef uint8_t *room_for(self, Py_ssize_t byte_count) except NULL
    cdef object block(self, const hr_arrow *arrays, const uint8_t **statuses, int64_t start, int64_t count)
    cdef object uneven_block(self, const hr_arrow *arrays, const uint8_t **statuses, int64_t start, int64_t count)
