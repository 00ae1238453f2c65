cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from core_ext.arrow cimport hr_arrow
from core_ext.window_kernel cimport NativePlan, hr_window_feature, hr_window_plan


cdef extern from "hr_window_history.h" nogil:
    enum:
        HR_WINDOW_OK
        HR_WINDOW_NO_MEMORY
        HR_WINDOW_BAD_TIME
        HR_WINDOW_TOO_LARGE
        HR_ARROW_OK
        HR_BOOL
        HR_F32
        HR_F64
        HR_STRING
        HR_BYTES
        HR_DATE

    ctypedef struct hr_window_section:
        uint32_t count

    ctypedef struct hr_window_map:
        int64_t newest
        int64_t cut
        int64_t covered
        hr_window_section *sections

    ctypedef struct hr_window_bytes:
        uint8_t *at
        size_t length

    ctypedef struct hr_window_writer:
        hr_window_map base

    ctypedef struct hr_window_left:
        uint64_t late_events
        uint64_t replayed_tiles
        uint64_t overtaken_tiles
        uint64_t split_tiles

    ctypedef struct hr_window_events:
        int64_t count
        int64_t group_count
        const int64_t *groups
        const int64_t *event_us
        const int64_t *write_us
        const int64_t *offsets
        const int64_t *available_us
        const uint32_t *source_ids
        const int32_t *partitions
        const hr_arrow *arrays

    ctypedef struct hr_window_heap:
        uint32_t start
        uint32_t length

    ctypedef struct hr_window_value:
        int64_t i
        double f
        hr_window_heap heap
        uint8_t is_null
        uint8_t lost

    ctypedef struct hr_window_fold:
        const hr_window_plan *plan
        hr_window_value *values
        hr_window_bytes heap
        int is_exact

    ctypedef struct hr_history_column:
        uint8_t *values
        uint8_t *nulls
        hr_window_bytes heap
        uint64_t null_count
        uint64_t *losses

    ctypedef struct hr_history:
        hr_history_column *columns

    enum:
        HR_LOST_CAUSES
        HR_HISTORY_THREADS_MAX

    const char **hr_window_faults
    uint32_t hr_scalar_bytes(uint8_t scalar)
    int hr_time_fits(int64_t time_us)
    int hr_writer_open(hr_window_writer *writer, const hr_window_plan *plan)
    void hr_writer_close(hr_window_writer *writer)
    int hr_window_check(const hr_window_plan *plan, const uint8_t *map, size_t length, hr_window_map *view)
    int hr_window_update(
        hr_window_writer *writer, const hr_window_events *events, hr_window_bytes *out, uint64_t *starts,
        uint64_t *dropped)
    int hr_window_apply(
        hr_window_writer *writer, const uint8_t *base, size_t base_bytes, const uint8_t *delta, size_t delta_bytes,
        int64_t offset, hr_window_bytes *out, hr_window_left *left)
    int hr_window_merge(
        hr_window_writer *writer, const uint8_t *base, size_t base_bytes, const uint8_t *other, size_t other_bytes,
        hr_window_bytes *out, hr_window_left *left)
    int hr_window_stamp(
        hr_window_writer *writer, const uint8_t *delta, size_t delta_bytes, int64_t cut, int64_t covered,
        hr_window_bytes *out)
    int hr_fold_open(hr_window_fold *fold, const hr_window_plan *plan)
    void hr_fold_close(hr_window_fold *fold)
    int hr_window_fold_at(hr_window_fold *fold, const uint8_t *map, size_t length, int64_t read_us)
    int hr_history_open(
        hr_history *history, const hr_window_plan *plan, const hr_window_events *events, const hr_window_events *reads,
        uint32_t input_count, uint32_t thread_count, uint8_t **values)
    uint32_t hr_history_width(const hr_window_feature *feature)
    hr_history_column *hr_history_columns(const hr_window_plan *plan, uint8_t **values, size_t count)
    void hr_history_columns_free(const hr_window_plan *plan, hr_history_column *columns)
    int hr_history_keep(hr_history_column *columns, const hr_window_fold *fold, size_t r)
    int hr_history_run(hr_history *history, uint32_t thread_count)
    void hr_history_close(hr_history *history)


@cython.final
cdef class Windows:
    cdef readonly object plan
    cdef NativePlan held            # owns what `native` points to
    cdef const hr_window_plan *native
    cdef hr_window_writer writer    # of apply, merge and stamp, which make no Python object while they use it
    cdef hr_window_bytes out        # of the same
    cdef hr_window_fold folding     # of one fold at a time; plan is NULL while it is taken

    cdef int check(self, int status, what) except -1
    cdef int take(self, hr_window_fold *fold) except -1
    cdef int give(self, hr_window_fold *fold) except -1
    cdef int events_of(self, hr_window_events *events, int64_t group_count) except -1
    cdef list room(self, uint8_t **values, int64_t count)
    cdef object columns_of(self, const hr_history_column *columns, int64_t count, list held)
