"""A sample of the answered reads: taken where they are answered, handed to the one thread that writes it down."""

import cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free

cdef extern from "hr_served.h" nogil:
    enum:
        HR_OK
        HR_SERVED_HEAD_BYTES
        HR_SERVED_TRACE_BYTES
    int64_t HR_SERVED_UNKNOWN

HEAD_BYTES = HR_SERVED_HEAD_BYTES
TRACE_BYTES = HR_SERVED_TRACE_BYTES
UNKNOWN_TIME_US = HR_SERVED_UNKNOWN

cdef enum:
    SHARDS_MAX = 65536

cdef object NS_PER_S = 1_000_000_000
cdef object HASHES = 1 << 64


def threshold_of(double share):
    """Greatest hash that is in a sample of this share; 0 takes none."""
    if not 0 <= share <= 1:
        raise ValueError(f"a share is 0 to 1, not {share}")
    return min(int(share * HASHES), HASHES - 1)


def is_sampled(double share, bytes request not None, int64_t read_time_us):
    """Whether a read is in a sample of this share."""
    return bool(hr_served_is_chosen(threshold_of(share), <const uint8_t *>PyBytes_AS_STRING(request),
                                    PyBytes_GET_SIZE(request), read_time_us))


@cython.final
cdef class ServedRing:
    def __cinit__(self, double share, size_t bytes_max, uint32_t shard_count):
        if not 1 <= shard_count <= SHARDS_MAX:
            raise ValueError(f"a store has 1 to {SHARDS_MAX} shards, not {shard_count}")
        if hr_served_begin(&self.served, threshold_of(share), bytes_max, shard_count) != HR_OK:
            raise MemoryError()

    def __dealloc__(self):
        hr_served_end(&self.served)

    def mark(self, uint32_t shard, int64_t epoch, int64_t offset):
        if shard >= self.served.shard_count:
            raise ValueError(f"there is no shard {shard} among {self.served.shard_count}")
        hr_served_mark(&self.served, shard, epoch, offset)

    def take(self, double timeout_s):
        cdef hr_served_record *record
        cdef hr_served_record *following
        cdef int64_t timeout_ns = int(timeout_s * NS_PER_S)
        cdef list taken = []
        with nogil:
            record = hr_served_take(&self.served, timeout_ns)
        while record != NULL:
            following = record.next
            taken.append(PyBytes_FromStringAndSize(<const char *>record.data, record.bytes))
            hr_served_release(&self.served, record.bytes)
            free(record)
            record = following
        return taken

    def close(self):
        hr_served_close(&self.served)

    def counts(self):
        return {"sampled": self.served.sampled, "dropped": self.served.dropped, "held_bytes": self.served.held_bytes}
