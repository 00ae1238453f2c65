cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t


cdef extern from "hr_read_answer.h" nogil:
    enum:
        HR_BLOCK_COUNT
        HR_BLOCK_ALIGNMENT
        HR_BLOCK_OFFSETS
        HR_BLOCK_STATUSES
        HR_BLOCK_EVENT_TIMES

    ctypedef struct hr_span:
        const uint8_t *at
        const uint8_t *end

    ctypedef struct hr_answer_column:
        hr_span name
        hr_span blocks[HR_BLOCK_COUNT]
        uint64_t starts[HR_BLOCK_COUNT]
        int32_t scalar
        int32_t shape
        int32_t list_size

    ctypedef struct hr_answer_head:
        int64_t row_count
        int64_t registry_revision
        int64_t read_time_us
        uint64_t column_count

    size_t hr_span_bytes(hr_span span)
    int hr_read_answer(hr_span span, hr_answer_head *head, hr_answer_column *columns)
    uint64_t hr_place_blocks(hr_answer_column *columns, uint64_t column_count)
    void hr_copy_blocks(const hr_answer_column *columns, uint64_t column_count, uint8_t *out)
    int hr_check_blocks(const hr_answer_column *column, int64_t row_count, uint64_t slot_bytes)


cdef extern from "hr_answer_floats.h" nogil:
    uint64_t hr_fitting_columns(const hr_answer_column *columns, const hr_answer_head *head, uint64_t slot_bytes)
    void hr_answer_floats(const hr_answer_column *columns, const hr_answer_head *head, uint64_t slot_bytes,
                          uint8_t *out)


@cython.final
cdef class Answer:
    cdef bytes message  # what the spans of the columns point into
    cdef hr_answer_head head
    cdef hr_answer_column *columns
    cdef uint8_t *bytes  # the blocks of all columns, each at an aligned place; NULL until somebody looks
    cdef Py_ssize_t byte_count

    cdef int lay_out(self) except -1

    cdef hr_answer_column *at(self, Py_ssize_t position) except NULL
