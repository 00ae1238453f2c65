"""As-of join of histories whose rows come in the order in which they are seen, as logs and sorted tables do."""

import cython
import numpy as np
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from core_ext.asof cimport HR_ASOF_OK, HR_ASOF_ROWS_MAX, Matches, Spine, describe, hr_asof_batch


@cython.final
cdef class Queries:
    """The rows of a spine by time; read-only, so that any number of threads may sweep over them."""

    def __cinit__(self, Spine spine not None):
        cdef int status
        memset(&self.held, 0, sizeof(self.held))
        self.spine = spine
        self.held.spine = &spine.table
        with nogil:
            status = hr_asof_queries_build(&self.held)
        if status != HR_ASOF_OK:
            raise MemoryError

    def __dealloc__(self):
        hr_asof_queries_free(&self.held)

    @property
    def is_dense(self):
        """Whether the keys are integers that are found by subtraction."""
        return self.spine.table.dense != NULL


@cython.final
cdef class Sweep:
    """What one part of a history gives, whose rows are seen in ascending order; for one thread."""

    def __cinit__(self, Queries queries not None, bint has_ties=True):
        memset(&self.held, 0, sizeof(self.held))
        self.queries = queries
        if not hr_asof_kept_allocate(&self.held.latest, queries.spine.table.entity_count, has_ties):
            raise MemoryError

    def __dealloc__(self):
        hr_asof_sweep_free(&self.held)

    def feed(
        self, keys not None, const int64_t[::1] event_us not None, int64_t first_index, int64_t cutoff_us, *,
        const int64_t[::1] write_us=None, const int64_t[::1] available_us=None, const uint8_t[::1] tombstones=None,
        const uint32_t[::1] source_ids=None, const int32_t[::1] partitions=None, const int64_t[::1] offsets=None,
    ):
        """Takes a batch as Matches.feed does, or says False where its rows do not come in order."""
        cdef hr_asof_batch batch
        cdef int status
        cdef bint has_order = not (write_us is None and source_ids is None and partitions is None and offsets is None)
        describe(
            &batch, self.held.latest.ties != NULL or not has_order, keys, event_us, first_index, cutoff_us, write_us,
            available_us, tombstones, source_ids, partitions, offsets)
        with nogil:
            status = hr_asof_sweep_feed(&self.queries.held, &self.held, &batch)
        if status == HR_ASOF_UNORDERED:
            return False
        if status != HR_ASOF_OK:
            raise MemoryError
        return True


@cython.final
cdef class Resolution:
    """What the sweeps over all parts of a history, and matches of rows out of order, give every spine row."""

    def __cinit__(self, Queries queries not None, sweeps not None, Matches matches=None):
        cdef Sweep sweep
        cdef bint has_ties
        self.queries = queries
        self.sweeps = tuple(sweeps)
        self.held = <const hr_asof_sweep **>calloc(len(self.sweeps) + 1, sizeof(hr_asof_sweep *))
        if self.held == NULL:
            raise MemoryError
        has_ties = matches is not None and matches.kept.ties != NULL
        for i, one in enumerate(self.sweeps):
            sweep = one
            if sweep.queries is not queries:
                raise ValueError("sweeps over other queries cannot be resolved")
            if (i > 0 or matches is not None) and has_ties != (sweep.held.latest.ties != NULL):
                raise ValueError("sweeps with and without ties cannot be resolved together")
            has_ties = sweep.held.latest.ties != NULL
            self.held[i] = &sweep.held
        if matches is None:
            return
        if matches.spine is not queries.spine:
            raise ValueError("matches of another spine cannot be resolved")
        if not hr_asof_kept_allocate(&self.by_row, queries.spine.table.keys.row_count, has_ties):
            raise MemoryError
        with nogil:
            hr_asof_spread(&queries.spine.table, &matches.kept, &self.by_row)

    def __dealloc__(self):
        hr_asof_kept_free(&self.by_row)
        free(self.held)

    def part(
        self, int64_t start, int64_t end, int64_t ttl_us, int64_t stale_us, int64_t[::1] indexes not None,
        uint8_t[::1] statuses not None,
    ):
        """Writes the history index (or -1) and row status of the queries [start, end), each at its spine row."""
        cdef int64_t count = self.queries.spine.table.keys.row_count, sweep_count = len(self.sweeps)
        cdef const hr_asof_kept *by_row = &self.by_row if self.by_row.matches != NULL else NULL
        if not 0 <= start <= end <= count or indexes.shape[0] != count or statuses.shape[0] != count:
            raise ValueError(f"queries [{start}, {end}) of {count} do not fit {indexes.shape[0]} indexes")
        if start == end:
            return
        with nogil:
            hr_asof_sweeps_resolve(
                &self.queries.held, self.held, sweep_count, by_row, ttl_us, stale_us, start, end, &indexes[0],
                &statuses[0])


def arranged(const int64_t[::1] indexes not None, int64_t low, int64_t high):
    """The indexes in [low, high), ascending, and their places; those of equal indexes ascend."""
    cdef int64_t row_count = indexes.shape[0]
    cdef hr_asof_range span
    cdef void *room
    cdef int64_t[::1] source_view, place_view
    if row_count >= HR_ASOF_ROWS_MAX:
        raise ValueError(f"a spine has fewer than {HR_ASOF_ROWS_MAX} rows, not {row_count}")
    if not 0 <= low <= high:
        raise ValueError(f"indexes [{low}, {high}) are no range")
    memset(&span, 0, sizeof(span))
    span.low, span.high = low, high
    if row_count > 0:
        with nogil:
            hr_asof_range_count(&indexes[0], row_count, &span)
    sources, places = np.empty(span.count, np.int64), np.empty(span.count, np.int64)
    if span.count == 0:
        return sources, places
    source_view, place_view = sources, places
    room = hr_asof_arrange_room(span.count)
    if room == NULL:
        raise MemoryError
    with nogil:
        hr_asof_arrange(&indexes[0], row_count, &span, room, &source_view[0], &place_view[0])
    free(room)
    return sources, places
