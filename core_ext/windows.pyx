"""Windows over events: tile maps made, merged and folded; plans come from core_ext.window_plan."""

from array import array
from typing import NamedTuple

import cython
import numpy as np
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport INT32_MAX, INT64_MIN, UINT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from core_ext.arrow cimport ArrowBuffers, hr_arrow_fault, refusal

from core_ext.arrow import ArrowColumn
from core_ext.window_plan import WindowPlan  # no-cython-lint: part of the interface


cdef extern from "hr_layout.h" nogil:
    ctypedef struct hr_column:
        uint8_t scalar
        uint8_t shape
        uint8_t element_bytes
        uint8_t is_variable
    uint32_t hr_load_u32(const uint8_t *p)


cdef extern from "hr_arrow.h" nogil:
    int hr_arrow_check(const hr_arrow *array, const hr_column *column, int64_t row_count, int64_t *row)


TIME_NONE = INT64_MIN


class CorruptMapError(ValueError):
    """Bytes that are no tile map of the plan: the message says which check failed."""


class Deltas(NamedTuple):
    """What events add to the stored maps of their groups."""

    maps: list
    late_events: int


class Merged(NamedTuple):
    """A full map, and what was left out of it."""

    map: bytes
    late_events: int
    replayed_tiles: int
    overtaken_tiles: int
    split_tiles: int


class Folded(NamedTuple):
    """One value per feature."""

    values: list
    losses: list
    is_exact: bool


class History(NamedTuple):
    """Values of every feature for every read."""

    columns: list
    losses: list


class MapHeader(NamedTuple):
    """Head of a checked map; TIME_NONE where there is no such time or offset."""

    newest_us: int
    cut_us: int
    covered_offset: int
    tile_counts: list


@cython.final
@cython.no_gc_clear  # what is held must outlive the writer and the fold, which read it when they close
cdef class Windows:
    def __cinit__(self, plan not None):
        self.plan = plan
        self.held = NativePlan(plan)
        self.native = &self.held.plan
        if hr_writer_open(&self.writer, self.native) != HR_WINDOW_OK:
            raise MemoryError
        if hr_fold_open(&self.folding, self.native) != HR_WINDOW_OK:
            raise MemoryError

    def __dealloc__(self):
        hr_writer_close(&self.writer)
        hr_fold_close(&self.folding)
        free(self.out.at)

    @property
    def result_types(self):
        """Element type of each feature, and whether it is a list."""
        return [
            (self.native.features[i].scalar, self.native.features[i].is_list != 0)
            for i in range(self.native.feature_count)
        ]

    cdef int check(self, int status, what) except -1:
        if status == HR_WINDOW_OK:
            return 0
        if status == HR_WINDOW_NO_MEMORY:
            raise MemoryError
        fault = (<bytes>hr_window_faults[status]).decode("ascii")
        if status == HR_WINDOW_BAD_TIME or status == HR_WINDOW_TOO_LARGE:
            raise ValueError(f"{what} {fault}")
        raise CorruptMapError(f"{what} {fault}")

    def update(
        self, columns not None, const int64_t[::1] event_us not None, const int64_t[::1] groups not None,
        int64_t group_count, *, const int64_t[::1] write_us=None, const uint32_t[::1] source_ids=None,
        const int32_t[::1] partitions=None, const int64_t[::1] offsets=None,
    ):
        """One delta per group, None where a group has no event."""
        cdef hr_window_events events
        cdef ArrowBuffers buffers = ArrowBuffers(columns)
        cdef hr_window_writer writer
        cdef hr_window_bytes out
        cdef uint64_t dropped = 0
        cdef uint64_t *starts = NULL
        cdef int status = HR_WINDOW_NO_MEMORY
        cdef Py_ssize_t g
        memset(&events, 0, sizeof(events))
        memset(&out, 0, sizeof(out))
        fill_events(&events, event_us, groups, write_us, source_ids, partitions, offsets)
        events.arrays = buffers.arrays
        check_columns(self.plan, buffers, events.count)
        self.events_of(&events, group_count)
        starts = <uint64_t *>calloc(group_count + 1, sizeof(uint64_t))
        try:
            with nogil:
                if hr_writer_open(&writer, self.native) == HR_WINDOW_OK and starts != NULL:
                    status = hr_window_update(&writer, &events, &out, starts, &dropped)
                hr_writer_close(&writer)
            self.check(status, "a delta")
            return Deltas(
                [
                    PyBytes_FromStringAndSize(<const char *>out.at + starts[g], <Py_ssize_t>(starts[g + 1] - starts[g]))
                    if starts[g + 1] > starts[g] else None
                    for g in range(group_count)
                ],
                dropped,
            )
        finally:
            free(out.at)
            free(starts)

    def history(
        self, columns not None, const int64_t[::1] event_us not None, const int64_t[::1] groups not None,
        const int64_t[::1] read_us not None, const int64_t[::1] read_groups not None, int64_t group_count, *,
        const int64_t[::1] write_us=None, const uint32_t[::1] source_ids=None, const int32_t[::1] partitions=None,
        const int64_t[::1] offsets=None, const int64_t[::1] available_us=None, int threads=1,
    ):
        """Exact values of every feature at any time of any group."""
        cdef hr_window_events events, reads
        cdef ArrowBuffers buffers = ArrowBuffers(columns)
        cdef hr_history history
        cdef int status
        cdef uint8_t **values = NULL
        cdef list held
        if not 1 <= threads <= HR_HISTORY_THREADS_MAX:
            raise ValueError(f"threads is {threads}: write 1 to {HR_HISTORY_THREADS_MAX}")
        memset(&events, 0, sizeof(events))
        memset(&reads, 0, sizeof(reads))
        fill_events(&events, event_us, groups, write_us, source_ids, partitions, offsets)
        fill_events(&reads, read_us, read_groups, None, None, None, None)
        if available_us is not None:
            same_rows(available_us.shape[0], event_us.shape[0], "available_us")
            events.available_us = &available_us[0] if event_us.shape[0] > 0 else NULL
        events.arrays = buffers.arrays
        check_columns(self.plan, buffers, events.count)
        self.events_of(&events, group_count)
        self.events_of(&reads, group_count)
        memset(&history, 0, sizeof(history))
        values = <uint8_t **>calloc(self.native.feature_count + 1, sizeof(uint8_t *))
        try:
            held = self.room(values, reads.count)
            with nogil:
                status = hr_history_open(
                    &history, self.native, &events, &reads, <uint32_t>buffers.count, <uint32_t>threads, values)
                if status == HR_WINDOW_OK:
                    status = hr_history_run(&history, <uint32_t>threads)
            self.check(status, "a value")
            return self.columns_of(history.columns, reads.count, held)
        finally:
            hr_history_close(&history)
            free(values)

    cdef int events_of(self, hr_window_events *events, int64_t group_count) except -1:
        cdef int64_t i
        if not 0 <= group_count < UINT32_MAX or not events.count < UINT32_MAX:
            raise ValueError(f"{events.count} events of {group_count} groups are too many for one call")
        events.group_count = group_count
        for i in range(events.count):
            if not 0 <= events.groups[i] < group_count:
                raise ValueError(f"event {i} is of group {events.groups[i]}, and there are {group_count}")
            if not hr_time_fits(events.event_us[i]):
                raise ValueError(f"event {i} has the time {events.event_us[i]}, beyond 2^60 us")
        return 0

    def apply(self, bytes base, bytes delta not None, int64_t offset):
        """Stored map, None for none, with a delta written at a log offset."""
        cdef hr_window_left left
        self.out.length = 0
        self.check(
            hr_window_apply(
                &self.writer, NULL if base is None else <const uint8_t *>PyBytes_AS_STRING(base),
                0 if base is None else len(base), <const uint8_t *>PyBytes_AS_STRING(delta), len(delta), offset,
                &self.out, &left),
            "the map or the delta",
        )
        return merged(&self.out, &left)

    def merge(self, bytes base, bytes other not None):
        """What two full maps of one row say together."""
        cdef hr_window_left left
        self.out.length = 0
        self.check(
            hr_window_merge(
                &self.writer, NULL if base is None else <const uint8_t *>PyBytes_AS_STRING(base),
                0 if base is None else len(base), <const uint8_t *>PyBytes_AS_STRING(other), len(other),
                &self.out, &left),
            "one of the maps",
        )
        return merged(&self.out, &left)

    def stamp(self, bytes delta not None, int64_t cut_us, int64_t covered_offset):
        """Full map of a batch, from the delta of all of its events."""
        self.out.length = 0
        self.check(
            hr_window_stamp(
                &self.writer, <const uint8_t *>PyBytes_AS_STRING(delta), len(delta), cut_us, covered_offset, &self.out),
            "the delta, or an event after the cut,",
        )
        return PyBytes_FromStringAndSize(<const char *>self.out.at, <Py_ssize_t>self.out.length)

    def fold(self, bytes map, int64_t read_us):
        """Values of a map at a read time; None is a row that is not stored."""
        cdef hr_window_fold fold
        cdef uint32_t i
        self.take(&fold)
        try:
            self.check(
                hr_window_fold_at(
                    &fold, NULL if map is None else <const uint8_t *>PyBytes_AS_STRING(map),
                    0 if map is None else len(map), read_us),
                "the map or the read time",
            )
            return Folded(
                [value_of(&fold, i) for i in range(self.native.feature_count)],
                [fold.values[i].lost for i in range(self.native.feature_count)],
                fold.is_exact != 0,
            )
        finally:
            self.give(&fold)

    cdef int take(self, hr_window_fold *fold) except -1:
        """The fold that is kept, or one more: another thread may come in wherever Python objects are made."""
        if self.folding.plan != NULL:
            fold[0] = self.folding
            memset(&self.folding, 0, sizeof(self.folding))
        elif hr_fold_open(fold, self.native) != HR_WINDOW_OK:
            hr_fold_close(fold)
            raise MemoryError
        return 0

    cdef int give(self, hr_window_fold *fold) except -1:
        if self.folding.plan == NULL:
            self.folding = fold[0]
        else:
            hr_fold_close(fold)
        return 0

    def fold_many(self, maps not None, const int64_t[::1] read_us not None):
        """Values of many maps, each at its own read time, as columns; and which of them are exact."""
        cdef Py_ssize_t r, count = len(maps)
        cdef int status
        cdef bytes one
        cdef list held
        cdef hr_window_fold fold
        cdef hr_history_column *columns = NULL
        cdef uint8_t **values = NULL
        if read_us.shape[0] != count:
            raise ValueError(f"{read_us.shape[0]} read times are given for {count} maps")
        self.take(&fold)
        try:
            values = <uint8_t **>calloc(self.native.feature_count + 1, sizeof(uint8_t *))
            held = self.room(values, count)
            columns = hr_history_columns(self.native, values, count)
            if columns == NULL:
                raise MemoryError
            exact = bytearray(count)
            for r in range(count):
                one = maps[r]
                status = hr_window_fold_at(
                    &fold, NULL if one is None else <const uint8_t *>PyBytes_AS_STRING(one),
                    0 if one is None else len(one), read_us[r])
                if status == HR_WINDOW_OK:
                    exact[r] = fold.is_exact
                    status = hr_history_keep(columns, &fold, r)
                if status != HR_WINDOW_OK:
                    self.check(status, f"map {r} or its read time")
            return self.columns_of(columns, count, held), bytes(exact)
        finally:
            self.give(&fold)
            hr_history_columns_free(self.native, columns)
            free(values)

    cdef list room(self, uint8_t **values, int64_t count):
        """Buffers for `count` values of every feature: numpy's, as the kernel gives those huge pages."""
        cdef uint32_t i
        cdef uint8_t[::1] view
        if values == NULL:
            raise MemoryError
        held = []
        for i in range(self.native.feature_count):
            held.append(np.empty(max(count * hr_history_width(&self.native.features[i]), 1), np.uint8))
            view = held[i]
            values[i] = &view[0]
        return held

    cdef object columns_of(self, const hr_history_column *columns, int64_t count, list held):
        cdef uint32_t i, j
        return History(
            [
                column_of(&columns[i], &self.native.features[i], count, held[i])
                for i in range(self.native.feature_count)
            ],
            [[columns[i].losses[j] for j in range(HR_LOST_CAUSES)] for i in range(self.native.feature_count)],
        )

    def check_map(self, bytes map not None):
        """Header after every check of every byte."""
        cdef uint32_t i
        cdef hr_window_map view
        view.sections = <hr_window_section *>calloc(self.native.section_count + 1, sizeof(hr_window_section))
        if view.sections == NULL:
            raise MemoryError
        try:
            self.check(
                hr_window_check(self.native, <const uint8_t *>PyBytes_AS_STRING(map), len(map), &view), "the map")
            counts = [view.sections[i].count for i in range(self.native.section_count)]
            return MapHeader(view.newest, view.cut, view.covered, counts)
        finally:
            free(view.sections)


cdef object value_of(const hr_window_fold *fold, uint32_t place):
    cdef const hr_window_value *value = &fold.values[place]
    cdef const hr_window_feature *feature = &fold.plan.features[place]
    if value.is_null:
        return None
    if feature.is_list:
        return elements(fold.heap.at + value.heap.start, value.heap.length, feature.scalar)
    if feature.scalar == HR_STRING or feature.scalar == HR_BYTES:
        return text(fold.heap.at + value.heap.start, value.heap.length, feature.scalar)
    if feature.scalar == HR_F32 or feature.scalar == HR_F64:
        return value.f
    return value.i != 0 if feature.scalar == HR_BOOL else value.i


cdef object merged(const hr_window_bytes *out, const hr_window_left *left):
    return Merged(
        PyBytes_FromStringAndSize(<const char *>out.at, <Py_ssize_t>out.length),
        left.late_events, left.replayed_tiles, left.overtaken_tiles, left.split_tiles,
    )


cdef object text(const uint8_t *at, Py_ssize_t length, uint8_t scalar):
    if scalar == HR_STRING:
        return PyUnicode_DecodeUTF8(<const char *>at, length, "strict")
    return PyBytes_FromStringAndSize(<const char *>at, length)


cdef list elements(const uint8_t *at, uint32_t length, uint8_t scalar):
    cdef uint32_t width = hr_scalar_bytes(scalar), i, count, end, last = 0
    cdef const uint8_t *texts
    if width > 0:
        return [element(at + i * width, scalar) for i in range(length // width)]
    if length == 0:
        return []
    count = hr_load_u32(at)
    texts = at + 4 + 4 * <size_t>count
    found = []
    for i in range(count):
        end = hr_load_u32(at + 4 + 4 * <size_t>i)
        found.append(text(texts + last, end - last, scalar))
        last = end
    return found


cdef object element(const uint8_t *at, uint8_t scalar):
    cdef float single
    cdef double wide
    cdef int64_t whole
    cdef int32_t narrow
    if scalar == HR_BOOL:
        return at[0] != 0
    if scalar == HR_F32:
        memcpy(&single, at, sizeof(single))
        return single
    if scalar == HR_F64:
        memcpy(&wide, at, sizeof(wide))
        return wide
    if hr_scalar_bytes(scalar) == 4:
        memcpy(&narrow, at, sizeof(narrow))
        return narrow
    memcpy(&whole, at, sizeof(whole))
    return whole


cdef object column_of(
    const hr_history_column *column, const hr_window_feature *feature, int64_t count, values,
):
    held = valid(column.nulls, count) if column.null_count > 0 else None
    is_text = feature.scalar == HR_STRING or feature.scalar == HR_BYTES
    if feature.is_list:
        return list_column(column, feature.scalar, is_text, count, held)
    if is_text:
        texts, offsets = gathered(column, count, 1)
        return ArrowColumn(count, 0, held, texts, offsets, None)
    return ArrowColumn(count, 0, held, packed(values[:count]) if feature.scalar == HR_BOOL else values, None, None)


cdef bytes valid(const uint8_t *nulls, int64_t count):
    """Validity bits."""
    cdef bytes validity = bytes((count + 7) // 8)
    cdef uint8_t *bits = <uint8_t *>PyBytes_AS_STRING(validity)
    cdef int64_t i
    for i in range(count):
        bits[i >> 3] |= (1 - nulls[i]) << (i & 7)
    return validity


cdef bytes packed(const uint8_t[::1] flags):
    """Bits of bytes that are 0 or 1."""
    cdef Py_ssize_t i, count = flags.shape[0]
    cdef bytes found = bytes((count + 7) // 8)
    cdef uint8_t *bits = <uint8_t *>PyBytes_AS_STRING(found)
    for i in range(count):
        bits[i >> 3] |= flags[i] << (i & 7)
    return found


cdef tuple gathered(const hr_history_column *column, int64_t count, uint32_t width):
    """Pieces of the heap in the order of the reads, and Arrow offsets in elements of `width` bytes."""
    cdef int64_t i
    cdef uint64_t total = 0
    cdef uint32_t end, length
    cdef bytes values, offsets
    cdef uint8_t *to
    cdef uint8_t *ends
    for i in range(count):
        total += hr_load_u32(column.values + 8 * i + 4)
    if total > INT32_MAX:
        raise OverflowError("the texts or lists of a feature exceed 2 GiB: ask for fewer reads at a time")
    values, offsets = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>total), bytes(4 * (count + 1))
    to, ends = <uint8_t *>PyBytes_AS_STRING(values), <uint8_t *>PyBytes_AS_STRING(offsets)
    total = 0
    for i in range(count):
        length = hr_load_u32(column.values + 8 * i + 4)
        if length > 0:
            memcpy(to + total, column.heap.at + hr_load_u32(column.values + 8 * i), length)
        total += length
        end = <uint32_t>(total // width)
        memcpy(ends + 4 * (i + 1), &end, 4)
    return values, offsets


cdef object list_column(const hr_history_column *column, uint8_t scalar, bint is_text, int64_t count, validity):
    cdef uint32_t width = hr_scalar_bytes(scalar), item_count, k, start, end
    cdef int64_t i, total = 0, used = 0
    cdef const uint8_t *at
    cdef const char *text_at
    cdef list texts = []
    cdef bytes offsets
    cdef list ends = [0]
    if not is_text:
        values, starts = gathered(column, count, width)
        items = len(values) // width
        child = ArrowColumn(items, 0, None, packed(values) if scalar == HR_BOOL else values, None, None)
        return ArrowColumn(count, 0, validity, None, starts, child)
    offsets = bytes(4 * (count + 1))
    for i in range(count):
        if hr_load_u32(column.values + 8 * i + 4) > 0:
            at = column.heap.at + hr_load_u32(column.values + 8 * i)
            item_count = hr_load_u32(at)
            start = 0
            for k in range(item_count):
                end = hr_load_u32(at + 4 + 4 * <size_t>k)
                text_at = <const char *>at + 4 + 4 * <size_t>item_count + start
                texts.append(PyBytes_FromStringAndSize(text_at, end - start))
                used += end - start
                ends.append(used)
                start = end
            total += item_count
        if max(used, total) > INT32_MAX:
            raise OverflowError("the texts of a feature exceed 2 GiB: ask for fewer reads at a time")
        end = <uint32_t>total
        memcpy(PyBytes_AS_STRING(offsets) + 4 * (i + 1), &end, 4)
    child = ArrowColumn(total, 0, None, b"".join(texts), array("i", ends).tobytes(), None)
    return ArrowColumn(count, 0, validity, None, offsets, child)


cdef int fill_events(
    hr_window_events *events, const int64_t[::1] event_us, const int64_t[::1] groups, const int64_t[::1] write_us,
    const uint32_t[::1] source_ids, const int32_t[::1] partitions, const int64_t[::1] offsets,
) except -1:
    cdef Py_ssize_t count = event_us.shape[0]
    events.count = count
    same_rows(groups.shape[0], count, "groups")
    if write_us is not None:
        same_rows(write_us.shape[0], count, "write_us")
    if source_ids is not None:
        same_rows(source_ids.shape[0], count, "source_ids")
    if partitions is not None:
        same_rows(partitions.shape[0], count, "partitions")
    if offsets is not None:
        same_rows(offsets.shape[0], count, "offsets")
    if count == 0:
        return 0
    events.event_us = &event_us[0]
    events.groups = &groups[0]
    events.write_us = NULL if write_us is None else &write_us[0]
    events.source_ids = NULL if source_ids is None else &source_ids[0]
    events.partitions = NULL if partitions is None else &partitions[0]
    events.offsets = NULL if offsets is None else &offsets[0]
    return 0


cdef int same_rows(Py_ssize_t found, Py_ssize_t wanted, name) except -1:
    if found != wanted:
        raise ValueError(f"{name} holds {found} rows, and there are {wanted} events")
    return 0


cdef int check_columns(plan, ArrowBuffers buffers, int64_t row_count) except -1:
    cdef hr_column column
    cdef hr_arrow_fault fault
    cdef Py_ssize_t i
    if buffers.count != len(plan.input_scalars):
        raise ValueError(f"{buffers.count} columns are given for the {len(plan.input_scalars)} inputs")
    for i in range(buffers.count):
        memset(&column, 0, sizeof(column))
        column.scalar = plan.input_scalars[i]
        column.element_bytes = <uint8_t>hr_scalar_bytes(column.scalar)
        column.is_variable = column.element_bytes == 0
        fault.column = i
        fault.status = hr_arrow_check(&buffers.arrays[i], &column, row_count, &fault.row)
        if fault.status != HR_ARROW_OK:
            raise refusal(fault)
    return 0
