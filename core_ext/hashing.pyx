"""XXH3-64 for slots and tables, CRC32C for stored bytes."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


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


def crc32c(bytes data not None, uint32_t value=0):
    """CRC-32C (Castagnoli), continuing from `value`."""
    return hr_crc32c(value, data, len(data))


def crc32c_portable(bytes data not None, uint32_t value=0):
    """The same without the processor's own instruction: what machines that lack it run."""
    return hr_crc32c_portable(value, data, len(data))
