"""Stored rows and keys to Arrow buffers, column by column."""

from typing import NamedTuple

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from core_ext.arrow import ArrowColumn

from core_ext.row_codec cimport Schema, hr_column

from core_ext.row_codec import CorruptRowError


cdef extern from "hr_decode.h" nogil:
    enum:
        HR_ROW_OK
        HR_ROW_FLAGS
        HR_ROW_SOURCE_ID
        HR_ROW_EVENT_TIME
        HR_ROW_WRITE_TIME
        HR_ROW_AVAILABLE_TIME
        HR_ROW_OFFSET
        HR_ROW_PARTITION
        HR_FLAG_TOMBSTONE
        HR_SINGLE
        HR_FIXED
        HR_I64
        HR_STRING
        HR_BYTES
        HR_KEY_I64
        HR_KEY_STRING
        HR_KEY_BYTES
        HR_KEY_PARTS_MAX
    ctypedef struct hr_rows:
        const hr_column *columns
        uint32_t column_count
        uint32_t schema_id
        uint32_t fixed_bytes
        const uint8_t *data
        int64_t length
        int64_t row_count
        const int64_t *starts
        const int64_t *ends
    ctypedef struct hr_buffers:
        uint8_t *validity
        uint8_t *values
        int32_t *offsets
        int32_t *child_offsets
        int64_t element_count
        int64_t byte_count
        int64_t null_count
    ctypedef struct hr_keys:
        const uint8_t *tags
        uint32_t part_count
        const uint8_t *data
        int64_t length
        int64_t row_count
        const int64_t *starts
        const int64_t *ends
    uint16_t hr_load_u16(const uint8_t *p)
    uint32_t hr_load_u32(const uint8_t *p)
    int32_t hr_load_i32(const uint8_t *p)
    int64_t hr_load_i64(const uint8_t *p)
    const char *hr_decode_fault(int status)
    int hr_decode_check(const hr_rows *rows, int64_t *row)
    int hr_decode_measure(const hr_rows *rows, uint32_t c, hr_buffers *out)
    int hr_decode_write(const hr_rows *rows, uint32_t c, hr_buffers *out, int64_t *at_row)
    int hr_keys_measure(const hr_keys *keys, int64_t *byte_counts, int64_t *at_row)
    void hr_keys_write(const hr_keys *keys, uint32_t p, uint8_t *values, int32_t *offsets)


cdef enum:
    PAD_BYTES = 8  # Arrow reads bitmaps by words; no buffer is empty


class DecodedRows(NamedTuple):
    """Header fields and columns of rows."""

    event_times_us: object
    write_times_us: object
    available_times_us: object
    source_ids: object
    partitions: object
    offsets: object
    tombstones: object
    columns: object


def decode_rows(
    Schema schema not None,
    const uint8_t[::1] data not None,
    const int64_t[::1] starts not None,
    const int64_t[::1] ends not None,
):
    """Rows of one schema by their places. GIL released. Raises CorruptRowError naming the row."""
    cdef hr_rows rows
    cdef int64_t row = 0
    cdef int status
    if starts.shape[0] != ends.shape[0]:
        raise ValueError(f"{starts.shape[0]} starts are given for {ends.shape[0]} ends")
    memset(&rows, 0, sizeof(rows))
    rows.columns, rows.column_count = schema.columns, schema.column_count
    rows.schema_id, rows.fixed_bytes = schema.schema_id, schema.fixed_bytes
    rows.length, rows.row_count = data.shape[0], starts.shape[0]
    if rows.length > 0:
        rows.data = &data[0]
    if rows.row_count > 0:
        rows.starts = &starts[0]
        rows.ends = &ends[0]
    with nogil:
        status = hr_decode_check(&rows, &row)
    if status != HR_ROW_OK:
        raise corrupt(status, row)
    columns = [column_of(&rows, &schema.columns[c], c) for c in range(schema.column_count)]
    return tuple.__new__(DecodedRows, (*headers_of(&rows), columns))


cdef object corrupt(int status, int64_t row):
    return CorruptRowError(f"row {row}: {hr_decode_fault(status).decode('ascii')}")


cdef tuple headers_of(const hr_rows *rows):
    cdef int64_t i, count = rows.row_count
    cdef const uint8_t *row
    times = np.empty((4, count), np.int64)
    sources = np.empty(count, np.uint32)
    partitions = np.empty(count, np.int32)
    tombstones = np.empty(count, np.uint8)
    cdef int64_t[:, ::1] time = times
    cdef uint32_t[::1] source = sources
    cdef int32_t[::1] partition = partitions
    cdef uint8_t[::1] tombstone = tombstones
    with nogil:
        for i in range(count):
            row = rows.data + rows.starts[i]
            time[0, i] = hr_load_i64(row + HR_ROW_EVENT_TIME)
            time[1, i] = hr_load_i64(row + HR_ROW_WRITE_TIME)
            time[2, i] = hr_load_i64(row + HR_ROW_AVAILABLE_TIME)
            time[3, i] = hr_load_i64(row + HR_ROW_OFFSET)
            source[i] = hr_load_u32(row + HR_ROW_SOURCE_ID)
            partition[i] = hr_load_i32(row + HR_ROW_PARTITION)
            tombstone[i] = hr_load_u16(row + HR_ROW_FLAGS) & HR_FLAG_TOMBSTONE
    return times[0], times[1], times[2], sources, partitions, times[3], tombstones.view(np.bool_)


cdef object column_of(const hr_rows *rows, const hr_column *column, uint32_t c):
    cdef hr_buffers out
    cdef int64_t row = 0, count = rows.row_count
    cdef uint8_t[::1] validity_view, values_view
    cdef int32_t[::1] offsets_view, child_view
    cdef int status
    memset(&out, 0, sizeof(out))
    with nogil:
        status = hr_decode_measure(rows, c, &out)
    if status != HR_ROW_OK:
        raise corrupt(status, row)
    validity = np.zeros((count + 7) // 8 + PAD_BYTES, np.uint8)
    values = np.zeros(out.byte_count + PAD_BYTES, np.uint8)
    validity_view, values_view = validity, values
    out.validity, out.values = &validity_view[0], &values_view[0]
    offsets = child_offsets = None
    if column.is_variable:
        offsets = np.zeros(count + 1, np.int32)
        offsets_view = offsets
        out.offsets = &offsets_view[0]
        if column.shape != HR_SINGLE and column.element_bytes == 0:
            child_offsets = np.zeros(out.element_count + 1, np.int32)
            child_view = child_offsets
            out.child_offsets = &child_view[0]
    with nogil:
        status = hr_decode_write(rows, c, &out, &row)
    if status != HR_ROW_OK:
        raise CorruptRowError(f"row {row}, column {c}: {hr_decode_fault(status).decode('ascii')}")
    if out.null_count == 0:
        validity = None
    if column.shape == HR_SINGLE:
        return ArrowColumn(count, 0, validity, values, offsets, None)
    child = ArrowColumn(out.element_count, 0, None, values, child_offsets, None)
    return ArrowColumn(count, 0, validity, None, offsets, child)


def decode_keys(
    types not None,
    const uint8_t[::1] data not None,
    const int64_t[::1] starts not None,
    const int64_t[::1] ends not None,
):
    """Entity keys inside storage keys by their places, a column per part. Raises ValueError naming the row."""
    cdef uint8_t[HR_KEY_PARTS_MAX] tags
    cdef int64_t[HR_KEY_PARTS_MAX] byte_counts
    cdef hr_keys keys
    cdef int64_t row = 0
    cdef uint32_t p
    cdef int status
    if not 1 <= len(types) <= HR_KEY_PARTS_MAX:
        raise ValueError(f"a key has 1 to {HR_KEY_PARTS_MAX} parts, not {len(types)}")
    if starts.shape[0] != ends.shape[0]:
        raise ValueError(f"{starts.shape[0]} starts are given for {ends.shape[0]} ends")
    memset(byte_counts, 0, sizeof(byte_counts))
    for p, scalar in enumerate(types):
        tags[p] = {HR_I64: HR_KEY_I64, HR_STRING: HR_KEY_STRING, HR_BYTES: HR_KEY_BYTES}[scalar]
    memset(&keys, 0, sizeof(keys))
    keys.tags, keys.part_count = tags, <uint32_t>len(types)
    keys.length, keys.row_count = data.shape[0], starts.shape[0]
    if keys.length > 0:
        keys.data = &data[0]
    if keys.row_count > 0:
        keys.starts = &starts[0]
        keys.ends = &ends[0]
    with nogil:
        status = hr_keys_measure(&keys, byte_counts, &row)
    if status != HR_ROW_OK:
        raise ValueError(f"row {row}: {hr_decode_fault(status).decode('ascii')}")
    return [part_of(&keys, p, tags[p] != HR_KEY_I64, byte_counts[p]) for p in range(keys.part_count)]


cdef object part_of(const hr_keys *keys, uint32_t p, bint is_text, int64_t byte_count):
    cdef uint8_t[::1] values_view
    cdef int32_t[::1] offsets_view
    cdef int32_t *offset = NULL
    values = np.zeros((byte_count if is_text else 8 * keys.row_count) + PAD_BYTES, np.uint8)
    offsets = None
    values_view = values
    if is_text:
        offsets = np.zeros(keys.row_count + 1, np.int32)
        offsets_view = offsets
        offset = &offsets_view[0]
    with nogil:
        hr_keys_write(keys, p, &values_view[0], offset)
    return ArrowColumn(keys.row_count, 0, None, values, offsets, None)
