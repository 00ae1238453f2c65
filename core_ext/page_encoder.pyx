"""Pieces of Parquet pages as they are written: levels, numbers in runs, values without the null ones."""

import numpy as np
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc


cdef extern from "hr_page_encode.h" nogil:
    enum:
        HR_RUN_BITS_MAX
    size_t hr_runs_room(int64_t count)
    size_t hr_runs_write(const uint8_t *numbers, int64_t count, uint32_t bits, uint8_t *to)
    void hr_levels_unpack(const uint8_t *validity, int64_t offset, int64_t count, uint8_t *levels)
    int64_t hr_values_present(
        const uint8_t *values, const uint8_t *levels, int64_t count, uint32_t width, uint8_t *to)
    int hr_bytes_number(const uint8_t *values, int64_t count, uint8_t *dictionary, uint8_t *numbers)


RUN_BITS_MAX = HR_RUN_BITS_MAX


def levels_of(const uint8_t[::1] validity not None, int64_t offset, int64_t count):
    """A byte for each of `count` rows of a validity bitmap from `offset` on: 1, or 0 for null."""
    cdef uint8_t[::1] view
    if offset < 0 or count < 0 or offset + count > 8 * validity.shape[0]:
        raise ValueError(f"{validity.shape[0]} bytes do not hold {count} bits from {offset} on")
    levels = np.empty(count, np.uint8)
    if count > 0:
        view = levels
        with nogil:
            hr_levels_unpack(&validity[0], offset, count, &view[0])
    return levels


def in_runs(const uint8_t[::1] numbers not None, int bits):
    """Numbers of `bits` bits as repeated and packed runs."""
    cdef Py_ssize_t i, count = numbers.shape[0], size
    cdef uint8_t differing = 0
    cdef uint8_t *room
    if not 1 <= bits <= HR_RUN_BITS_MAX:
        raise ValueError(f"numbers of runs have 1 to {HR_RUN_BITS_MAX} bits, not {bits}")
    if count == 0:
        return b""
    with nogil:
        for i in range(count):
            differing |= numbers[i]
    if differing >> bits:
        raise ValueError(f"a number has more than {bits} bits")
    room = <uint8_t *>malloc(hr_runs_room(count))
    if room == NULL:
        raise MemoryError
    try:
        with nogil:
            size = hr_runs_write(&numbers[0], count, bits, room)
        return (<const char *>room)[:size]
    finally:
        free(room)


def present(const uint8_t[::1] values not None, const uint8_t[::1] levels not None, int width):
    """The values, of 4 or 8 bytes each, whose level is 1."""
    cdef Py_ssize_t count = levels.shape[0], i
    cdef int64_t done = 0
    cdef uint8_t[::1] view
    cdef uint8_t differing = 0
    if width not in (4, 8) or values.shape[0] != width * count:
        raise ValueError(f"{values.shape[0]} bytes are no {count} values of {width}, which is 4 or 8")
    kept = np.empty(width * count, np.uint8)
    if count > 0:
        view = kept
        with nogil:
            for i in range(count):
                differing |= levels[i]
            if differing <= 1:
                done = (hr_values_present(&values[0], &levels[0], count, 4, &view[0]) if width == 4
                        else hr_values_present(&values[0], &levels[0], count, 8, &view[0]))
    if differing > 1:
        raise ValueError("a level is neither 0 nor 1")
    return kept[:width * done]


def numbered(const uint8_t[::1] values not None):
    """The different bytes in ascending order, and the place of each byte among them."""
    cdef uint8_t[256] dictionary
    cdef uint8_t[::1] view
    cdef Py_ssize_t count = values.shape[0]
    cdef int different = 0
    numbers = np.empty(count, np.uint8)
    if count > 0:
        view = numbers
        with nogil:
            different = hr_bytes_number(&values[0], count, dictionary, &view[0])
    return (<const char *>dictionary)[:different], numbers
