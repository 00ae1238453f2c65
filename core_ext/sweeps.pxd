cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t

from core_ext.asof cimport Spine, hr_asof_batch, hr_asof_kept, hr_asof_spine


cdef extern from "hr_asof_sweep.h" nogil:
    enum:
        HR_ASOF_UNORDERED

    ctypedef struct hr_asof_query:
        int64_t time
        uint32_t entity
        uint32_t row

    ctypedef struct hr_asof_queries:
        const hr_asof_spine *spine
        hr_asof_query *queries

    ctypedef struct hr_asof_sweep:
        hr_asof_kept latest
        hr_asof_kept passed
        int64_t begin
        int64_t end

    ctypedef struct hr_asof_range:
        int64_t low
        int64_t high
        int64_t count

    void *hr_asof_arrange_room(int64_t count)
    void hr_asof_range_count(const int64_t *indexes, int64_t row_count, hr_asof_range *span)
    void hr_asof_arrange(
        const int64_t *indexes, int64_t row_count, const hr_asof_range *span, void *room, int64_t *sources,
        int64_t *places)
    int hr_asof_queries_build(hr_asof_queries *queries)
    void hr_asof_queries_free(hr_asof_queries *queries)
    bint hr_asof_kept_allocate(hr_asof_kept *kept, int64_t count, bint has_ties)
    void hr_asof_kept_free(hr_asof_kept *kept)
    int hr_asof_sweep_feed(const hr_asof_queries *queries, hr_asof_sweep *sweep, const hr_asof_batch *batch)
    void hr_asof_sweep_free(hr_asof_sweep *sweep)
    void hr_asof_spread(const hr_asof_spine *spine, const hr_asof_kept *kept, const hr_asof_kept *by_row)
    void hr_asof_sweeps_resolve(
        const hr_asof_queries *queries, const hr_asof_sweep *const *sweeps, int64_t sweep_count,
        const hr_asof_kept *by_row, int64_t ttl_us, int64_t stale_us, int64_t start, int64_t past, int64_t *indexes,
        uint8_t *statuses)


@cython.final
cdef class Queries:
    cdef Spine spine
    cdef hr_asof_queries held


@cython.final
cdef class Sweep:
    cdef Queries queries
    cdef hr_asof_sweep held


@cython.final
cdef class Resolution:
    cdef Queries queries
    cdef tuple sweeps
    cdef hr_asof_kept by_row  # matches that were fed out of order, for every row
    cdef const hr_asof_sweep **held
