"""JSON events to Arrow buffers, many messages at a time."""

from typing import NamedTuple

import cython
import numpy as np
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset

from core_ext.arrow import ArrowColumn

from core_ext.row_codec cimport hr_column


cdef extern from "<locale.h>" nogil:
    ctypedef void *locale_t
    enum:
        LC_ALL_MASK
    locale_t newlocale(int mask, const char *name, locale_t base)
    void freelocale(locale_t locale)


cdef extern from "hr_events.h" nogil:
    enum:
        HR_BOOL
        HR_SINGLE
        HR_FIXED
        HR_VARIABLE
        HR_EVENT_OK
        HR_EVENT_TOO_LARGE
        HR_EVENT_NOT_UTF8
        HR_EVENT_MALFORMED
        HR_EVENT_TOO_DEEP
        HR_EVENT_NOT_OBJECT
        HR_EVENT_DUPLICATE
        HR_EVENT_WRONG_TYPE
        HR_EVENT_OUT_OF_RANGE
        HR_EVENT_BAD_TIME
        HR_EVENT_NAIVE_TIME
        HR_EVENT_BAD_BASE64
        HR_EVENT_BAD_TEXT
        HR_EVENT_NULL_ELEMENT
        HR_EVENT_LIST_SIZE
        HR_EVENT_NO_MEMORY

    ctypedef struct hr_grow:
        uint8_t *bytes
        int64_t length

    ctypedef struct hr_event_column:
        hr_column type
        const uint8_t *name
        int64_t name_length
        int64_t element_count
        hr_grow valid
        hr_grow lists
        hr_grow texts
        hr_grow data

    ctypedef struct hr_events:
        hr_event_column *columns
        uint32_t *index
        uint32_t column_count
        uint32_t index_mask
        int64_t bytes_max
        int64_t message
        int64_t row_count
        locale_t plain

    void hr_events_index(hr_events *events)
    int hr_event_take(hr_events *events, const uint8_t *data, int64_t length, int64_t *column)
    void hr_event_free(hr_event_column *column)
    int64_t hr_event_pack(const uint8_t *bytes, int64_t count, uint8_t *bits)


cdef enum:
    PAD_BYTES = 8  # Arrow reads bitmaps by words; no buffer is empty


class DecodedEvents(NamedTuple):
    """Columns of the messages that are events."""

    columns: object
    messages: object
    faults: object


REASONS = {
    HR_EVENT_TOO_LARGE: "EVENT_TOO_LARGE",
    HR_EVENT_NOT_UTF8: "NOT_UTF8",
    HR_EVENT_MALFORMED: "MALFORMED_JSON",
    HR_EVENT_TOO_DEEP: "TOO_DEEP",
    HR_EVENT_NOT_OBJECT: "NOT_AN_OBJECT",
    HR_EVENT_DUPLICATE: "DUPLICATE_FIELD",
    HR_EVENT_WRONG_TYPE: "WRONG_TYPE",
    HR_EVENT_OUT_OF_RANGE: "OUT_OF_RANGE",
    HR_EVENT_BAD_TIME: "BAD_TIME",
    HR_EVENT_NAIVE_TIME: "NAIVE_TIME",
    HR_EVENT_BAD_BASE64: "BAD_BASE64",
    HR_EVENT_BAD_TEXT: "BAD_TEXT",
    HR_EVENT_NULL_ELEMENT: "NULL_ELEMENT",
    HR_EVENT_LIST_SIZE: "LIST_SIZE",
}


@cython.final
cdef class JsonDecoder:
    cdef readonly int64_t bytes_max
    cdef tuple names  # their bytes are what the columns point at
    cdef hr_column *types
    cdef uint32_t column_count

    def __cinit__(self, columns not None, int64_t bytes_max):
        self.names = tuple(name.encode() for name, _ in columns)
        if len(set(self.names)) < len(self.names):
            raise ValueError("two columns have one name")
        self.bytes_max = bytes_max
        self.column_count = len(columns)
        self.types = <hr_column *>PyMem_Calloc(self.column_count + 1, sizeof(hr_column))
        if self.types == NULL:
            raise MemoryError
        for i, (_, (scalar, shape, list_size, element_bytes)) in enumerate(columns):
            if not (1 <= scalar <= 9 and shape in (HR_SINGLE, HR_FIXED, HR_VARIABLE)):
                raise ValueError(f"column {i}: no such type")
            if shape == HR_FIXED and element_bytes == 0:
                raise ValueError(f"column {i}: a fixed list holds elements of fixed width")
            self.types[i].scalar = scalar
            self.types[i].shape = shape
            self.types[i].list_size = list_size
            self.types[i].element_bytes = element_bytes

    def __dealloc__(self):
        PyMem_Free(self.types)

    def decode(self, payloads not None):
        """Columns of the messages that are events, and what is wrong with the others."""
        cdef hr_events events
        held = tuple(payloads)  # nobody may take a message away while it is read without the interpreter
        cdef Py_ssize_t count = len(held), i
        cdef const uint8_t **starts = <const uint8_t **>PyMem_Malloc((count + 1) * sizeof(uint8_t *))
        cdef int64_t *numbers = <int64_t *>PyMem_Calloc(3 * count + 1, sizeof(int64_t))
        memset(&events, 0, sizeof(events))
        try:
            if starts == NULL or numbers == NULL:
                raise MemoryError
            for i in range(count):
                payload = held[i]
                if not isinstance(payload, bytes):
                    raise TypeError(f"message {i} is {type(payload).__name__}, not bytes")
                starts[i] = <const uint8_t *>PyBytes_AS_STRING(payload)
                numbers[i] = PyBytes_GET_SIZE(payload)
            self.open(&events)
            with nogil:
                status = take_all(&events, starts, numbers, count, numbers + count, numbers + 2 * count)
            if status != HR_EVENT_OK:
                raise MemoryError("the messages of one batch need over a gigabyte; give fewer at once")
            return self.result(&events, numbers + count, numbers + 2 * count, count)
        finally:
            self.release(&events)
            PyMem_Free(starts)
            PyMem_Free(numbers)

    cdef int open(self, hr_events *events) except -1:
        cdef uint32_t i, size = 8
        while size < 2 * self.column_count:
            size *= 2
        events.columns = <hr_event_column *>PyMem_Calloc(self.column_count + 1, sizeof(hr_event_column))
        events.index = <uint32_t *>PyMem_Calloc(size, sizeof(uint32_t))
        events.plain = newlocale(LC_ALL_MASK, "C", NULL)
        if events.columns == NULL or events.index == NULL or events.plain == NULL:
            raise MemoryError
        events.column_count = self.column_count
        events.index_mask = size - 1
        events.bytes_max = self.bytes_max
        for i in range(self.column_count):
            name = self.names[i]
            events.columns[i].type = self.types[i]
            events.columns[i].name = <const uint8_t *>PyBytes_AS_STRING(name)
            events.columns[i].name_length = PyBytes_GET_SIZE(name)
        hr_events_index(events)
        return 0

    cdef void release(self, hr_events *events):
        cdef uint32_t i
        if events.columns != NULL:
            for i in range(self.column_count):
                hr_event_free(&events.columns[i])
        PyMem_Free(events.columns)
        PyMem_Free(events.index)
        if events.plain != NULL:
            freelocale(events.plain)

    cdef object result(self, const hr_events *events, const int64_t *statuses, const int64_t *at_columns, Py_ssize_t n):
        cdef Py_ssize_t i, row = 0
        messages = np.empty(events.row_count, np.int64)
        cdef int64_t[::1] places = messages
        faults = []
        for i in range(n):
            if statuses[i] == HR_EVENT_OK:
                places[row] = i
                row += 1
            else:
                faults.append((i, statuses[i], at_columns[i]))
        columns = [column_of(&events.columns[i], events.row_count) for i in range(self.column_count)]
        return DecodedEvents(columns, messages, faults)


cdef int take_all(
    hr_events *events, const uint8_t **starts, const int64_t *lengths, Py_ssize_t count, int64_t *statuses,
    int64_t *at_columns,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        statuses[i] = hr_event_take(events, starts[i], lengths[i], &at_columns[i])
        if statuses[i] == HR_EVENT_NO_MEMORY:
            return HR_EVENT_NO_MEMORY
    return HR_EVENT_OK


cdef object column_of(const hr_event_column *column, int64_t row_count):
    """Buffers of one column, without a bitmap where nothing is null."""
    validity = bits_of(&column.valid, is_validity=True)
    if column.type.shape == HR_SINGLE:
        values, offsets = elements_of(column)
        return ArrowColumn(row_count, 0, validity, values, offsets, None)
    values, offsets = elements_of(column)
    child = ArrowColumn(column.element_count, 0, None, values, offsets, None)
    lists = ends_of(&column.lists) if column.type.shape == HR_VARIABLE else None
    return ArrowColumn(row_count, 0, validity, None, lists, child)


cdef tuple elements_of(const hr_event_column *column):
    if column.type.element_bytes == 0:
        return bytes_of(&column.data), ends_of(&column.texts)
    if column.type.scalar == HR_BOOL:
        return bits_of(&column.data, is_validity=False), None
    return bytes_of(&column.data), None


cdef bytes bytes_of(const hr_grow *grow):
    cdef bytes made = PyBytes_FromStringAndSize(NULL, grow.length + PAD_BYTES)
    cdef uint8_t *to = <uint8_t *>PyBytes_AS_STRING(made)
    if grow.length > 0:
        memcpy(to, grow.bytes, grow.length)
    memset(to + grow.length, 0, PAD_BYTES)
    return made


cdef bytes ends_of(const hr_grow *ends):
    cdef bytes made = PyBytes_FromStringAndSize(NULL, ends.length + 4 + PAD_BYTES)
    cdef uint8_t *to = <uint8_t *>PyBytes_AS_STRING(made)
    memset(to, 0, 4)
    if ends.length > 0:
        memcpy(to + 4, ends.bytes, ends.length)
    memset(to + 4 + ends.length, 0, PAD_BYTES)
    return made


cdef object bits_of(const hr_grow *each, bint is_validity):
    cdef int64_t zeros
    cdef Py_ssize_t size = each.length // 8 + 1 + PAD_BYTES
    cdef bytes made = PyBytes_FromStringAndSize(NULL, size)
    cdef uint8_t *to = <uint8_t *>PyBytes_AS_STRING(made)
    memset(to, 0, size)
    with nogil:
        zeros = hr_event_pack(each.bytes, each.length, to)
    return None if is_validity and zeros == 0 else made
