"""Canonical key bytes: one form for storage, hashing and equality."""

import cython
import numpy as np
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from core_ext.arrow cimport HR_ARROW_OK, ArrowBuffers, hr_arrow_fault, refusal


cdef extern from "hr_key.h" nogil:
    enum:
        HR_I64
        HR_STRING
        HR_BYTES
        HR_KEY_I64
        HR_KEY_STRING
        HR_KEY_BYTES
        HR_KEY_PARTS_MAX
        HR_KEY_BYTES_MIN
        HR_KEY_BYTES_MAX
        HR_ENTITY_ID_BYTES
        HR_VIEW_ID_BYTES
        HR_SLOT_COUNT
    uint32_t hr_load_u32_be(const uint8_t *p)
    void hr_store_u32_be(uint8_t *p, uint32_t v)
    uint8_t *hr_key_put_i64(uint8_t *to, int64_t value)
    uint8_t *hr_key_put_bytes(uint8_t *to, uint8_t tag, const uint8_t *data, uint16_t length)
    size_t hr_key_next(const uint8_t *key, size_t length, size_t at, hr_key_part *part)
    uint16_t hr_key_slot(const uint8_t *key, size_t length)


cdef enum:
    RELEASED_KEYS_MIN = 1 << 13  # about 100 us of work; for less, a contended lock costs more than it frees

KEY_BYTES_MAX = HR_KEY_BYTES_MAX
KEY_PARTS_MAX = HR_KEY_PARTS_MAX


def encode_key(types not None, values not None):
    """Entity key of one entity. Raises ValueError for a wrong type, an empty or overlong part, i64 overflow."""
    cdef uint8_t[HR_KEY_BYTES_MAX] key
    cdef uint8_t *to = key
    cdef const uint8_t *end = &key[0] + HR_KEY_BYTES_MAX
    check_part_count(len(types))
    if len(values) != len(types):
        raise ValueError(f"{len(values)} values are given for the {len(types)} parts of the key")
    for index, (scalar, value) in enumerate(zip(types, values)):
        if scalar == HR_I64:
            if type(value) is not int or not INT64_MIN <= value <= INT64_MAX:
                raise ValueError(f"key part {index} must be a whole number of 64 bits, not {value!r:.100}")
            part = None
        elif scalar == HR_STRING:
            part = utf8_part(index, value)
        elif scalar == HR_BYTES:
            part = value
        else:
            raise ValueError(f"key part {index} has type {scalar}: keys are i64, string or bytes")
        to = put_part(to, end, index, scalar, value, part)
    return PyBytes_FromStringAndSize(<const char *>key, to - key)


cdef object check_part_count(Py_ssize_t count):
    if not 1 <= count <= HR_KEY_PARTS_MAX:
        raise ValueError(f"a key has 1 to {HR_KEY_PARTS_MAX} parts, not {count}")


cdef bytes utf8_part(index, value):
    if not isinstance(value, str):
        raise ValueError(f"key part {index} must be a string, not {value!r:.100}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"key part {index} cannot be written as UTF-8: it holds half of a surrogate pair") from error


cdef uint8_t *put_part(uint8_t *to, const uint8_t *end, index, scalar, value, part) except NULL:
    cdef Py_ssize_t room = end - to
    if scalar == HR_I64:
        if room < 9:
            raise ValueError(f"the key is longer than {HR_KEY_BYTES_MAX} bytes")
        return hr_key_put_i64(to, value)
    if not isinstance(part, bytes):
        raise ValueError(f"key part {index} must be bytes, not {value!r:.100}")
    if len(part) == 0:
        raise ValueError(f"key part {index} is empty")
    if len(part) > room - 3:
        raise ValueError(f"the key is longer than {HR_KEY_BYTES_MAX} bytes")
    return hr_key_put_bytes(to, HR_KEY_STRING if scalar == HR_STRING else HR_KEY_BYTES, part, len(part))


def decode_key(bytes key not None):
    """Parts of an entity key. Raises ValueError when it is malformed."""
    cdef hr_key_part part
    cdef size_t at = 0, length = len(key)
    memset(&part, 0, sizeof(part))
    parts = []
    if not HR_KEY_BYTES_MIN <= length <= HR_KEY_BYTES_MAX:
        raise ValueError(f"a key has {HR_KEY_BYTES_MIN} to {HR_KEY_BYTES_MAX} bytes, not {length}")
    while at < length:
        start, at = at, hr_key_next(key, length, at, &part)
        if at == 0 or len(parts) == HR_KEY_PARTS_MAX:
            raise ValueError(f"the key is malformed at byte {start}")
        if part.tag == HR_KEY_I64:
            parts.append(part.integer)
        elif part.tag == HR_KEY_STRING:
            parts.append(part.data[:part.length].decode("utf-8"))
        else:
            parts.append(part.data[:part.length])
    return tuple(parts)


def entity_prefix(entity_id, bytes key not None):
    """Entity id and key: what the storage keys of one entity begin with."""
    return as_id(entity_id, "entity").to_bytes(HR_ENTITY_ID_BYTES, "big") + key


def storage_key(entity_id, bytes key not None, view_id):
    """Entity id, key, view id: where the row of one entity and view lies."""
    return framed(as_id(entity_id, "entity"), key, len(key), as_id(view_id, "view"))


cdef object as_id(value, kind):
    if not 0 <= value < 2**32:
        raise ValueError(f"{kind} id {value} is none of 32 bits")
    return value


def split_storage_key(bytes storage_key not None):
    """Entity id, entity key, view id. Raises ValueError when too short."""
    cdef const uint8_t *start = storage_key
    cdef Py_ssize_t end = len(storage_key) - HR_VIEW_ID_BYTES
    if end < HR_ENTITY_ID_BYTES + HR_KEY_BYTES_MIN:
        raise ValueError(f"a storage key of {len(storage_key)} bytes is too short")
    return hr_load_u32_be(start), storage_key[HR_ENTITY_ID_BYTES:end], hr_load_u32_be(start + end)


def slot_of_key(bytes key not None):
    """Slot of an entity key, 0 to 1,023."""
    return hr_key_slot(key, len(key))


def shard_of_slot(int slot, int shard_count):
    """Shard that owns a slot when there are shard_count shards, a power of two up to 1,024."""
    if not 1 <= shard_count <= HR_SLOT_COUNT or shard_count & (shard_count - 1):
        raise ValueError(f"the shard count is a power of two from 1 to {HR_SLOT_COUNT}, not {shard_count}")
    if not 0 <= slot < HR_SLOT_COUNT:
        raise ValueError(f"slot {slot} is none of the {HR_SLOT_COUNT}")
    return slot * shard_count // HR_SLOT_COUNT


@cython.final
cdef class KeyBatch:
    """Entity keys of many rows in one buffer."""

    def __cinit__(self):
        self.row_count = 0

    def __init__(self):
        raise TypeError("key batches come from encode_keys")

    def __dealloc__(self):
        free(self.starts)
        free(self.bytes)

    def __len__(self):
        return self.row_count

    def key(self, int64_t index):
        """Entity key of one row."""
        if not 0 <= index < self.row_count:
            raise IndexError(f"index {index} is none of the {self.row_count} rows")
        return PyBytes_FromStringAndSize(
            <const char *>self.bytes + self.starts[index], self.starts[index + 1] - self.starts[index])

    def storage_keys(self, uint32_t entity_id, uint32_t view_id, const int64_t[::1] indexes not None):
        """Storage keys of the rows at `indexes`."""
        cdef Py_ssize_t i, count = indexes.shape[0]
        for i in range(count):
            if not 0 <= indexes[i] < self.row_count:
                raise ValueError(f"index {indexes[i]} at {i} is none of the {self.row_count} rows")
        keys = PyList_New(count)
        for i in range(count):
            key = framed(
                entity_id, self.bytes + self.starts[indexes[i]],
                self.starts[indexes[i] + 1] - self.starts[indexes[i]], view_id)
            Py_INCREF(key)
            PyList_SET_ITEM(keys, i, key)
        return keys


cdef bytes framed(uint32_t entity_id, const uint8_t *key, uint64_t length, uint32_t view_id):
    cdef bytes stored = PyBytes_FromStringAndSize(NULL, HR_ENTITY_ID_BYTES + length + HR_VIEW_ID_BYTES)
    cdef uint8_t *to = <uint8_t *>PyBytes_AS_STRING(stored)
    hr_store_u32_be(to, entity_id)
    memcpy(to + HR_ENTITY_ID_BYTES, key, length)
    hr_store_u32_be(to + HR_ENTITY_ID_BYTES + length, view_id)
    return stored


def encode_keys(types not None, columns not None):
    """Entity keys from key columns in join-key order. Raises ValueError naming column and row for a bad key."""
    cdef hr_column[HR_KEY_PARTS_MAX] parts
    check_part_count(len(types))
    if len(columns) != len(types):
        raise ValueError(f"{len(columns)} columns are given for the {len(types)} parts of the key")
    memset(parts, 0, sizeof(parts))
    for index, scalar in enumerate(types):
        if scalar not in (HR_I64, HR_STRING, HR_BYTES):
            raise ValueError(f"key column {index} has type {scalar}: keys are i64, string or bytes")
        parts[index].scalar = scalar
        parts[index].is_variable = scalar != HR_I64
        parts[index].element_bytes = 8 if scalar == HR_I64 else 0
    cdef ArrowBuffers buffers = ArrowBuffers(columns)
    cdef hr_key_batch batch
    memset(&batch, 0, sizeof(batch))
    batch.columns = parts
    batch.arrays = buffers.arrays
    batch.part_count = <uint32_t>buffers.count
    batch.row_count = buffers.arrays[0].length
    return key_batch(&batch)


cdef KeyBatch key_batch(hr_key_batch *batch):
    cdef KeyBatch keys = KeyBatch.__new__(KeyBatch)
    cdef hr_arrow_fault fault = hr_key_check(batch)
    cdef uint16_t[::1] slots
    if fault.status != HR_ARROW_OK:
        raise refusal(fault)
    keys.slots = np.empty(batch.row_count, np.uint16)
    if batch.row_count > 0:
        slots = keys.slots
        batch.slots = &slots[0]
    keys.starts = batch.starts = <uint64_t *>calloc(batch.row_count + 1, sizeof(uint64_t))
    if keys.starts == NULL:
        raise MemoryError
    if batch.row_count < RELEASED_KEYS_MIN:
        fault = encode_batch(batch)
    else:
        with nogil:
            fault = encode_batch(batch)
    keys.bytes = batch.bytes
    if fault.status != HR_ARROW_OK:
        raise refusal(fault)
    if keys.bytes == NULL:
        raise MemoryError
    keys.row_count = batch.row_count
    return keys


cdef hr_arrow_fault encode_batch(hr_key_batch *batch) noexcept nogil:
    cdef hr_arrow_fault fault = hr_key_measure(batch)
    if fault.status != HR_ARROW_OK:
        return fault
    batch.bytes = <uint8_t *>malloc(batch.starts[batch.row_count] + 1)
    if batch.bytes != NULL:
        hr_key_write(batch)
    return fault
