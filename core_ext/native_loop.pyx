"""A gRPC server of native threads: reads are answered without the interpreter, everything else by a server behind."""

from cpython.bytes cimport PyBytes_AS_STRING
from cython cimport final
from libc.stdlib cimport malloc
from libc.string cimport memcpy

LOOP_COUNT_MAX = HR_H2_LOOPS_MAX
CONNECTION_COUNT_MAX = HR_H2_CONNECTIONS_MAX

cdef enum:
    BACK_NAME_BYTES_MAX = 63  # of hr_server, with its end
    DIGEST_BYTES = 32


@final
cdef class NativeServer:
    def __cinit__(self, RequestCore core not None, listener, bytes back_name not None, uint32_t loop_count,
                  uint32_t sample_one_in=0, uint32_t connection_count_max=HR_H2_CONNECTIONS_MAX):
        if not 1 <= loop_count <= HR_H2_LOOPS_MAX:
            raise ValueError(f"a server has 1 to {HR_H2_LOOPS_MAX} loops, not {loop_count}")
        if not 1 <= connection_count_max <= HR_H2_CONNECTIONS_MAX:
            raise ValueError(f"a server takes 1 to {HR_H2_CONNECTIONS_MAX} connections, not {connection_count_max}")
        if not 1 <= len(back_name) <= BACK_NAME_BYTES_MAX or b"\0" in back_name:
            raise ValueError(f"an abstract socket's name has 1 to {BACK_NAME_BYTES_MAX} bytes and no zero among them")
        listener.setblocking(False)
        self.core = core
        self.listener = listener
        self.server.table = core.table.table
        self.server.published = &core.live
        self.server.listener = listener.fileno()
        self.server.sample_one_in = sample_one_in
        self.server.connections_max = connection_count_max
        memcpy(self.server.back_name, PyBytes_AS_STRING(back_name), len(back_name))
        if hr_lock_init(&self.server.access_lock) != 0 or hr_server_build(&self.server, loop_count) != HR_OK:
            raise MemoryError(f"no memory or no descriptors for {loop_count} loops")

    def __dealloc__(self):
        with nogil:
            hr_server_stop(&self.server)

    def start(self):
        if self.is_started:
            raise ValueError("the loops run already")
        self.is_started = True
        if hr_server_start(&self.server) != 0:
            self.stop()
            raise OSError("the system has no thread left for a loop")

    def allow_all(self):
        with nogil:
            hr_server_set_access(&self.server, 1, NULL, 0)

    def allow(self, digests):
        cdef uint8_t (*copied)[DIGEST_BYTES]
        cdef list held = list(digests)
        cdef uint32_t at = 0, count = <uint32_t>len(held)
        cdef bytes digest
        for digest in held:
            if digest is None or len(digest) != DIGEST_BYTES:
                raise ValueError(f"a digest has {DIGEST_BYTES} bytes")
        copied = <uint8_t (*)[DIGEST_BYTES]>malloc((len(held) + 1) * DIGEST_BYTES)
        if copied == NULL:
            raise MemoryError()
        for digest in held:
            memcpy(copied[at], PyBytes_AS_STRING(digest), DIGEST_BYTES)
            at += 1
        with nogil:
            hr_server_set_access(&self.server, 0, copied, count)

    def connection_count(self):
        return self.server.connection_count

    def drain(self):
        hr_server_drain(&self.server)

    def stop(self):
        with nogil:
            hr_server_stop(&self.server)

    def counts(self):
        cdef hr_counts total
        hr_server_counts(&self.server, &total)
        return {
            "answered": total.answered,
            "seconds_ns": total.seconds_ns,
            "buckets": [total.buckets[i] for i in range(HR_H2_BUCKETS)],
            "forwarded": total.forwarded,
            "connections": total.connections,
            "refused_connections": total.refused_connections,
            "abusive_connections": total.abusive_connections,
            "timed_out_connections": total.timed_out_connections,
        }
