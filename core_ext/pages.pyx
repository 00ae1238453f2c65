"""Values of Parquet column chunks, taken out of their pages without decoding the rows that nobody wants."""

from typing import NamedTuple

import cython
from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset


CODECS = {"UNCOMPRESSED": HR_CODEC_NONE, "SNAPPY": HR_CODEC_SNAPPY, "ZSTD": HR_CODEC_ZSTD}
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
        self, kind not None, const uint8_t[::1] chunk not None, const int64_t[::1] sources not None,
        const int64_t[::1] targets not None, uint8_t[::1] values not None, uint8_t[::1] nulls not None,
    ):
        """Copies value sources[i] of a chunk into slot targets[i] of `values`; `nulls` gets a 1 where it is null."""
        cdef hr_page_wanted wanted
        cdef Py_ssize_t i, count = sources.shape[0], slot_count = nulls.shape[0], wrong = -1
        cdef int64_t before = 0, row_count = kind.row_count
        if targets.shape[0] != count or values.shape[0] != slot_count * <int64_t>kind.width:
            raise ValueError(
                f"{count} sources, {targets.shape[0]} targets and {values.shape[0]} bytes do not fit together")
        if count == 0:
            return True
        with nogil:
            for i in range(count):
                if sources[i] < before or sources[i] >= row_count or targets[i] < 0 or targets[i] >= slot_count:
                    wrong = i
                    break
                before = sources[i]
        if wrong >= 0:
            raise ValueError(f"source {sources[wrong]} or target {targets[wrong]} at {wrong} is out of range or order")
        wanted.sources = &sources[0]
        wanted.targets = &targets[0]
        wanted.count = count
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
