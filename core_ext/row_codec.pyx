"""Rows from columns and back, layout 1 of native/hr_layout.h."""

from typing import NamedTuple

import cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.ref cimport Py_INCREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from core_ext.arrow cimport HR_ARROW_OK, ArrowBuffers, hr_arrow_fault, refusal

from core_ext.arrow import ArrowColumn  # no-cython-lint: part of the interface


cdef extern from "hr_layout.h" nogil:
    enum:
        HR_ROW_MAGIC
        HR_ROW_LAYOUT
        HR_ROW_FLAGS
        HR_ROW_LENGTH
        HR_ROW_SCHEMA_ID
        HR_ROW_SOURCE_ID
        HR_ROW_EVENT_TIME
        HR_ROW_WRITE_TIME
        HR_ROW_AVAILABLE_TIME
        HR_ROW_OFFSET
        HR_ROW_PARTITION
        HR_ROW_HEAP
        HR_ROW_BITMAP
        HR_ROW_CRC_BYTES
        HR_ROW_BYTES_MIN
        HR_ROW_BYTES_MAX
        HR_FLAG_TOMBSTONE
        HR_BOOL
        HR_I32
        HR_I64
        HR_F32
        HR_F64
        HR_STRING
        HR_BYTES
        HR_TIMESTAMP_US
        HR_DATE
        HR_SINGLE
        HR_FIXED
        HR_VARIABLE
    uint16_t hr_load_u16(const uint8_t *p)
    uint32_t hr_load_u32(const uint8_t *p)
    int32_t hr_load_i32(const uint8_t *p)
    int64_t hr_load_i64(const uint8_t *p)
    void hr_store_u16(uint8_t *p, uint16_t v)
    void hr_store_u32(uint8_t *p, uint32_t v)
    void hr_store_u64(uint8_t *p, uint64_t v)


cdef extern from "hr_row.h" nogil:
    enum:
        HR_ROW_OK
    uint32_t hr_crc32c(uint32_t value, const uint8_t *data, size_t length)
    const char *hr_row_fault(int status)
    int hr_row_check(const uint8_t *row, size_t length)
    int hr_row_check_schema(
        const uint8_t *row, size_t length, const hr_column *columns, uint32_t column_count, uint32_t schema_id,
        uint32_t fixed_bytes)


cdef enum:
    RELEASED_VALUES_MIN = 1 << 17  # about 100 us of work; for less, a contended lock costs more than it frees
    LIST_SIZE_MAX = 65535          # as in headrace.types

ROW_BYTES_MAX = HR_ROW_BYTES_MAX


class CorruptRowError(ValueError):
    """Bytes that are no row: the message says which check failed."""


class RowHeader(NamedTuple):
    """Header fields of a row; times in microseconds since the epoch."""

    flags: int
    schema_id: int
    source_id: int
    event_time_us: int
    write_time_us: int
    available_time_us: int
    offset: int
    partition: int


@cython.final
cdef class Schema:
    """Physical layout of the rows of one view version."""

    def __cinit__(self, uint32_t schema_id, columns not None):
        cdef uint64_t end
        cdef Py_ssize_t i
        if 8 * len(columns) > 8 * HR_ROW_BYTES_MAX:
            raise ValueError(f"a schema of {len(columns)} columns does not fit a row")
        self.schema_id = schema_id
        self.column_count = len(columns)
        self.columns = <hr_column *>PyMem_Calloc(self.column_count + 1, sizeof(hr_column))
        if self.columns == NULL:
            raise MemoryError
        end = HR_ROW_BITMAP + (<uint64_t>self.column_count + 63) // 64 * 8
        for i in range(self.column_count):
            scalar, shape, list_size = columns[i]
            self.place(&self.columns[i], scalar, shape, list_size, &end)
        end = (end + 7) & ~<uint64_t>7
        if end > HR_ROW_BYTES_MAX - HR_ROW_CRC_BYTES:
            raise ValueError(f"the columns take {end} bytes of a row, which holds {HR_ROW_BYTES_MAX} with its checksum")
        self.fixed_bytes = <uint32_t>end

    def __dealloc__(self):
        PyMem_Free(self.columns)

    def offsets(self):
        """Byte offset of each column's fixed slot from row start."""
        return [self.columns[i].offset for i in range(self.column_count)]

    cdef int place(self, hr_column *column, object scalar, object shape, object list_size, uint64_t *end) except -1:
        cdef uint32_t align
        if not HR_BOOL <= scalar <= HR_DATE or not HR_SINGLE <= shape <= HR_VARIABLE:
            raise ValueError(f"unknown type {scalar} or shape {shape}")
        column.scalar = scalar
        column.shape = shape
        column.element_bytes = element_bytes(column.scalar)
        column.is_variable = shape == HR_VARIABLE or column.element_bytes == 0
        if shape == HR_FIXED and column.element_bytes == 0:
            raise ValueError("a fixed list holds fixed-width elements, not strings or bytes")
        if not (1 <= list_size <= LIST_SIZE_MAX if shape == HR_FIXED else list_size == 0):
            raise ValueError(f"list size {list_size} is wrong: 1 to {LIST_SIZE_MAX} for a fixed list, else 0")
        column.list_size = list_size
        column.slot_bytes = 8 if column.is_variable else column.element_bytes * max(column.list_size, 1)
        align = 4 if column.is_variable else column.element_bytes
        end[0] = (end[0] + align - 1) // align * align
        if end[0] + column.slot_bytes > HR_ROW_BYTES_MAX:
            raise ValueError(f"the columns take more than a row's {HR_ROW_BYTES_MAX} bytes")
        column.offset = <uint32_t>end[0]
        end[0] += column.slot_bytes
        return 0


cdef uint8_t element_bytes(uint8_t scalar) noexcept nogil:
    if scalar == HR_BOOL:
        return 1
    if scalar == HR_STRING or scalar == HR_BYTES:
        return 0
    return 4 if scalar in (HR_I32, HR_F32, HR_DATE) else 8


@cython.final
cdef class RowBatch:
    """Encoded rows in one buffer, without order fields and checksum until stamped."""

    def __cinit__(self):
        self.row_count = 0

    def __init__(self):
        raise TypeError("row batches come from encode_rows")

    def __dealloc__(self):
        free(self.starts)
        free(self.bytes)

    def __len__(self):
        return self.row_count

    def stamp(
        self,
        const int64_t[::1] indexes not None,
        int64_t write_time_us,
        const int64_t[::1] available_time_us,
        uint32_t source_id,
        int32_t partition,
        int64_t first_offset,
    ):
        """Finished rows for `indexes`, with offsets counting up from first_offset."""
        cdef Py_ssize_t i, count = indexes.shape[0]
        cdef const int64_t *available = NULL
        if available_time_us is not None:
            if available_time_us.shape[0] != self.row_count:
                raise ValueError(f"{available_time_us.shape[0]} available times are given for {self.row_count} rows")
            if self.row_count > 0:
                available = &available_time_us[0]
        if first_offset > INT64_MAX - count:
            raise ValueError(f"offsets from {first_offset} on leave the range of i64")
        for i in range(count):
            if not 0 <= indexes[i] < self.row_count:
                raise ValueError(f"index {indexes[i]} at {i} is none of the {self.row_count} rows")
        rows = PyList_New(count)
        for i in range(count):
            row = stamped(
                self.bytes + self.starts[indexes[i]],
                self.starts[indexes[i] + 1] - self.starts[indexes[i]],
                write_time_us,
                write_time_us if available == NULL else available[indexes[i]],
                source_id,
                partition,
                first_offset + i,
            )
            Py_INCREF(row)
            PyList_SET_ITEM(rows, i, row)
        return rows

    def stamp_each(
        self,
        const int64_t[::1] indexes not None,
        const int64_t[::1] write_times_us not None,
        const int64_t[::1] available_times_us not None,
        const uint32_t[::1] source_ids not None,
        const int32_t[::1] partitions not None,
        const int64_t[::1] offsets not None,
    ):
        """Finished rows for `indexes`, each with the order that it was given before; one per batch row."""
        cdef Py_ssize_t i, count = indexes.shape[0]
        cdef int64_t at
        if not (write_times_us.shape[0] == available_times_us.shape[0] == source_ids.shape[0] == self.row_count):
            raise ValueError(f"times and sources are not those of {self.row_count} rows")
        if not (partitions.shape[0] == offsets.shape[0] == self.row_count):
            raise ValueError(f"partitions and offsets are not those of {self.row_count} rows")
        for i in range(count):
            if not 0 <= indexes[i] < self.row_count:
                raise ValueError(f"index {indexes[i]} at {i} is none of the {self.row_count} rows")
        rows = PyList_New(count)
        for i in range(count):
            at = indexes[i]
            row = stamped(
                self.bytes + self.starts[at], self.starts[at + 1] - self.starts[at],
                write_times_us[at], available_times_us[at], source_ids[at], partitions[at], offsets[at],
            )
            Py_INCREF(row)
            PyList_SET_ITEM(rows, i, row)
        return rows


cdef bytes stamped(
    const uint8_t *row, uint64_t length, int64_t write_time, int64_t available_time, uint32_t source_id,
    int32_t partition, int64_t offset
):
    cdef bytes stored = PyBytes_FromStringAndSize(<const char *>row, <Py_ssize_t>length)
    cdef uint8_t *to = <uint8_t *>PyBytes_AS_STRING(stored)
    hr_store_u32(to + HR_ROW_SOURCE_ID, source_id)
    hr_store_u64(to + HR_ROW_WRITE_TIME, <uint64_t>write_time)
    hr_store_u64(to + HR_ROW_AVAILABLE_TIME, <uint64_t>available_time)
    hr_store_u64(to + HR_ROW_OFFSET, <uint64_t>offset)
    hr_store_u32(to + HR_ROW_PARTITION, <uint32_t>partition)
    length -= HR_ROW_CRC_BYTES
    hr_store_u32(to + length, hr_crc32c(0, to, length))
    return stored


def encode_rows(Schema schema not None, columns not None, const int64_t[::1] event_times_us not None):
    """Rows of `len(event_times_us)` entities; columns in schema order. GIL released."""
    if len(columns) != schema.column_count:
        raise ValueError(f"{len(columns)} columns are given for the {schema.column_count} of the schema")
    cdef ArrowBuffers buffers = ArrowBuffers(columns)
    cdef RowBatch rows = RowBatch.__new__(RowBatch)
    cdef hr_batch batch
    cdef hr_arrow_fault fault
    cdef int64_t row_count = event_times_us.shape[0]
    cdef uint32_t *heap_ends = <uint32_t *>calloc(row_count + 1, sizeof(uint32_t))
    try:
        rows.starts = <uint64_t *>calloc(row_count + 1, sizeof(uint64_t))
        if rows.starts == NULL or heap_ends == NULL:
            raise MemoryError
        batch = hr_batch(
            columns=schema.columns, arrays=buffers.arrays, column_count=schema.column_count, event_times=NULL,
            schema_id=schema.schema_id, fixed_bytes=schema.fixed_bytes, row_count=row_count,
            starts=rows.starts, heap_ends=heap_ends, bytes=NULL,
        )
        if row_count > 0:
            batch.event_times = &event_times_us[0]
        if row_count * (schema.column_count + 1) < RELEASED_VALUES_MIN:
            fault = encode_batch(&batch)
        else:
            with nogil:
                fault = encode_batch(&batch)
        rows.bytes = batch.bytes
    finally:
        free(heap_ends)
    if fault.status != HR_ARROW_OK:
        raise refusal(fault)
    if rows.bytes == NULL:
        raise MemoryError
    rows.row_count = row_count
    return rows


cdef hr_arrow_fault encode_batch(hr_batch *batch) noexcept nogil:
    cdef hr_arrow_fault fault = hr_encode_measure(batch)
    if fault.status != HR_ARROW_OK:
        return fault
    batch.bytes = <uint8_t *>calloc(batch.starts[batch.row_count] + 1, 1)
    if batch.bytes != NULL:
        memset(batch.heap_ends, 0, batch.row_count * sizeof(uint32_t))
        hr_encode_write(batch)
    return fault


def encode_tombstone(
    uint32_t schema_id, int64_t event_time_us, int64_t write_time_us, uint32_t source_id, int32_t partition,
    int64_t offset
):
    """Row that says: erased."""
    cdef uint8_t[HR_ROW_BYTES_MIN] row
    memset(row, 0, HR_ROW_BYTES_MIN)
    row[0] = HR_ROW_MAGIC
    row[1] = HR_ROW_LAYOUT
    hr_store_u16(row + HR_ROW_FLAGS, HR_FLAG_TOMBSTONE)
    hr_store_u32(row + HR_ROW_LENGTH, HR_ROW_BYTES_MIN)
    hr_store_u32(row + HR_ROW_SCHEMA_ID, schema_id)
    hr_store_u64(row + HR_ROW_EVENT_TIME, <uint64_t>event_time_us)
    hr_store_u32(row + HR_ROW_HEAP, HR_ROW_BITMAP)
    return stamped(row, HR_ROW_BYTES_MIN, write_time_us, write_time_us, source_id, partition, offset)


def check_row(bytes row not None, Schema schema=None):
    """Header after every check: magic, layout, length, checksum, flags and, with a schema, id and all bounds."""
    cdef const uint8_t *start = row
    cdef int status = hr_row_check(start, len(row))
    if status == HR_ROW_OK and schema is not None:
        status = hr_row_check_schema(
            start, len(row), schema.columns, schema.column_count, schema.schema_id, schema.fixed_bytes)
    if status != HR_ROW_OK:
        raise CorruptRowError(hr_row_fault(status).decode("ascii"))
    return tuple.__new__(RowHeader, (
        hr_load_u16(start + HR_ROW_FLAGS),
        hr_load_u32(start + HR_ROW_SCHEMA_ID),
        hr_load_u32(start + HR_ROW_SOURCE_ID),
        hr_load_i64(start + HR_ROW_EVENT_TIME),
        hr_load_i64(start + HR_ROW_WRITE_TIME),
        hr_load_i64(start + HR_ROW_AVAILABLE_TIME),
        hr_load_i64(start + HR_ROW_OFFSET),
        hr_load_i32(start + HR_ROW_PARTITION),
    ))


def decode_row(Schema schema not None, bytes row not None):
    """Header and Python values (None for null); a tombstone has no values."""
    cdef const uint8_t *start = row
    cdef uint32_t i
    header = check_row(row, schema)
    if header.flags & HR_FLAG_TOMBSTONE:
        return header, []
    values = []
    for i in range(schema.column_count):
        if start[HR_ROW_BITMAP + i // 8] >> i % 8 & 1:
            values.append(None)
        else:
            try:
                values.append(column_value(start, schema.fixed_bytes, &schema.columns[i]))
            except UnicodeDecodeError as error:
                raise CorruptRowError(f"a string of column {i} is not UTF-8") from error
    return header, values


cdef object column_value(const uint8_t *row, uint32_t fixed_bytes, const hr_column *column):
    cdef const uint8_t *at = row + column.offset
    cdef uint32_t i, count = column.list_size, byte_count
    if column.is_variable:
        byte_count = hr_load_u32(at + 4)
        at = row + fixed_bytes + hr_load_u32(at)
        if column.shape == HR_SINGLE:
            return text_or_bytes(at, byte_count, column.scalar)
        if column.element_bytes == 0:
            return parts(at, byte_count, column.scalar)
        count = byte_count // column.element_bytes
    if column.shape == HR_SINGLE:
        return element(at, column.scalar)
    return [element(at + i * column.element_bytes, column.scalar) for i in range(count)]


cdef list parts(const uint8_t *value, uint32_t byte_count, uint8_t scalar):
    cdef uint32_t i, count, end, last = 0
    if byte_count == 0:
        return []
    count = hr_load_u32(value)
    items = []
    for i in range(count):
        end = hr_load_u32(value + 4 + 4 * <size_t>i)
        items.append(text_or_bytes(value + 4 + 4 * <size_t>count + last, end - last, scalar))
        last = end
    return items


cdef object text_or_bytes(const uint8_t *at, uint32_t byte_count, uint8_t scalar):
    if scalar == HR_STRING:
        return PyUnicode_DecodeUTF8(<const char *>at, byte_count, "strict")
    return PyBytes_FromStringAndSize(<const char *>at, byte_count)


cdef object element(const uint8_t *at, uint8_t scalar):
    cdef float single
    cdef double wide
    if scalar == HR_BOOL:
        return at[0] != 0
    if scalar == HR_F32:
        memcpy(&single, at, sizeof(single))
        return single
    if scalar == HR_F64:
        memcpy(&wide, at, sizeof(wide))
        return wide
    if scalar == HR_I32 or scalar == HR_DATE:
        return hr_load_i32(at)
    return hr_load_i64(at)
