cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t


cdef extern from "hr_pages.h" nogil:
    enum:
        HR_PAGES_OK
        HR_PAGES_OTHER
        HR_PAGES_NO_MEMORY
        HR_CODEC_NONE
        HR_CODEC_SNAPPY
        HR_CODEC_ZSTD

    ctypedef int (*hr_page_inflate)(
        void *context, const uint8_t *block, size_t in_bytes, uint8_t *out, size_t out_bytes) noexcept

    ctypedef struct hr_pages:
        const uint8_t *at
        const uint8_t *end
        int codec
        int is_nullable
        uint32_t width
        int64_t row_count
        hr_page_inflate inflate
        void *context

    ctypedef struct hr_page_wanted:
        const uint32_t *sources
        const uint32_t *targets
        int64_t count
        uint8_t *values
        uint8_t *nulls

    int hr_pages_take(hr_pages *pages, const hr_page_wanted *wanted)
    void hr_pages_close(hr_pages *pages)


@cython.final
cdef class Places:
    cdef uint32_t *sources  # and as many targets behind them
    cdef readonly Py_ssize_t count
    cdef readonly int64_t row_count
    cdef readonly int64_t slot_count


@cython.final
cdef class PageReader:
    cdef hr_pages pages
    cdef object inflate

    cdef bint run(self, kind, const uint8_t[::1] chunk, const hr_page_wanted *wanted) except -1
