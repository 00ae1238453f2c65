"""As-of join: the greatest history row that each spine row may see, and its values with their statuses."""

import cython
import numpy as np
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from core_ext.arrow cimport HR_ARROW_OK, ArrowBuffers, hr_arrow, hr_arrow_fault, refusal
from core_ext.keys cimport KeyBatch
from core_ext.row_codec cimport hr_column


cdef extern from "hr_rules.h" nogil:
    enum:
        HR_SLOT_EMPTY
        HR_SLOT_VALUE
        HR_SLOT_DEFAULT
        HR_BOOL
        HR_FIXED
    uint8_t hr_value_status(
        uint8_t row_status, int is_null, int fallback, int has_default, int include_expired, uint8_t *slot)


cdef extern from "hr_key.h" nogil:
    enum:
        HR_KEY_I64_BYTES
    uint8_t *hr_key_put_i64(uint8_t *to, int64_t value)


cdef extern from "hr_arrow.h" nogil:
    int hr_arrow_is_null(const hr_arrow *array, int64_t i)
    int hr_arrow_check(const hr_arrow *array, const hr_column *column, int64_t row_count, int64_t *row)
    int hr_bit(const uint8_t *bits, int64_t i)


HASH_BITS_MAX = 64
SPINE_ROWS_MAX = HR_ASOF_ROWS_MAX


@cython.final
cdef class Spine:
    """Entities with their query times; read-only, so that any number of threads may feed matches against it."""

    def __cinit__(self, keys not None, const int64_t[::1] times_us not None, int hash_bits=64):
        cdef int status
        cdef int64_t row_count = len(keys)
        if times_us.shape[0] != row_count:
            raise ValueError(f"{times_us.shape[0]} times are given for {row_count} keys")
        if row_count >= HR_ASOF_ROWS_MAX:
            raise ValueError(f"a spine has fewer than {HR_ASOF_ROWS_MAX} rows, not {row_count}")
        if not 0 <= hash_bits <= 64:
            raise ValueError(f"a hash has 0 to 64 bits, not {hash_bits}")
        if isinstance(keys, KeyBatch):
            self.keys = keys
            self.table.keys = batch_keys(keys)
        else:
            self.encode(keys)
        self.table.hash_mask = ~(<uint64_t>0) if hash_bits == 64 else ((<uint64_t>1) << hash_bits) - 1
        with nogil:
            status = hr_asof_build(&self.table, &times_us[0] if times_us.shape[0] > 0 else NULL)
        if status != HR_ASOF_OK:
            raise MemoryError

    def __dealloc__(self):
        hr_asof_free(&self.table)
        free(self.own_bytes)
        free(self.own_starts)

    cdef int encode(self, const int64_t[::1] integers) except -1:
        """Makes the keys of one integer each."""
        cdef Py_ssize_t i, count = integers.shape[0]
        cdef uint8_t *to
        self.own_bytes = <uint8_t *>malloc(count * HR_KEY_I64_BYTES + 1)
        self.own_starts = <uint64_t *>malloc((count + 1) * sizeof(uint64_t))
        if self.own_bytes == NULL or self.own_starts == NULL:
            raise MemoryError
        to = self.own_bytes
        with nogil:
            for i in range(count):
                self.own_starts[i] = to - self.own_bytes
                to = hr_key_put_i64(to, integers[i])
            self.own_starts[count] = to - self.own_bytes
        self.table.keys.bytes = self.own_bytes
        self.table.keys.starts = self.own_starts
        self.table.keys.row_count = count
        return 0

    def __len__(self):
        return self.table.keys.row_count

    @property
    def entity_count(self):
        """Different keys."""
        return self.table.entity_count

    @property
    def longest_search(self):
        """Slots that the search for a key passes at most."""
        return hr_asof_longest_search(&self.table)

    def find(self, KeyBatch keys not None):
        """Entity of every key, -1 where the spine has no such key."""
        cdef hr_asof_keys wanted = batch_keys(keys)
        entities = np.empty(keys.row_count, np.int64)
        cdef int64_t[::1] view = entities
        if keys.row_count > 0:
            with nogil:
                hr_asof_lookup(&self.table, &wanted, &view[0])
        return entities

    def entities(self):
        """Entity and query time of every row."""
        cdef Py_ssize_t count = self.table.keys.row_count
        entities, times = np.empty(count, np.int64), np.empty(count, np.int64)
        cdef int64_t[::1] entity_view = entities, time_view = times
        if count > 0:
            with nogil:
                hr_asof_rows(&self.table, &entity_view[0], &time_view[0])
        return entities, times


cdef object same_rows(Py_ssize_t found, Py_ssize_t wanted, name):
    if found != wanted:
        raise ValueError(f"{name} holds {found} rows, and there are {wanted} keys")


cdef hr_asof_keys batch_keys(KeyBatch keys) noexcept:
    cdef hr_asof_keys held
    held.bytes = keys.bytes
    held.starts = keys.starts
    held.row_count = keys.row_count
    return held


cdef int describe(
    hr_asof_batch *batch, bint fits, keys, const int64_t[::1] event_us, int64_t first_index, int64_t cutoff_us,
    const int64_t[::1] write_us, const int64_t[::1] available_us, const uint8_t[::1] tombstones,
    const uint32_t[::1] source_ids, const int32_t[::1] partitions, const int64_t[::1] offsets,
) except -1:
    """The columns of a batch for the kernel; they must outlive it. `fits`: there are ties, or nothing needs them."""
    cdef const int64_t[::1] integers
    cdef int64_t row_count
    memset(batch, 0, sizeof(hr_asof_batch))
    if isinstance(keys, KeyBatch):
        batch.keys = batch_keys(keys)
    else:
        integers = keys
        batch.keys.row_count = integers.shape[0]
        batch.integers = &integers[0] if integers.shape[0] > 0 else NULL
    row_count = batch.keys.row_count
    batch.first_index = first_index
    batch.cutoff_us = cutoff_us
    if not fits:
        raise ValueError("matches without ties are for histories that only the event time orders")
    if not 0 <= first_index <= (1 << 62) - 1 - row_count:
        raise ValueError(f"first_index {first_index} is negative or too great")
    if event_us.shape[0] != row_count:
        raise ValueError(f"{event_us.shape[0]} event times are given for {row_count} keys")
    if row_count == 0:
        return 0
    batch.event_us = &event_us[0]
    if write_us is not None:
        same_rows(write_us.shape[0], row_count, "write_us")
        batch.write_us = &write_us[0]
    if available_us is not None:
        same_rows(available_us.shape[0], row_count, "available_us")
        batch.available_us = &available_us[0]
    if tombstones is not None:
        same_rows(tombstones.shape[0], row_count, "tombstones")
        batch.tombstones = &tombstones[0]
    if source_ids is not None:
        same_rows(source_ids.shape[0], row_count, "source_ids")
        batch.source_ids = &source_ids[0]
    if partitions is not None:
        same_rows(partitions.shape[0], row_count, "partitions")
        batch.partitions = &partitions[0]
    if offsets is not None:
        same_rows(offsets.shape[0], row_count, "offsets")
        batch.offsets = &offsets[0]
    return 0


@cython.final
cdef class Matches:
    """What one thread found of one history; tables of several threads are merged, in any order."""

    def __cinit__(self, Spine spine not None, bint has_ties=True):
        cdef size_t count = spine.table.keys.row_count + 1
        self.spine = spine
        self.kept.matches = <hr_asof_match *>hr_asof_allocate(count * sizeof(hr_asof_match))
        if has_ties:
            self.kept.ties = <hr_asof_tie *>calloc(count, sizeof(hr_asof_tie))
        if self.kept.matches == NULL or (has_ties and self.kept.ties == NULL):
            raise MemoryError
        memset(self.kept.matches, 0xFF, count * sizeof(hr_asof_match))

    def __dealloc__(self):
        free(self.kept.matches)
        free(self.kept.ties)

    def feed(
        self, keys not None, const int64_t[::1] event_us not None, int64_t first_index, int64_t cutoff_us, *,
        const int64_t[::1] write_us=None, const int64_t[::1] available_us=None, const uint8_t[::1] tombstones=None,
        const uint32_t[::1] source_ids=None, const int32_t[::1] partitions=None, const int64_t[::1] offsets=None,
    ):
        """Takes a batch of history rows; its first row has `first_index` in the whole history.

        Keys that are one i64 each may be given as an array of them.
        """
        cdef hr_asof_batch batch
        cdef bint has_order = not (write_us is None and source_ids is None and partitions is None and offsets is None)
        describe(
            &batch, self.kept.ties != NULL or not has_order, keys, event_us, first_index, cutoff_us, write_us,
            available_us, tombstones, source_ids, partitions, offsets)
        with nogil:
            hr_asof_feed(&self.spine.table, &self.kept, &batch)

    def merge(self, Matches other not None):
        """Takes over what `other` found for the same spine."""
        if other.spine is not self.spine:
            raise ValueError("matches of another spine cannot be merged")
        if (other.kept.ties == NULL) != (self.kept.ties == NULL):
            raise ValueError("matches with and without ties cannot be merged")
        with nogil:
            hr_asof_merge(&self.kept, &other.kept, self.spine.table.keys.row_count)

    def resolve(self, int64_t ttl_us, int64_t stale_us):
        """History index (or -1) and row status of every spine row."""
        cdef Py_ssize_t count = self.spine.table.keys.row_count
        indexes, statuses = np.empty(count, np.int64), np.empty(count, np.uint8)
        cdef int64_t[::1] index_view = indexes
        cdef uint8_t[::1] status_view = statuses
        if count > 0:
            with nogil:
                hr_asof_resolve(&self.spine.table, &self.kept, ttl_us, stale_us, &index_view[0], &status_view[0])
        return indexes, statuses

    def newest(self):
        """Index of the greatest row that every spine row sees, tombstones included, or -1."""
        cdef Py_ssize_t count = self.spine.table.keys.row_count
        indexes = np.empty(count, np.int64)
        cdef int64_t[::1] view = indexes
        if count > 0:
            with nogil:
                hr_asof_newest(&self.spine.table, &self.kept, &view[0])
        return indexes


cdef hr_column described(column_type) except *:
    cdef hr_column column
    memset(&column, 0, sizeof(column))
    scalar, shape, list_size, element_bytes = column_type
    column.scalar = scalar
    column.shape = shape
    column.list_size = list_size
    column.element_bytes = element_bytes
    if element_bytes == 0 or shape not in (0, HR_FIXED):
        raise ValueError("only values of a fixed width are gathered")
    return column


def gather(
    column_type, column not None, const int64_t[::1] sources not None, const int64_t[::1] targets not None,
    uint8_t[::1] values not None, uint8_t[::1] nulls not None,
):
    """Copies value sources[i] of an Arrow column into slot targets[i] of `values`, and whether it is null into `nulls`.

    column_type is (scalar, shape, list size, element bytes) of a type of fixed width; a boolean takes one byte.
    Threads may share `values` and `nulls` when their targets differ.
    """
    cdef hr_column kind = described(column_type)
    cdef ArrowBuffers buffers = ArrowBuffers([column])
    cdef const hr_arrow *array = &buffers.arrays[0]
    cdef hr_arrow_fault fault
    cdef Py_ssize_t width = kind.element_bytes * (kind.list_size if kind.shape == HR_FIXED else 1)
    cdef Py_ssize_t count = sources.shape[0], slot_count = nulls.shape[0], wrong
    fault.column = 0
    fault.status = hr_arrow_check(array, &kind, array.length, &fault.row)
    if fault.status != HR_ARROW_OK:
        raise refusal(fault)
    if targets.shape[0] != count or values.shape[0] != slot_count * width:
        raise ValueError(f"{count} sources, {targets.shape[0]} targets and {values.shape[0]} bytes do not fit together")
    if count == 0:
        return
    with nogil:
        wrong = outside(&sources[0], count, array.length)
        if wrong < 0:
            wrong = outside(&targets[0], count, slot_count)
        if wrong < 0:
            copy_values(&kind, array, width, &sources[0], &targets[0], count, &values[0], &nulls[0])
    if wrong >= 0:
        raise ValueError(f"source {sources[wrong]} or target {targets[wrong]} at {wrong} is out of range")


cdef Py_ssize_t outside(const int64_t *indexes, Py_ssize_t count, int64_t limit) noexcept nogil:
    """Position of the first index that is none of 0 to limit - 1, or -1."""
    cdef Py_ssize_t i
    for i in range(count):
        if <uint64_t>indexes[i] >= <uint64_t>limit:
            return i
    return -1


cdef void copy_values(
    const hr_column *kind, const hr_arrow *array, Py_ssize_t width, const int64_t *sources, const int64_t *targets,
    Py_ssize_t count, uint8_t *values, uint8_t *nulls,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef bint is_list = kind.shape == HR_FIXED
    cdef const uint8_t *start
    if kind.scalar == HR_BOOL:
        for i in range(count):
            copy_bits(array, is_list, sources[i], width, values + targets[i] * width)
    else:
        start = array.child.values + array.child.offset * kind.element_bytes if is_list else array.values
        start += array.offset * width
        if width == 4:
            for i in range(count):
                memcpy(values + 4 * targets[i], start + 4 * sources[i], 4)
        elif width == 8:
            for i in range(count):
                memcpy(values + 8 * targets[i], start + 8 * sources[i], 8)
        else:
            for i in range(count):
                memcpy(values + targets[i] * width, start + sources[i] * width, width)
    for i in range(count):
        nulls[targets[i]] = array.validity != NULL and hr_arrow_is_null(array, sources[i])


cdef void copy_bits(
    const hr_arrow *array, bint is_list, int64_t source, Py_ssize_t width, uint8_t *to,
) noexcept nogil:
    cdef Py_ssize_t k
    cdef int64_t at = (array.offset + source) * width + (array.child.offset if is_list else 0)
    cdef const uint8_t *bits = array.child.values if is_list else array.values
    for k in range(width):
        to[k] = hr_bit(bits, at + k)


def settle(
    const uint8_t[::1] row_statuses not None, const uint8_t[::1] nulls not None, int fallback, bytes default,
    bint include_expired, uint8_t[::1] values=None,
):
    """Status and slot content (SLOT_EMPTY, SLOT_VALUE, SLOT_DEFAULT) of every value, by the value rules.

    `values`, where given, holds one slot each: defaults are written into it, and empty slots are zeroed.
    """
    cdef Py_ssize_t i, count = row_statuses.shape[0], width = 0
    statuses, slots = np.empty(count, np.uint8), np.empty(count, np.uint8)
    cdef uint8_t[::1] status_view = statuses, slot_view = slots
    cdef bytes held = b"" if default is None else default
    cdef const uint8_t *default_value = held
    cdef uint8_t *value = NULL
    cdef bint has_default = default is not None
    if nulls.shape[0] != count:
        raise ValueError(f"{nulls.shape[0]} nulls are given for {count} rows")
    if count == 0:
        return statuses, slots
    if values is not None:
        width = values.shape[0] // count
        if width * count != values.shape[0] or width == 0 or (has_default and len(default) != width):
            raise ValueError(f"{values.shape[0]} bytes, {count} rows and the default do not fit together")
        value = &values[0]
    with nogil:
        for i in range(count):
            status_view[i] = hr_value_status(
                row_statuses[i], nulls[i], fallback, has_default, include_expired, &slot_view[i])
            if width > 0 and slot_view[i] != HR_SLOT_VALUE:
                if slot_view[i] == HR_SLOT_DEFAULT:
                    memcpy(value + i * width, default_value, width)
                else:
                    memset(value + i * width, 0, width)
    return statuses, slots
