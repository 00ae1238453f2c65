# The server's data: see native/hr_h2.h for who may touch what.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from core_ext.request_core cimport RequestCore, hr_published
from core_ext.row_table cimport hr_table
from core_ext.served_ring cimport hr_served

cdef extern from "hr_h2_server.h" nogil:
    enum:
        HR_OK
        HR_H2_LOOPS_MAX
        HR_H2_CONNECTIONS_MAX
        HR_H2_BUCKETS
        HR_H2_TURN_MAX
        HR_H2_IDLE_S
        HR_H2_MEMORY_BYTES
        HR_H2_CREDIT_BYTES
        HR_H2_MEMORY_BYTES_MIN
        HR_TLS_SECRET_BYTES

    ctypedef struct hr_lock:
        pass

    ctypedef struct SSL_CTX:
        pass

    ctypedef struct hr_span:
        const uint8_t *at
        const uint8_t *end

    ctypedef enum hr_credential:
        HR_CREDENTIAL_TOKEN
        HR_CREDENTIAL_CERTIFICATE
        HR_CREDENTIALS

    ctypedef enum hr_permission:
        HR_PERMISSION_READ
        HR_PERMISSION_PEER
        HR_PERMISSIONS

    ctypedef struct hr_calls:
        uint64_t answered, seconds_ns
        uint64_t buckets[42]

    ctypedef struct hr_counts:
        hr_calls features, rows, turns
        uint64_t missed, full, forwarded, connections
        uint64_t refused_connections, abusive_connections, timed_out_connections, idle_connections
        uint64_t memory_refused, greedy_connections
        uint64_t handshakes, failed_handshakes, evicted_handshakes

    ctypedef struct hr_job:
        int64_t begin_ns, deadline_ns
        size_t request_bytes, authorization_bytes, identity_bytes
        uint8_t *identity
        uint8_t *data

    ctypedef struct hr_misses:
        pass

    ctypedef struct hr_server:
        hr_table *table
        hr_published *published
        hr_served *served
        hr_lock access_lock
        uint32_t loop_count, sample_one_in, connections_max, idle_s, connection_count
        int listener, is_health_open
        char back_name[64]
        char secret[65]
        uint64_t memory_max
        hr_misses misses
        const char *full_message
        const char *full_details
        const char *memory_message
        const char *memory_details

    int hr_lock_init(hr_lock *lock)
    int hr_server_build(hr_server *server, uint32_t loop_count)
    int hr_server_start(hr_server *server)
    void hr_server_drain(hr_server *server)
    void hr_server_stop(hr_server *server)
    void hr_server_set_access(hr_server *server, hr_credential credential, hr_permission permission, int is_open,
                              uint8_t (*digests)[32], uint32_t count)
    int hr_server_set_tls(hr_server *server, SSL_CTX *context)
    SSL_CTX *hr_tls_context(hr_span chain, hr_span key, hr_span clients, char *problem, size_t room)
    int hr_server_set_health(hr_server *server, const char *name, uint32_t name_bytes, uint8_t state)
    uint64_t hr_memory_bytes(const hr_server *server)
    uint32_t hr_server_streams(hr_server *server)
    int hr_misses_begin(hr_misses *misses)
    int hr_misses_join(hr_misses *misses)
    void hr_misses_leave(hr_misses *misses)
    int hr_misses_wait(hr_misses *misses)
    uint32_t hr_misses_take(hr_misses *misses, hr_job **jobs)
    int hr_job_is_cancelled(const hr_job *job)
    int hr_job_answer(hr_job *job, const uint8_t *message, size_t length)
    int hr_job_refuse(hr_job *job, uint32_t code, const char *message, const char *details)
    void hr_job_post(hr_job *job)
    void hr_server_counts(hr_server *server, hr_counts *total)


cdef class NativeServer:
    cdef hr_server server
    cdef RequestCore core      # owns the table and the plans that the loops read
    cdef object listener       # the socket, which must stay open while the loops accept
    cdef tuple refusals        # owns the texts of the refusals that the loops send
    cdef bint is_started, is_tls, has_secret
    cdef int serve_turn(self, hr_job **jobs, uint32_t count, object answer) except -1


cdef class MissedRead:
    cdef readonly bytes request, authorization, identity
    cdef readonly double begun_s
    cdef readonly object deadline_s
    cdef NativeServer server
    cdef hr_job *job           # NULL once it has its outcome
    cdef void leave(self) noexcept
