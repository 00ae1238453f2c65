"""Digest of result rows: SHA-256 over their canonical bytes, and a multiset hash per column."""

import hashlib
import struct

import cython
from cpython.buffer cimport PyBUF_READ
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.string cimport memset

from core_ext.arrow cimport HR_ARROW_OK, ArrowBuffers, hr_arrow_fault, refusal


cdef extern from "hr_arrow.h" nogil:
    enum:
        HR_VARIABLE
    int hr_arrow_check(const hr_arrow *array, const hr_column *column, int64_t row_count, int64_t *row)


cdef enum:
    BLOCK_ROWS = 4096
    BLOCK_BYTES = 1 << 21  # of rows of one size: fewer hand-overs to the thread that hashes
    NEAR_ROWS = 128  # their canonical bytes stay in the first cache while every column writes its own

PREAMBLE = b"headrace result rows 1\0"


@cython.final
cdef class RowDigest:
    def __cinit__(self, columns not None):
        self.column_count = len(columns)
        self.columns = <hr_column *>PyMem_Calloc(self.column_count + 1, sizeof(hr_column))
        self.sums = <uint64_t *>PyMem_Calloc(self.column_count + 1, sizeof(uint64_t))
        if self.columns == NULL or self.sums == NULL:
            raise MemoryError
        self.sha = hashlib.sha256(PREAMBLE + struct.pack("<I", self.column_count))
        for i, (name, (scalar, shape, list_size, element_bytes)) in enumerate(columns):
            self.columns[i].scalar = scalar
            self.columns[i].shape = shape
            self.columns[i].list_size = list_size
            self.columns[i].element_bytes = element_bytes
            self.columns[i].is_variable = shape == HR_VARIABLE or element_bytes == 0
            text = name.encode()
            self.sha.update(struct.pack("<I", len(text)) + text + struct.pack("<BBI", scalar, shape, list_size))
        self.row_bytes = hr_digest_row_bytes(self.columns, self.column_count)

    def __dealloc__(self):
        PyMem_Free(self.columns)
        PyMem_Free(self.sums)
        PyMem_Free(self.rooms[0])
        PyMem_Free(self.rooms[1])

    def update(self, columns not None, statuses not None, hashing=None):
        """Takes rows as one Arrow column and one array of status bytes per column."""
        cdef ArrowBuffers buffers = ArrowBuffers(columns)
        cdef hr_arrow_fault fault
        cdef int64_t row_count, start
        cdef const uint8_t[::1] view
        cdef Py_ssize_t i
        if buffers.count != self.column_count or len(statuses) != self.column_count:
            raise ValueError(f"{buffers.count} columns, {len(statuses)} statuses for {self.column_count} columns")
        if self.column_count == 0:
            return
        row_count = buffers.arrays[0].length
        cdef const uint8_t **starts = <const uint8_t **>PyMem_Malloc(self.column_count * sizeof(uint8_t *))
        if starts == NULL:
            raise MemoryError
        before = None
        cdef int64_t block_rows = BLOCK_ROWS
        if self.row_bytes > 0:
            block_rows = max(BLOCK_ROWS, BLOCK_BYTES // self.row_bytes)
        try:
            for i in range(self.column_count):
                fault.column = i
                fault.status = hr_arrow_check(&buffers.arrays[i], &self.columns[i], row_count, &fault.row)
                if fault.status != HR_ARROW_OK:
                    raise refusal(fault)
                view = statuses[i]
                if view.shape[0] != row_count:
                    raise ValueError(f"column {i}: {view.shape[0]} statuses for {row_count} rows")
                starts[i] = &view[0] if row_count > 0 else NULL
            for start in range(0, row_count, block_rows):
                block = self.block(buffers.arrays, starts, start, min(block_rows, row_count - start))
                if hashing is None:
                    self.sha.update(block)
                    continue
                if before is not None:
                    before.result()
                before = hashing.submit(self.sha.update, block)
            self.row_count += row_count
        finally:
            PyMem_Free(starts)
            if before is not None:
                before.result()

    cdef object block(self, const hr_arrow *arrays, const uint8_t **statuses, int64_t start, int64_t count):
        """Canonical bytes of some rows, until those of the rows after the next ones."""
        cdef Py_ssize_t c, i, near, row_bytes = self.row_bytes
        cdef uint8_t *room
        cdef uint8_t *to
        self.turn = 1 - self.turn
        if row_bytes == 0:
            return self.uneven_block(arrays, statuses, start, count)
        room = self.room_for(row_bytes * count)
        with nogil:
            i = 0
            while i < count:
                near = min(NEAR_ROWS, count - i)
                to = room + row_bytes * i
                for c in range(self.column_count):
                    self.sums[c] += hr_digest_write_single(
                        &self.columns[c], &arrays[c], statuses[c], start + i, near, to, row_bytes)
                    to += 1 + self.columns[c].element_bytes
                i += near
        return PyMemoryView_FromMemory(<char *>room, row_bytes * count, PyBUF_READ)

    cdef object uneven_block(self, const hr_arrow *arrays, const uint8_t **statuses, int64_t start, int64_t count):
        """The same where rows differ in size."""
        cdef int64_t[BLOCK_ROWS] lengths
        cdef uint8_t *cursors[BLOCK_ROWS]
        cdef Py_ssize_t c, i, near, total = 0
        memset(lengths, 0, sizeof(lengths))
        with nogil:
            for c in range(self.column_count):
                hr_digest_measure(&self.columns[c], &arrays[c], start, count, lengths)
            for i in range(count):
                total += lengths[i]
        cdef uint8_t *room = self.room_for(total)
        cdef uint8_t *to = room
        with nogil:
            for i in range(count):
                cursors[i] = to
                to += lengths[i]
            i = 0
            while i < count:
                near = min(NEAR_ROWS, count - i)
                for c in range(self.column_count):
                    self.sums[c] += hr_digest_write(
                        &self.columns[c], &arrays[c], statuses[c], start + i, near, &cursors[i])
                i += near
        return PyMemoryView_FromMemory(<char *>room, total, PyBUF_READ)

    cdef uint8_t *room_for(self, Py_ssize_t byte_count) except NULL:
        """Memory for some rows, used again in turns: large pieces are new to the system each time."""
        cdef int turn = self.turn
        if byte_count >= self.capacities[turn]:
            PyMem_Free(self.rooms[turn])
            self.rooms[turn] = NULL
            self.capacities[turn] = 0
            self.rooms[turn] = <uint8_t *>PyMem_Malloc(byte_count + 1)
            if self.rooms[turn] == NULL:
                raise MemoryError
            self.capacities[turn] = byte_count + 1
        return self.rooms[turn]

    def hexdigest(self):
        """SHA-256 over the rows so far, in their order."""
        done = self.sha.copy()
        done.update(struct.pack("<q", self.row_count))
        return done.hexdigest()

    def column_hashes(self):
        """Multiset hash of each column, whatever the order of its rows."""
        return [self.sums[i] for i in range(self.column_count)]
