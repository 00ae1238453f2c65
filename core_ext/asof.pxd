cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from core_ext.keys cimport KeyBatch


cdef extern from "hr_asof.h" nogil:
    enum:
        HR_ASOF_OK
        HR_ASOF_ROWS_MAX

    ctypedef struct hr_asof_keys:
        const uint8_t *bytes
        const uint64_t *starts
        int64_t row_count

    ctypedef struct hr_asof_spine:
        hr_asof_keys keys
        uint64_t hash_mask
        uint32_t entity_count
        uint32_t *dense

    ctypedef struct hr_asof_match:
        int64_t event_us
        int64_t mark

    ctypedef struct hr_asof_tie:
        int64_t write_us

    ctypedef struct hr_asof_kept:
        hr_asof_match *matches
        hr_asof_tie *ties

    ctypedef struct hr_asof_batch:
        hr_asof_keys keys
        const int64_t *integers
        const int64_t *event_us
        const int64_t *write_us
        const int64_t *available_us
        const uint8_t *tombstones
        const uint32_t *source_ids
        const int32_t *partitions
        const int64_t *offsets
        int64_t cutoff_us
        int64_t first_index

    int hr_asof_build(hr_asof_spine *spine, const int64_t *times)
    uint64_t hr_asof_longest_search(const hr_asof_spine *spine)
    void *hr_asof_allocate(size_t bytes)
    void hr_asof_free(hr_asof_spine *spine)
    void hr_asof_feed(const hr_asof_spine *spine, const hr_asof_kept *kept, const hr_asof_batch *batch)
    void hr_asof_lookup(const hr_asof_spine *spine, const hr_asof_keys *keys, int64_t *entities)
    void hr_asof_rows(const hr_asof_spine *spine, int64_t *entities, int64_t *times)
    void hr_asof_merge(const hr_asof_kept *kept, const hr_asof_kept *other, int64_t count)
    void hr_asof_newest(const hr_asof_spine *spine, const hr_asof_kept *kept, int64_t *indexes)
    void hr_asof_resolve(
        const hr_asof_spine *spine, const hr_asof_kept *kept, int64_t ttl_us, int64_t stale_us, int64_t *indexes,
        uint8_t *statuses)


@cython.final
cdef class Spine:
    cdef hr_asof_spine table
    cdef KeyBatch keys  # its bytes are those of the table; None where the table has its own
    cdef uint8_t *own_bytes
    cdef uint64_t *own_starts

    cdef int encode(self, const int64_t[::1] integers) except -1


@cython.final
cdef class Matches:
    cdef Spine spine
    cdef hr_asof_kept kept  # one match per position of the spine


cdef int describe(
    hr_asof_batch *batch, bint fits, keys, const int64_t[::1] event_us, int64_t first_index, int64_t cutoff_us,
    const int64_t[::1] write_us, const int64_t[::1] available_us, const uint8_t[::1] tombstones,
    const uint32_t[::1] source_ids, const int32_t[::1] partitions, const int64_t[::1] offsets,
) except -1
