"""Records of a row log, layout of native/hr_row_log.h: written, scanned, and taken apart."""

from typing import NamedTuple

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "hr_row_log.h" nogil:
    enum:
        HR_LOG_MAGIC
        HR_LOG_SIZE
        HR_LOG_CRC
        HR_LOG_ROW_COUNT
        HR_LOG_EPOCH
        HR_LOG_FIRST
        HR_LOG_NEXT
        HR_LOG_HEAD_BYTES
        HR_LOG_ENTRY_BYTES
        HR_LOG_STORAGE_KEY_MIN
        HR_LOG_RECORD_BYTES_MAX
        HR_LOG_OK
        HR_LOG_TORN
        HR_VIEW_ID_BYTES
    uint32_t hr_crc32c(uint32_t value, const uint8_t *data, size_t length)
    uint32_t hr_load_u32(const uint8_t *p)
    uint32_t hr_load_u32_be(const uint8_t *p)
    int64_t hr_load_i64(const uint8_t *p)
    void hr_store_u16(uint8_t *p, uint16_t v)
    void hr_store_u32(uint8_t *p, uint32_t v)
    void hr_store_u64(uint8_t *p, uint64_t v)
    const char *hr_log_fault(int status)
    int64_t hr_log_record(const uint8_t *data, int64_t length, int64_t at, int *status)
    int hr_log_entries(
        const uint8_t *data, int64_t at, int64_t size, int64_t *key_starts, int64_t *row_starts, int64_t *row_ends)


RECORD_HEAD_BYTES = HR_LOG_HEAD_BYTES
RECORD_BYTES_MAX = HR_LOG_RECORD_BYTES_MAX
RECORD_MAGIC = HR_LOG_MAGIC.to_bytes(4, "little")


class CorruptRecordError(ValueError):
    """Bytes that are no whole record: the message says which check failed."""


class Record(NamedTuple):
    """Place of one whole record, and what it covers."""

    start: int
    size: int
    epoch: int
    first_offset: int
    next_offset: int


class LoggedRows(NamedTuple):
    """Rows of a chunk by their places in it, in the order of the log."""

    view_ids: object
    key_starts: object
    row_starts: object
    row_ends: object


def record_bytes(list keys not None, list rows not None):
    """Size of the record that holds these rows."""
    cdef Py_ssize_t i, total = HR_LOG_HEAD_BYTES
    if len(keys) != len(rows):
        raise ValueError(f"{len(keys)} keys are given for {len(rows)} rows")
    for i in range(len(keys)):
        total += HR_LOG_ENTRY_BYTES + len(<bytes?>keys[i]) + len(<bytes?>rows[i])
    return total


def encode_record(int64_t epoch, int64_t first_offset, int64_t next_offset, list keys not None, list rows not None):
    """One record. Raises ValueError for a key or a record that no record can hold."""
    cdef Py_ssize_t i, count = len(keys), total = record_bytes(keys, rows)
    cdef Py_ssize_t key_bytes, row_bytes
    cdef bytes key, row
    if total > HR_LOG_RECORD_BYTES_MAX:
        raise ValueError(f"a record of {total} bytes is over {HR_LOG_RECORD_BYTES_MAX}")
    cdef bytes stored = PyBytes_FromStringAndSize(NULL, total)
    cdef uint8_t *start = <uint8_t *>PyBytes_AS_STRING(stored)
    cdef uint8_t *to = start + HR_LOG_HEAD_BYTES
    for i in range(count):
        key, row = <bytes>keys[i], <bytes>rows[i]
        key_bytes, row_bytes = PyBytes_GET_SIZE(key), PyBytes_GET_SIZE(row)
        if not HR_LOG_STORAGE_KEY_MIN <= key_bytes <= 0xFFFF:
            raise ValueError(f"a storage key of {key_bytes} bytes is none")
        hr_store_u16(to, <uint16_t>key_bytes)
        hr_store_u16(to + 2, 0)
        hr_store_u32(to + 4, <uint32_t>row_bytes)
        to += HR_LOG_ENTRY_BYTES
        memcpy(to, PyBytes_AS_STRING(key), key_bytes)
        memcpy(to + key_bytes, PyBytes_AS_STRING(row), row_bytes)
        to += key_bytes + row_bytes
    hr_store_u32(start, HR_LOG_MAGIC)
    hr_store_u32(start + HR_LOG_SIZE, <uint32_t>total)
    hr_store_u32(start + HR_LOG_ROW_COUNT, <uint32_t>count)
    hr_store_u64(start + HR_LOG_EPOCH, <uint64_t>epoch)
    hr_store_u64(start + HR_LOG_FIRST, <uint64_t>first_offset)
    hr_store_u64(start + HR_LOG_NEXT, <uint64_t>next_offset)
    hr_store_u32(start + HR_LOG_CRC, hr_crc32c(0, start + HR_LOG_ROW_COUNT, total - HR_LOG_ROW_COUNT))
    return stored


def read_record(const uint8_t[::1] data not None, int64_t at=0):
    """The whole record at a place, None where the bytes end before it does. Raises CorruptRecordError."""
    cdef int status = HR_LOG_TORN
    cdef int64_t size = 0
    cdef const uint8_t *start
    if 0 <= at < data.shape[0]:
        size = hr_log_record(&data[0], data.shape[0], at, &status)
    if size == 0:
        if status == HR_LOG_TORN:
            return None
        raise CorruptRecordError(f"{hr_log_fault(status).decode('ascii')} (byte {at})")
    start = &data[0] + at
    return tuple.__new__(Record, (
        at,
        size,
        hr_load_i64(start + HR_LOG_EPOCH),
        hr_load_i64(start + HR_LOG_FIRST),
        hr_load_i64(start + HR_LOG_NEXT),
    ))


def split_records(const uint8_t[::1] data not None):
    """Rows of a chunk of whole records. Raises CorruptRecordError."""
    cdef int64_t length = data.shape[0], at = 0, size, count = 0, done = 0, i, rows
    cdef int status = HR_LOG_OK
    cdef const uint8_t *start = &data[0] if length > 0 else NULL
    while at < length:
        size = hr_log_record(start, length, at, &status)
        if size == 0:
            raise CorruptRecordError(f"{hr_log_fault(status).decode('ascii')} (byte {at})")
        rows = hr_load_u32(start + at + HR_LOG_ROW_COUNT)
        if rows > size // HR_LOG_ENTRY_BYTES:
            raise CorruptRecordError(f"a record of {size} bytes cannot hold {rows} rows (byte {at})")
        count += rows
        at += size
    places = np.zeros((3, count + 1), np.int64)
    views = np.zeros(count + 1, np.uint32)
    cdef int64_t[:, ::1] place = places
    cdef uint32_t[::1] view = views
    at = 0
    while at < length:
        size = hr_load_u32(start + at + HR_LOG_SIZE)
        rows = hr_load_u32(start + at + HR_LOG_ROW_COUNT)
        status = hr_log_entries(start, at, size, &place[0, done], &place[1, done], &place[2, done])
        if status != HR_LOG_OK:
            raise CorruptRecordError(f"{hr_log_fault(status).decode('ascii')} (byte {at})")
        for i in range(done, done + rows):
            view[i] = hr_load_u32_be(start + place[1, i] - HR_VIEW_ID_BYTES)
        done += rows
        at += size
    return tuple.__new__(LoggedRows, (views[:count], places[0, :count], places[1, :count], places[2, :count]))
