"""Rows of views that are computed when read: windows over a tile map, and derived expressions."""

from typing import NamedTuple

import cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from core_ext.expressions cimport Program
from core_ext.row_codec cimport Schema
from core_ext.window_kernel cimport hr_window_feature
from core_ext.windows cimport Windows, hr_window_section

from core_ext.row_codec import CorruptRowError
from core_ext.windows import CorruptMapError


cdef extern from "hr_computed.h" nogil:
    enum:
        HR_ROW_FLAGS
        HR_ROW_TILES
        HR_ROW_CRC_BYTES
        HR_FLAG_TOMBSTONE
        HR_FLAG_HAS_TILES
        HR_ROW_OK
        HR_SINGLE
        HR_VARIABLE
    uint16_t hr_load_u16(const uint8_t *at)
    uint32_t hr_load_u32(const uint8_t *at)
    void hr_store_u32(uint8_t *at, uint32_t value)
    uint32_t hr_crc32c(uint32_t crc, const uint8_t *data, size_t length)
    int hr_row_check(const uint8_t *row, size_t length)
    const char *hr_row_fault(int status)
    int hr_order_compare(const uint8_t *a, const uint8_t *b)
    int hr_row_covered(
        const hr_computed *view, const uint8_t *row, hr_window_section *sections, int64_t *covered)


FROM_LATEST = HR_FROM_LATEST
FROM_WINDOW = HR_FROM_WINDOW
FROM_DERIVED = HR_FROM_DERIVED


class MergedRow(NamedTuple):
    """A stored row after a delta."""

    row: bytes
    late_events: int
    is_stale: bool


class ReplacedRow(NamedTuple):
    """What stands after a row of a batch."""

    row: bytes
    is_stale: bool
    is_deferred: bool


@cython.final
cdef class ComputedView:
    def __cinit__(self, uint32_t schema_id, columns, sources, Windows windows, programs):
        if len(columns) != len(sources):
            raise ValueError(f"{len(columns)} columns and {len(sources)} sources: give one source per column")
        self.answered = Schema(schema_id, columns)
        latest = [column for column, (where, _) in zip(columns, sources, strict=True) if where == HR_FROM_LATEST]
        self.stored = Schema(schema_id, latest)
        self.windows = windows
        self.view.windows = NULL if windows is None else windows.native
        self.view.schema_id = schema_id
        self.view.columns, self.view.column_count = self.answered.columns, self.answered.column_count
        self.view.stored, self.view.stored_count = self.stored.columns, self.stored.column_count
        self.view.fixed_bytes = self.answered.fixed_bytes
        self.view.stored_fixed_bytes = self.stored.fixed_bytes
        self.set_programs(programs)
        self.set_sources(sources, columns)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(HR_COMPUTED_IDLE_MAX):
            hr_computed_reader_close(&self.view, <hr_computed_reader *>self.view.idle[i])
        if self.view.programs != NULL:
            for i in range(self.view.program_count):
                free(self.view.programs[i].inputs)
        free(self.view.programs)
        free(self.view.sources)

    cdef int set_programs(self, programs) except -1:
        cdef Program program
        cdef hr_computed_program *made
        self.programs = tuple(program for program, _ in programs)
        self.view.programs = <hr_computed_program *>calloc(len(programs) + 1, sizeof(hr_computed_program))
        if self.view.programs == NULL:
            raise MemoryError
        for program, inputs in programs:
            made = &self.view.programs[self.view.program_count]
            if len(inputs) != len(program.input_types):
                raise ValueError(f"a program reads {len(program.input_types)} columns, and {len(inputs)} are given")
            made.program = &program.program
            made.inputs = <uint32_t *>calloc(len(inputs) + 1, sizeof(uint32_t))
            if made.inputs == NULL:
                raise MemoryError
            self.view.program_count += 1
            for place, column in enumerate(inputs):
                if not 0 <= column < self.view.column_count:
                    raise ValueError(f"a program reads column {column}, and there are {self.view.column_count}")
                kind = self.view.columns[column].scalar, self.view.columns[column].shape
                if kind != (program.input_types[place], HR_SINGLE):
                    raise ValueError(f"a program reads column {column} as another type than its own")
                made.inputs[place] = column
        return 0

    cdef int set_sources(self, sources, columns) except -1:
        cdef const hr_window_feature *feature
        cdef uint32_t latest = 0, i, features = 0 if self.windows is None else self.windows.native.feature_count
        self.view.sources = <hr_computed_source *>calloc(len(sources) + 1, sizeof(hr_computed_source))
        if self.view.sources == NULL:
            raise MemoryError
        for i in range(self.view.column_count):
            where, place = sources[i]
            self.view.sources[i].from_ = where
            self.view.sources[i].place = place
            if where == HR_FROM_LATEST:
                if place != latest:
                    raise ValueError(f"column {i} is stored column {place}, where {latest} comes next")
                latest += 1
            elif where == HR_FROM_WINDOW:
                if not place < features:
                    raise ValueError(f"column {i} is window {place}, and the plan has {features}")
                feature = &self.windows.native.features[place]
                wanted = feature.scalar, HR_VARIABLE if feature.is_list else HR_SINGLE
                if wanted != (self.view.columns[i].scalar, self.view.columns[i].shape):
                    raise ValueError(f"column {i} is of another type than its window")
            elif where == HR_FROM_DERIVED:
                if not place < self.view.program_count:
                    raise ValueError(f"column {i} is program {place}, and there are {self.view.program_count}")
                kind = self.view.columns[i].scalar, self.view.columns[i].shape
                if (self.programs[place].result_type, HR_SINGLE) != kind:
                    raise ValueError(f"column {i} is of another type than its program")
            else:
                raise ValueError(f"column {i} comes from {where}, which is no source")
        for i in range(self.view.program_count):
            for place in range(len(self.programs[i].input_types)):
                if self.view.sources[self.view.programs[i].inputs[place]].from_ == HR_FROM_DERIVED:
                    raise ValueError(f"program {i} reads a derived column")
        return 0

    cdef bint is_computed(self, uint32_t column):
        # A value of its own where no row is stored.
        return self.view.windows != NULL and self.view.sources[column].from_ != HR_FROM_LATEST

    def with_tiles(self, bytes latest not None, bytes tile_map not None):
        cdef const uint8_t *row = checked(latest)
        cdef const uint8_t *tiles = <const uint8_t *>PyBytes_AS_STRING(tile_map)
        cdef uint32_t length = hr_tiled_bytes(row, len(tile_map))
        if length == 0:
            raise ValueError(f"a tile map of {len(tile_map)} bytes makes the row longer than a row may be")
        made = PyBytes_FromStringAndSize(NULL, length)
        hr_tiled_write(row, tiles, len(tile_map), length, <uint8_t *>PyBytes_AS_STRING(made))
        return made

    def merge(self, bytes stored, bytes delta not None, int64_t offset):
        cdef const uint8_t *new = checked(delta)
        cdef const uint8_t *old = checked(stored) if stored is not None else NULL
        head, base = delta, None
        if old != NULL:
            is_erased = hr_load_u16(old + HR_ROW_FLAGS) & HR_FLAG_TOMBSTONE
            if hr_order_compare(old, new) > 0:
                if is_erased:
                    return MergedRow(stored, 0, True)
                head = stored
            if not is_erased:
                base = tiles_of(stored, old)
        if self.windows is None:
            return MergedRow(head, 0, head is stored)
        merged = self.windows.apply(base, tiles_of(delta, new), offset)
        return MergedRow(self.with_tiles(head, merged.map), merged.late_events, False)

    def replace(self, bytes stored, bytes row not None, int64_t covered):
        cdef const uint8_t *new = checked(row)
        cdef const uint8_t *old
        cdef uint16_t flags
        if stored is None:
            return ReplacedRow(row, False, False)
        old = checked(stored)
        flags = hr_load_u16(old + HR_ROW_FLAGS)
        is_older = hr_order_compare(old, new) > 0
        if flags & HR_FLAG_TOMBSTONE or self.windows is None:
            is_older = is_older or stored == row
            return ReplacedRow(stored if is_older else row, is_older, False)
        if self.covered(stored) > covered:
            return ReplacedRow(stored, False, True)
        if hr_load_u16(new + HR_ROW_FLAGS) & HR_FLAG_TOMBSTONE:
            return ReplacedRow(stored if is_older else row, is_older, False)
        made = self.with_tiles(stored, tiles_of(row, new)) if is_older else row
        return ReplacedRow(made, made == stored, False)

    def check(self, bytes row not None):
        cdef const uint8_t *data = checked(row)
        tiles = tiles_of(row, data)
        if self.windows is None or hr_load_u16(data + HR_ROW_FLAGS) & HR_FLAG_TOMBSTONE:
            if tiles is not None:
                raise CorruptRowError("it has tiles, which such a row has not")
            return
        if tiles is None:
            raise CorruptRowError("it has no tiles, and its view has windows")
        self.windows.check_map(tiles)
        self.covered(row)

    def covered(self, bytes row not None):
        cdef const uint8_t *data = checked(row)
        cdef hr_window_section *sections
        cdef int64_t found
        if self.windows is None:
            raise ValueError("a view without windows keeps no tiles")
        sections = <hr_window_section *>calloc(self.windows.native.section_count + 1, sizeof(hr_window_section))
        if sections == NULL:
            raise MemoryError
        status = hr_row_covered(&self.view, data, sections, &found)
        free(sections)
        if status != HR_COMPUTED_OK:
            raise CorruptMapError("the tiles of a row are damaged, or of another plan")
        return found

    def image(self, bytes row, int64_t read_us):
        cdef const uint8_t *data = checked(row) if row is not None else NULL
        cdef hr_computed_reader *reader
        cdef uint64_t length = UINT64_MAX
        cdef uint8_t *to
        cdef int status
        if data != NULL and hr_load_u16(data + HR_ROW_FLAGS) & HR_FLAG_TOMBSTONE:
            data = NULL
        reader = hr_computed_take(&self.view)
        if reader == NULL:
            raise MemoryError
        try:
            status = hr_computed_cells(&self.view, reader, data, read_us)
            if status == HR_COMPUTED_NO_MEMORY:
                raise MemoryError
            if status == HR_COMPUTED_OK:
                length = hr_image_bytes(&self.view, reader)
            if length == UINT64_MAX:
                raise CorruptMapError("the row cannot be read: its tile map is damaged, or its values fit no row")
            made = PyBytes_FromStringAndSize(NULL, length)
            to = <uint8_t *>PyBytes_AS_STRING(made)
            hr_image_write(&self.view, reader, data, length, to)
            hr_store_u32(to + length - HR_ROW_CRC_BYTES, hr_crc32c(0, to, length - HR_ROW_CRC_BYTES))
            return made
        finally:
            hr_computed_give_back(&self.view, reader)


cdef const uint8_t *checked(bytes row) except NULL:
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(row)
    cdef int status = hr_row_check(data, len(row))
    if status != HR_ROW_OK:
        raise CorruptRowError((<bytes>hr_row_fault(status)).decode())
    return data


cdef bytes tiles_of(bytes row, const uint8_t *data):
    cdef uint32_t start = hr_load_u32(data + HR_ROW_TILES)
    if start == 0:
        return None
    return row[start:len(row) - HR_ROW_CRC_BYTES]
