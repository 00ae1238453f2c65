"""Lineage graph: edges between numbered nodes with the times at which they held, walked breadth first."""

import cython
import numpy as np
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

NONE = HR_LINEAGE_NONE
FOREVER_US = HR_LINEAGE_FOREVER
HOPS_MAX = HR_LINEAGE_NONE - 1


cdef check(int status):
    if status == HR_LINEAGE_NO_MEMORY:
        raise MemoryError
    if status == HR_LINEAGE_FULL:
        raise OverflowError("nodes, edges and their spans of time are numbered by 32 bits, and every number is given")
    if status == HR_LINEAGE_UNKNOWN:
        raise ValueError("a node or edge is not in the graph")
    if status == HR_LINEAGE_CLOSED:
        raise ValueError("the edge has been replaced before")


cdef object taken(const uint32_t *numbers, uint64_t count):
    """An array of its own of numbers that will be freed."""
    made = np.empty(count, np.uint32)
    cdef uint32_t[::1] view = made
    if count > 0:
        memcpy(&view[0], numbers, count * sizeof(uint32_t))
    return made


@cython.final
cdef class LineageGraph:
    """Nodes are numbered from 0 in the order in which they were added, edges likewise. Any thread may read or write."""

    def __cinit__(self):
        check(hr_lineage_init(&self.graph))
        self.is_ready = True

    def __dealloc__(self):
        if self.is_ready:
            hr_lineage_free(&self.graph)

    @property
    def node_count(self):
        """Nodes that were added."""
        return self.measured()[0]

    @property
    def edge_count(self):
        """Edges that were added, those that have ended or were replaced included."""
        return self.measured()[1]

    @property
    def span_count(self):
        """Different spans of time of the edges."""
        return self.measured()[2]

    @property
    def memory_bytes(self):
        """Bytes of nodes, edges and spans, with the room kept for more."""
        return self.measured()[3]

    def measured(self):
        """Nodes, edges, spans and bytes at one moment."""
        cdef uint32_t node_count, edge_count, span_count
        cdef uint64_t memory_bytes
        with nogil:
            hr_lock_shared(&self.graph.lock)
            node_count, edge_count, span_count = self.graph.node_count, self.graph.edge_count, self.graph.span_count
            memory_bytes = hr_lineage_bytes(&self.graph)
            hr_unlock_shared(&self.graph.lock)
        return node_count, edge_count, span_count, memory_bytes

    def add_nodes(self, uint32_t count):
        """Adds nodes; returns the number of the first."""
        cdef int status = HR_LINEAGE_OK
        cdef uint32_t first
        with nogil:
            hr_lock_alone(&self.graph.lock)
            first = self.graph.node_count
            if count > 0:
                status = hr_lineage_add_nodes(&self.graph, count)
            hr_unlock_alone(&self.graph.lock)
        check(status)
        return first

    def extend(
        self, const uint32_t[::1] sources not None, const uint32_t[::1] targets not None,
        const int64_t[::1] valid_from_us not None, const int64_t[::1] valid_to_us not None,
        const int64_t[::1] known_from_us not None, const int64_t[::1] known_to_us not None,
    ):
        """Adds edges; returns the number of the first. Many at once are laid out without gaps."""
        cdef hr_lineage_batch batch
        cdef Py_ssize_t count = sources.shape[0]
        cdef uint32_t first
        cdef int status
        for name, found in (
            ("targets", targets.shape[0]), ("valid_from_us", valid_from_us.shape[0]),
            ("valid_to_us", valid_to_us.shape[0]), ("known_from_us", known_from_us.shape[0]),
            ("known_to_us", known_to_us.shape[0]),
        ):
            if found != count:
                raise ValueError(f"{name} holds {found} values, and there are {count} sources")
        if count == 0:
            return self.edge_count
        batch.sources, batch.targets, batch.count = &sources[0], &targets[0], count
        batch.valid_from, batch.valid_to = &valid_from_us[0], &valid_to_us[0]
        batch.known_from, batch.known_to = &known_from_us[0], &known_to_us[0]
        with nogil:
            hr_lock_alone(&self.graph.lock)
            first = self.graph.edge_count
            status = hr_lineage_extend(&self.graph, &batch)
            hr_unlock_alone(&self.graph.lock)
        check(status)
        return first

    def replace(self, uint32_t source, uint32_t target, uint32_t edge, int64_t valid_to_us, int64_t known_us):
        """Says from a known time on that an edge was valid to another time; returns the edge that says so."""
        cdef int status
        cdef uint32_t made
        with nogil:
            hr_lock_alone(&self.graph.lock)
            made = self.graph.edge_count
            status = hr_lineage_replace(&self.graph, source, target, edge, valid_to_us, known_us)
            hr_unlock_alone(&self.graph.lock)
        check(status)
        return made

    def closure(
        self, const uint32_t[::1] starts not None, *, bint upstream, int64_t valid_us, int64_t known_us,
        uint32_t hops_max=HOPS_MAX,
    ):
        """Everything that the starts reach: nodes, positions of parents, edges from those, and ends of the hops."""
        cdef hr_lineage_found found
        cdef hr_lineage_view view
        cdef uint64_t count = starts.shape[0]
        cdef const uint32_t *first = &starts[0] if count > 0 else NULL
        cdef int status
        memset(&found, 0, sizeof(found))
        with nogil:
            hr_lock_shared(&self.graph.lock)
            view = hr_lineage_view_at(&self.graph, valid_us, known_us)
            status = hr_lineage_closure(&self.graph, upstream, &view, first, count, hops_max, &found)
            hr_unlock_shared(&self.graph.lock)
        try:
            check(status)
            nodes, parents = taken(found.nodes, found.count), taken(found.parents, found.count)
            return nodes, parents, taken(found.edges, found.count), taken(found.level_ends, found.level_count)
        finally:
            hr_lineage_drop(&found)

    def adjacent(self, const uint32_t[::1] nodes not None, *, bint upstream, int64_t valid_us, int64_t known_us):
        """Edges of nodes: for each the position of its node, the node at its other end, and its number."""
        cdef hr_lineage_view view
        cdef uint64_t count = nodes.shape[0], room = 0, needed = 0
        cdef const uint32_t *first = &nodes[0] if count > 0 else NULL
        cdef uint32_t[::1] position_view, end_view, edge_view
        cdef int status
        while True:  # until nothing was added between counting and writing
            positions, ends, edges = (np.empty(room + 1, np.uint32) for _ in range(3))
            position_view, end_view, edge_view = positions, ends, edges
            with nogil:
                hr_lock_shared(&self.graph.lock)
                view = hr_lineage_view_at(&self.graph, valid_us, known_us)
                status = hr_lineage_adjacent(
                    &self.graph, upstream, &view, first, count, &position_view[0], &end_view[0], &edge_view[0], room,
                    &needed)
                hr_unlock_shared(&self.graph.lock)
            check(status)
            if needed <= room:
                return positions[:needed], ends[:needed], edges[:needed]
            room = needed
