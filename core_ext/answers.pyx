"""Answers of GetOnlineFeatures as a client reads them: parsed once, every block aligned and viewed without a copy."""

import cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdlib cimport free
from posix.stdlib cimport posix_memalign

VALUES, OFFSETS, STATUSES, EVENT_TIMES = range(HR_BLOCK_COUNT)
BLOCK_ALIGNMENT = HR_BLOCK_ALIGNMENT


class MalformedAnswerError(ValueError):
    """Bytes that are no answer of this contract."""


@cython.final
cdef class Answer:
    def __cinit__(self, bytes message not None):
        cdef hr_span span
        span.at = message
        span.end = span.at + len(message)
        self.message = message
        if not hr_read_answer(span, &self.head, NULL):
            raise MalformedAnswerError("it is no message of this contract")
        self.columns = <hr_answer_column *>PyMem_Calloc(self.head.column_count + 1, sizeof(hr_answer_column))
        if self.columns == NULL:
            raise MemoryError
        if not hr_read_answer(span, &self.head, self.columns):
            raise MalformedAnswerError("a column is no message of this contract")
        self.byte_count = hr_place_blocks(self.columns, self.head.column_count)

    def __dealloc__(self):
        free(self.bytes)
        PyMem_Free(self.columns)

    cdef int lay_out(self) except -1:
        cdef void *room = NULL
        if self.bytes != NULL:
            return 0
        if posix_memalign(&room, HR_BLOCK_ALIGNMENT, self.byte_count + HR_BLOCK_ALIGNMENT) != 0:
            raise MemoryError
        self.bytes = <uint8_t *>room
        hr_copy_blocks(self.columns, self.head.column_count, self.bytes)
        return 0

    def __getbuffer__(self, Py_buffer *view, int flags):
        self.lay_out()
        PyBuffer_FillInfo(view, self, self.bytes, self.byte_count, 1, flags)

    def __len__(self):
        return self.head.column_count

    @property
    def blocks(self):
        return memoryview(self)

    @property
    def row_count(self):
        return self.head.row_count

    @property
    def registry_revision(self):
        return self.head.registry_revision

    @property
    def read_time_us(self):
        return self.head.read_time_us

    def name(self, Py_ssize_t position):
        cdef hr_span name = self.at(position).name
        return (<const char *>name.at)[:hr_span_bytes(name)].decode() if name.at != NULL else ""

    def value_type(self, Py_ssize_t position):
        cdef hr_answer_column *column = self.at(position)
        return column.scalar, column.shape, column.list_size

    def check(self, Py_ssize_t position, uint64_t slot_bytes):
        cdef hr_answer_column *column = self.at(position)
        if not hr_check_blocks(column, self.head.row_count, slot_bytes):
            sizes = tuple([hr_span_bytes(column.blocks[k]) for k in range(HR_BLOCK_COUNT)])
            raise MalformedAnswerError(f"{self.head.row_count} rows in blocks of {sizes} bytes, or wrong offsets")

    def floats(self, uint64_t slot_bytes):
        cdef bytearray out
        cdef uint64_t fitting
        if slot_bytes != 4 and slot_bytes != 8:
            raise ValueError(f"a float has 4 or 8 bytes, not {slot_bytes}")
        fitting = hr_fitting_columns(self.columns, &self.head, slot_bytes)
        if fitting < self.head.column_count:
            self.check(fitting, slot_bytes)
        out = PyByteArray_FromStringAndSize(NULL, self.head.column_count * self.head.row_count * slot_bytes)
        hr_answer_floats(self.columns, &self.head, slot_bytes, <uint8_t *>PyByteArray_AS_STRING(out))
        return out

    def place(self, Py_ssize_t position, int block):
        cdef hr_answer_column *column = self.at(position)
        if not 0 <= block < HR_BLOCK_COUNT:
            raise IndexError(f"no block {block}")
        return column.starts[block], hr_span_bytes(column.blocks[block])

    cdef hr_answer_column *at(self, Py_ssize_t position) except NULL:
        if not 0 <= position < <Py_ssize_t>self.head.column_count:
            raise IndexError(f"no column {position} among {self.head.column_count}")
        return &self.columns[position]
