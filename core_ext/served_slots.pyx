"""The values of an answer one after the other, as the log of served answers keeps them."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from core_ext.answers cimport hr_answer_column, hr_answer_head, hr_read_answer, hr_span

from core_ext.answers import MalformedAnswerError

cdef extern from "hr_served_slots.h" nogil:
    enum:
        HR_SLOTS_VARIABLE
        HR_SLOTS_TEXTS

    ctypedef struct hr_slots:
        uint8_t *statuses
        uint8_t *data
        uint32_t *lengths
        uint64_t count, data_bytes

    int hr_slots_check(const hr_answer_column *columns, const int32_t *kinds, uint64_t column_count, int64_t row_count,
                       uint64_t *data_bytes)
    int hr_slots_fill(const hr_answer_column *columns, const int32_t *kinds, uint64_t column_count, int64_t row_count,
                      hr_slots *slots)

VARIABLE = HR_SLOTS_VARIABLE
TEXTS = HR_SLOTS_TEXTS


def read_slots(bytes message not None, const int32_t[::1] kinds not None):
    cdef hr_answer_head head
    cdef hr_answer_column *columns = NULL
    cdef hr_slots slots
    cdef hr_span span
    cdef uint64_t bound = 0, count
    span.at = <const uint8_t *>PyBytes_AS_STRING(message)
    span.end = span.at + PyBytes_GET_SIZE(message)
    if not hr_read_answer(span, &head, NULL):
        raise MalformedAnswerError("it is no message of this contract")
    if head.column_count != <uint64_t>kinds.shape[0] or head.column_count == 0:
        raise MalformedAnswerError(f"it has {head.column_count} columns, and {kinds.shape[0]} were selected")
    columns = <hr_answer_column *>PyMem_Calloc(head.column_count, sizeof(hr_answer_column))
    if columns == NULL:
        raise MemoryError()
    try:
        if not hr_read_answer(span, &head, columns) \
                or not hr_slots_check(columns, &kinds[0], head.column_count, head.row_count, &bound):
            raise MalformedAnswerError("a column is not as it was selected")
        count = head.column_count * <uint64_t>head.row_count
        statuses = PyBytes_FromStringAndSize(NULL, count)
        lengths = PyBytes_FromStringAndSize(NULL, count * sizeof(uint32_t))
        data = PyBytes_FromStringAndSize(NULL, bound)
        slots.statuses = <uint8_t *>PyBytes_AS_STRING(statuses)
        slots.lengths = <uint32_t *>PyBytes_AS_STRING(lengths)
        slots.data = <uint8_t *>PyBytes_AS_STRING(data)
        slots.count = slots.data_bytes = 0
        if not hr_slots_fill(columns, &kinds[0], head.column_count, head.row_count, &slots):
            raise MalformedAnswerError("a list of texts is none")
        if slots.data_bytes < bound:
            data = data[:slots.data_bytes]
        return statuses, lengths, data, head.row_count, head.registry_revision, head.read_time_us
    finally:
        PyMem_Free(columns)
