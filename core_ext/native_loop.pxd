# The server's data: see native/hr_h2.h for who may touch what.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from core_ext.request_core cimport RequestCore, hr_published
from core_ext.row_table cimport hr_table

cdef extern from "hr_h2_server.h" nogil:
    enum:
        HR_OK
        HR_H2_LOOPS_MAX
        HR_H2_CONNECTIONS_MAX
        HR_H2_BUCKETS

    ctypedef struct pthread_rwlock_t:
        pass

    ctypedef struct hr_counts:
        uint64_t answered, seconds_ns
        uint64_t buckets[42]
        uint64_t forwarded, connections, refused_connections, abusive_connections, timed_out_connections

    ctypedef struct hr_server:
        hr_table *table
        hr_published *published
        pthread_rwlock_t access_lock
        uint32_t loop_count, sample_one_in, connections_max, connection_count
        int listener
        char back_name[64]

    int hr_lock_init(pthread_rwlock_t *lock)
    int hr_server_build(hr_server *server, uint32_t loop_count)
    int hr_server_start(hr_server *server)
    void hr_server_drain(hr_server *server)
    void hr_server_stop(hr_server *server)
    void hr_server_set_access(hr_server *server, int is_open, uint8_t (*digests)[32], uint32_t count)
    void hr_server_counts(const hr_server *server, hr_counts *total)


cdef class NativeServer:
    cdef hr_server server
    cdef RequestCore core      # owns the table and the plans that the loops read
    cdef object listener       # the socket, which must stay open while the loops accept
    cdef bint is_started
