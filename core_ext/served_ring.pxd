# The sample of answered reads as C sees it: native/hr_served.h.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "hr_served.h" nogil:
    ctypedef struct hr_served_record:
        hr_served_record *next
        size_t bytes
        uint8_t *data

    ctypedef struct hr_served:
        uint64_t threshold, sampled, dropped
        size_t held_bytes, bytes_max
        uint32_t shard_count
        int64_t *applied

    ctypedef struct hr_served_draft:
        hr_served *served

    int hr_served_begin(hr_served *served, uint64_t threshold, size_t bytes_max, uint32_t shard_count)
    void hr_served_end(hr_served *served)
    void hr_served_mark(hr_served *served, uint32_t shard, int64_t epoch, int64_t offset)
    void hr_served_marks(const hr_served *served, int64_t *out)
    int hr_served_is_chosen(uint64_t threshold, const uint8_t *request, size_t length, int64_t read_us)
    void hr_served_choose(hr_served *served, hr_served_draft *draft, const int64_t *applied, const uint8_t *request,
                          size_t length, int64_t read_us)
    void hr_served_finish(hr_served_draft *draft, const uint8_t *answer)
    hr_served_record *hr_served_take(hr_served *served, int64_t timeout_ns)
    void hr_served_release(hr_served *served, size_t length)
    void hr_served_close(hr_served *served)


cdef class ServedRing:
    cdef hr_served served
