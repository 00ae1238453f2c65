"""Arrow columns held by their buffers for the length of one call."""

from typing import NamedTuple

import cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free

cdef enum:
    VIEWS_PER_COLUMN = 6  # validity, values and offsets of a column and of its child


class ArrowColumn(NamedTuple):
    """Buffers of one Arrow array, as pyarrow.Array.buffers() gives them; `offset` in elements."""

    length: int
    offset: int
    validity: object
    values: object
    offsets: object
    child: object


def arrow_column(array):
    """Buffers of a pyarrow array of a type in headrace.types, slices included."""
    buffers = array.buffers()
    kind = array.type
    if hasattr(kind, "value_type"):
        offsets = None if hasattr(kind, "list_size") else buffers[1]
        return ArrowColumn(len(array), array.offset, buffers[0], None, offsets, arrow_column(array.values))
    if len(buffers) == 3:
        return ArrowColumn(len(array), array.offset, buffers[0], buffers[2], buffers[1], None)
    return ArrowColumn(len(array), array.offset, buffers[0], buffers[1], None, None)


cdef dict FAULTS = {
    HR_ARROW_BAD_LENGTH: "holds another number of values than there are rows",
    HR_ARROW_BAD_OFFSET: "has a negative or too great offset",
    HR_ARROW_SHORT_VALIDITY: "has a validity buffer that is too short",
    HR_ARROW_SHORT_VALUES: "has a values buffer that is too short",
    HR_ARROW_SHORT_OFFSETS: "has an offsets buffer that is too short",
    HR_ARROW_BACKWARDS: "has offsets that run backwards",
    HR_ARROW_PAST_END: "has offsets past the end of its values, or too few list elements",
    HR_ARROW_NO_CHILD: "is a list without a child column",
    HR_ARROW_NULL_ELEMENT: "holds a list with a null element",
    HR_ARROW_NOT_UTF8: "holds a string that is not UTF-8",
    HR_ARROW_ROW_TOO_LONG: f"makes the row longer than {HR_ROW_BYTES_MAX} bytes",
    HR_ARROW_NULL_PART: "holds a null, and a key has none",
    HR_ARROW_EMPTY_PART: "holds an empty value, and a key has none",
    HR_ARROW_KEY_TOO_LONG: f"makes the key longer than {HR_KEY_BYTES_MAX} bytes",
}


cdef object refusal(hr_arrow_fault fault):
    where = f"column {fault.column}" if fault.row < 0 else f"column {fault.column}, row {fault.row}"
    return ValueError(f"{where}: {FAULTS[fault.status]}")


@cython.final
cdef class ArrowBuffers:
    def __cinit__(self, columns not None):
        cdef Py_ssize_t count = len(columns), i
        self.arrays = <hr_arrow *>PyMem_Calloc(2 * count + 1, sizeof(hr_arrow))
        self.views = <Py_buffer *>PyMem_Calloc(VIEWS_PER_COLUMN * count + 1, sizeof(Py_buffer))
        if self.arrays == NULL or self.views == NULL:
            raise MemoryError
        for i in range(count):
            column = columns[i]
            self.hold(&self.arrays[i], column)
            if column[5] is not None:
                self.arrays[i].child = &self.arrays[count + i]
                self.hold(&self.arrays[count + i], column[5])
        self.count = count

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.view_count):
            PyBuffer_Release(&self.views[i])
        PyMem_Free(self.views)
        PyMem_Free(self.arrays)

    cdef int hold(self, hr_arrow *array, object column) except -1:
        length, offset, validity, values, offsets, _ = column
        array.length = length
        array.offset = offset
        self.view(validity, &array.validity, &array.validity_bytes)
        self.view(values, &array.values, &array.values_bytes)
        self.view(offsets, &array.offsets, &array.offsets_bytes)
        return 0

    cdef int view(self, object buffer, const uint8_t **start, int64_t *byte_count) except -1:
        if buffer is None:
            return 0
        cdef Py_buffer *view = &self.views[self.view_count]
        PyObject_GetBuffer(buffer, view, PyBUF_SIMPLE)
        self.view_count += 1
        start[0] = <const uint8_t *>view.buf
        byte_count[0] = view.len
        return 0
