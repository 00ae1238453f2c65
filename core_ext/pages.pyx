"""Values of Parquet column chunks, taken out of their pages without decoding the rows that nobody wants."""

from typing import NamedTuple

import cython
from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport INT32_MAX, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset


CODECS = {"UNCOMPRESSED": HR_CODEC_NONE, "SNAPPY": HR_CODEC_SNAPPY, "ZSTD": HR_CODEC_ZSTD}
PLACES_MAX = INT32_MAX
cdef tuple KNOWN_CODECS = (HR_CODEC_NONE, HR_CODEC_SNAPPY, HR_CODEC_ZSTD)


class ChunkKind(NamedTuple):
    """A column chunk: bytes of a value, one of CODECS, whether its column may hold nulls, and its rows."""

    width: int
    codec: int
    is_nullable: bool
    row_count: int


cdef int inflated(
    void *context, const uint8_t *block, size_t in_bytes, uint8_t *out, size_t out_bytes,
) noexcept with gil:
    """Calls the decompressor of a reader; what it refuses is damaged, and Arrow will say how."""
    cdef bytes plain
    try:
        plain = (<object>context)(PyMemoryView_FromMemory(<char *>block, in_bytes, PyBUF_READ), out_bytes)
        if <size_t>len(plain) != out_bytes:
            return 0
    except Exception:
        return 0
    memcpy(out, <const char *>plain, out_bytes)
    return 1


@cython.final
cdef class Places:
    """Ascending rows of a chunk and the slots that their values go to, checked once for all columns."""

    def __cinit__(
        self, const int64_t[::1] sources not None, const int64_t[::1] targets not None, int64_t row_count,
        int64_t slot_count,
    ):
        cdef Py_ssize_t i, count = sources.shape[0], wrong = -1
        cdef int64_t before = 0
        if targets.shape[0] != count:
            raise ValueError(f"{count} sources and {targets.shape[0]} targets do not fit together")
        if not 0 <= row_count <= PLACES_MAX or not 0 <= slot_count <= PLACES_MAX:
            raise ValueError(f"{row_count} rows or {slot_count} slots are none of 0 to {PLACES_MAX}")
        self.count, self.row_count, self.slot_count = count, row_count, slot_count
        self.sources = <uint32_t *>malloc((2 * count + 1) * sizeof(uint32_t))
        if self.sources == NULL:
            raise MemoryError
        with nogil:
            for i in range(count):
                if sources[i] < before or sources[i] >= row_count or targets[i] < 0 or targets[i] >= slot_count:
                    wrong = i
                    break
                before = sources[i]
                self.sources[i] = <uint32_t>sources[i]
                self.sources[count + i] = <uint32_t>targets[i]
        if wrong >= 0:
            raise ValueError(f"source {sources[wrong]} or target {targets[wrong]} at {wrong} is out of range or order")

    def __dealloc__(self):
        free(self.sources)


@cython.final
cdef class PageReader:
    """Reads one chunk at a time and keeps the memory it needs for that; for one thread."""

    def __cinit__(self, inflate=None):
        memset(&self.pages, 0, sizeof(self.pages))
        self.inflate = inflate
        if inflate is not None:
            self.pages.inflate = inflated
            self.pages.context = <void *>inflate

    def __dealloc__(self):
        hr_pages_close(&self.pages)

    def take(
        self, kind not None, const uint8_t[::1] chunk not None, Places places not None,
        uint8_t[::1] values not None, uint8_t[::1] nulls not None,
    ):
        """Copies the value at every source into the slot of its target; `nulls` gets a 1 where it is null."""
        cdef hr_page_wanted wanted
        if places.row_count > kind.row_count or places.slot_count != nulls.shape[0]:
            raise ValueError(
                f"places of {places.row_count} rows in {places.slot_count} slots are given for {kind.row_count} rows "
                f"in {nulls.shape[0]} slots")
        if values.shape[0] != places.slot_count * <int64_t>kind.width:
            raise ValueError(f"{values.shape[0]} bytes are no {places.slot_count} slots of {kind.width}")
        if places.count == 0:
            return True
        wanted.sources = places.sources
        wanted.targets = places.sources + places.count
        wanted.count = places.count
        wanted.values = &values[0]
        wanted.nulls = &nulls[0]
        return self.run(kind, chunk, &wanted)

    def read(self, kind not None, const uint8_t[::1] chunk not None, uint8_t[::1] values not None):
        """All values of a chunk without nulls."""
        cdef hr_page_wanted wanted
        if values.shape[0] != kind.row_count * kind.width:
            raise ValueError(f"{values.shape[0]} bytes are no room for {kind.row_count} values of {kind.width}")
        if kind.row_count == 0:
            return True
        wanted.sources = NULL
        wanted.targets = NULL
        wanted.count = kind.row_count
        wanted.values = &values[0]
        wanted.nulls = NULL
        return self.run(kind, chunk, &wanted)

    cdef bint run(self, kind, const uint8_t[::1] chunk, const hr_page_wanted *wanted) except -1:
        cdef int status
        if kind.width not in (4, 8) or kind.codec not in KNOWN_CODECS or kind.row_count < 0:
            raise ValueError(f"{kind} is no kind of column chunk that is taken here")
        if chunk.shape[0] == 0 or (kind.codec == HR_CODEC_ZSTD and self.inflate is None):
            return False
        self.pages.codec = kind.codec
        self.pages.is_nullable = kind.is_nullable
        self.pages.width = kind.width
        self.pages.row_count = kind.row_count
        self.pages.at = &chunk[0]
        self.pages.end = self.pages.at + chunk.shape[0]
        with nogil:
            status = hr_pages_take(&self.pages, wanted)
        self.pages.at = self.pages.end = NULL
        if status == HR_PAGES_NO_MEMORY:
            raise MemoryError
        return status == HR_PAGES_OK
