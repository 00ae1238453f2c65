cimport cython
from libc.stdint cimport int64_t, uint8_t


cdef extern from "hr_layout.h" nogil:
    enum:
        HR_ROW_BYTES_MAX
        HR_KEY_BYTES_MAX


cdef extern from "hr_arrow.h" nogil:
    enum:
        HR_ARROW_OK
        HR_ARROW_BAD_LENGTH
        HR_ARROW_BAD_OFFSET
        HR_ARROW_SHORT_VALIDITY
        HR_ARROW_SHORT_VALUES
        HR_ARROW_SHORT_OFFSETS
        HR_ARROW_BACKWARDS
        HR_ARROW_PAST_END
        HR_ARROW_NO_CHILD
        HR_ARROW_NULL_ELEMENT
        HR_ARROW_NOT_UTF8
        HR_ARROW_ROW_TOO_LONG
        HR_ARROW_NULL_PART
        HR_ARROW_EMPTY_PART
        HR_ARROW_KEY_TOO_LONG

    ctypedef struct hr_arrow:
        int64_t length
        int64_t offset
        const uint8_t *validity
        const uint8_t *values
        const uint8_t *offsets
        int64_t validity_bytes
        int64_t values_bytes
        int64_t offsets_bytes
        const hr_arrow *child

    ctypedef struct hr_arrow_fault:
        int status
        int64_t column
        int64_t row


cdef object refusal(hr_arrow_fault fault)


@cython.final
cdef class ArrowBuffers:
    cdef Py_ssize_t count
    cdef hr_arrow *arrays  # one per column, then one per column for its child
    cdef Py_buffer *views
    cdef Py_ssize_t view_count

    cdef int hold(self, hr_arrow *array, object column) except -1
    cdef int view(self, object buffer, const uint8_t **start, int64_t *byte_count) except -1
