cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "hr_lock.h" nogil:
    ctypedef struct hr_lock:
        pass
    void hr_lock_shared(hr_lock *lock)
    void hr_unlock_shared(hr_lock *lock)
    void hr_lock_alone(hr_lock *lock)
    void hr_unlock_alone(hr_lock *lock)


cdef extern from "hr_lineage.h" nogil:
    enum:
        HR_LINEAGE_OK
        HR_LINEAGE_NO_MEMORY
        HR_LINEAGE_FULL
        HR_LINEAGE_UNKNOWN
        HR_LINEAGE_CLOSED
    const uint32_t HR_LINEAGE_NONE
    const int64_t HR_LINEAGE_FOREVER
    ctypedef struct hr_lineage:
        hr_lock lock
        uint32_t node_count, edge_count, span_count
    ctypedef struct hr_lineage_view:
        int64_t valid, known
    int hr_lineage_init(hr_lineage *graph)
    void hr_lineage_free(hr_lineage *graph)
    uint64_t hr_lineage_bytes(const hr_lineage *graph)
    int hr_lineage_add_nodes(hr_lineage *graph, uint64_t count)
    hr_lineage_view hr_lineage_view_at(const hr_lineage *graph, int64_t valid, int64_t known)


cdef extern from "hr_lineage_edges.h" nogil:
    ctypedef struct hr_lineage_batch:
        const uint32_t *sources
        const uint32_t *targets
        const int64_t *valid_from
        const int64_t *valid_to
        const int64_t *known_from
        const int64_t *known_to
        uint64_t count
    int hr_lineage_extend(hr_lineage *graph, const hr_lineage_batch *batch)
    int hr_lineage_replace(
        hr_lineage *graph, uint32_t source, uint32_t target, uint32_t edge, int64_t valid_to, int64_t known)


cdef extern from "hr_lineage_walk.h" nogil:
    ctypedef struct hr_lineage_found:
        uint32_t *nodes
        uint32_t *parents
        uint32_t *edges
        uint32_t *level_ends
        uint32_t count, level_count
    void hr_lineage_drop(hr_lineage_found *found)
    int hr_lineage_closure(
        const hr_lineage *graph, int upstream, const hr_lineage_view *view, const uint32_t *starts,
        uint64_t start_count, uint32_t hops_max, hr_lineage_found *found)
    int hr_lineage_adjacent(
        const hr_lineage *graph, int upstream, const hr_lineage_view *view, const uint32_t *nodes, uint64_t node_count,
        uint32_t *positions, uint32_t *ends, uint32_t *edges, uint64_t room, uint64_t *count)


@cython.final
cdef class LineageGraph:
    cdef hr_lineage graph
    cdef bint is_ready
