"""XXH3-64 for slots and tables, CRC32C for stored bytes."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy


cdef extern from "hr_hash.h" nogil:
    enum:
        HR_SLOT_COUNT
    uint64_t hr_xxh3_64(const uint8_t *data, size_t length)
    uint32_t hr_crc32c(uint32_t value, const uint8_t *data, size_t length)
    uint32_t hr_crc32c_portable(uint32_t value, const uint8_t *data, size_t length)


SLOT_COUNT = HR_SLOT_COUNT


def xxh3_64(bytes data not None):
    """XXH3 64-bit hash with seed 0 of any length, equal to the reference library's."""
    return hr_xxh3_64(data, len(data))


def content_hash_of(dict rows not None):
    """Sum, modulo 2^64, of the XXH3-64 hashes of each key with its row behind it; 0 of none.

    Raises TypeError where a key or a row is no bytes object.
    """
    cdef bytes key, row
    cdef size_t key_bytes, length, room = 0
    cdef uint8_t *joined = NULL
    cdef uint8_t *larger
    cdef uint64_t total = 0
    try:
        for key, row in rows.items():
            if key is None or row is None:
                raise TypeError("keys and rows are bytes, not None")
            key_bytes = PyBytes_GET_SIZE(key)
            length = key_bytes + PyBytes_GET_SIZE(row)
            if length > room:
                larger = <uint8_t *>realloc(joined, 2 * length)
                if larger == NULL:
                    raise MemoryError("no memory to hash a row")
                joined = larger
                room = 2 * length
            memcpy(joined, PyBytes_AS_STRING(key), key_bytes)
            memcpy(joined + key_bytes, PyBytes_AS_STRING(row), length - key_bytes)
            total += hr_xxh3_64(joined, length)
    finally:
        free(joined)
    return total


def crc32c(bytes data not None, uint32_t value=0):
    """CRC-32C (Castagnoli), continuing from `value`."""
    return hr_crc32c(value, data, len(data))


def crc32c_portable(bytes data not None, uint32_t value=0):
    """The same without the processor's own instruction: what machines that lack it run."""
    return hr_crc32c_portable(value, data, len(data))
