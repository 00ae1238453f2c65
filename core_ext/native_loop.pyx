"""A gRPC server of native threads: reads are answered without the interpreter, everything else by a server behind."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cython cimport final
from libc.stdlib cimport malloc
from libc.string cimport memcpy

LOOP_COUNT_MAX = HR_H2_LOOPS_MAX
CONNECTION_COUNT_MAX = HR_H2_CONNECTIONS_MAX
PERMISSION_READ = HR_PERMISSION_READ
PERMISSION_PEER = HR_PERMISSION_PEER
CREDENTIAL_TOKEN = HR_CREDENTIAL_TOKEN
CREDENTIAL_CERTIFICATE = HR_CREDENTIAL_CERTIFICATE
SECRET_LENGTH = HR_TLS_SECRET_BYTES

cdef double NS_PER_S = 1e9

cdef enum:
    BACK_NAME_BYTES_MAX = 63  # of hr_server, with its end
    DIGEST_BYTES = 32
    GRPC_CODE_MAX = 16
    PROBLEM_BYTES = 256

FULL_MESSAGE = b"too many reads wait for rows that are not in memory; try again later"
MEMORY_MESSAGE = b"too many answers wait for their readers; try again later"
MEMORY_BYTES = HR_H2_MEMORY_BYTES
MEMORY_BYTES_MIN = HR_H2_MEMORY_BYTES_MIN

cdef enum:
    CREDITS_MIN = 8  # per loop: what loops take ahead is a quarter of the memory at most


cdef dict counted(const hr_calls *calls):
    return {
        "answered": calls.answered,
        "seconds_ns": calls.seconds_ns,
        "buckets": [calls.buckets[i] for i in range(HR_H2_BUCKETS)],
    }


cdef hr_span span_of(bytes data):
    cdef hr_span span
    span.at = <const uint8_t *>PyBytes_AS_STRING(data)
    span.end = span.at + PyBytes_GET_SIZE(data)
    return span


@final
@cython.no_gc_clear  # the server must outlive the job, whose loop and whose count of open jobs are of it
cdef class MissedRead:
    def give(self, outcome):
        cdef hr_job *job = self.job
        if job == NULL:
            return
        self.job = NULL  # from here on nobody else has it, whatever an outcome does when it is looked at
        try:
            answer_job(job, outcome)
        finally:  # one left without an answer is given one by the server behind
            hr_job_post(job)

    cdef void leave(self) noexcept:
        cdef hr_job *job = self.job
        self.job = NULL
        if job != NULL:
            hr_job_post(job)

    def __dealloc__(self):
        self.leave()


cdef MissedRead read_of(NativeServer server, hr_job **jobs, uint32_t at):
    """The read of a job, which is from now on its own."""
    cdef MissedRead read = MissedRead()
    cdef hr_job *job = jobs[at]
    read.request = PyBytes_FromStringAndSize(<char *>job.data, job.request_bytes)
    read.authorization = PyBytes_FromStringAndSize(<char *>job.data + job.request_bytes, job.authorization_bytes)
    read.identity = PyBytes_FromStringAndSize(<char *>job.identity, job.identity_bytes)
    read.begun_s = job.begin_ns / NS_PER_S
    read.deadline_s = job.deadline_ns / NS_PER_S or None
    read.server = server
    read.job = job
    jobs[at] = NULL
    return read


cdef int answer_job(hr_job *job, object outcome) except -1:
    cdef bytes response, message, details
    cdef uint32_t code
    if type(outcome) is bytes:
        response = outcome
        hr_job_answer(job, <const uint8_t *>PyBytes_AS_STRING(response), PyBytes_GET_SIZE(response))
        return 0
    code, message, details = outcome
    if not 1 <= code <= GRPC_CODE_MAX or message is None or details is None:
        raise ValueError(f"a refusal is a code of 1 to {GRPC_CODE_MAX}, a message and details, not {outcome!r}")
    hr_job_refuse(job, code, PyBytes_AS_STRING(message), PyBytes_AS_STRING(details))
    return 0


@final
cdef class NativeServer:
    def __cinit__(self, RequestCore core not None, listener, bytes back_name not None, uint32_t loop_count,
                  uint32_t sample_one_in=0, uint32_t connection_count_max=HR_H2_CONNECTIONS_MAX,
                  bytes full_message not None=FULL_MESSAGE, bytes full_details not None=b"", bint is_health_open=False,
                  uint32_t idle_s=HR_H2_IDLE_S, bytes secret not None=b"",
                  uint64_t memory_bytes_max=HR_H2_MEMORY_BYTES, bytes memory_message not None=MEMORY_MESSAGE,
                  bytes memory_details not None=b""):
        if not 1 <= loop_count <= HR_H2_LOOPS_MAX:
            raise ValueError(f"a server has 1 to {HR_H2_LOOPS_MAX} loops, not {loop_count}")
        if not 1 <= connection_count_max <= HR_H2_CONNECTIONS_MAX:
            raise ValueError(f"a server takes 1 to {HR_H2_CONNECTIONS_MAX} connections, not {connection_count_max}")
        memory_bytes_min = max(HR_H2_MEMORY_BYTES_MIN, loop_count * CREDITS_MIN * HR_H2_CREDIT_BYTES)
        if memory_bytes_max < memory_bytes_min:
            raise ValueError(f"connections need {memory_bytes_min} bytes of memory, not {memory_bytes_max}")
        if not 1 <= len(back_name) <= BACK_NAME_BYTES_MAX or b"\0" in back_name:
            raise ValueError(f"an abstract socket's name has 1 to {BACK_NAME_BYTES_MAX} bytes and no zero among them")
        if secret and (len(secret) != HR_TLS_SECRET_BYTES or b"\0" in secret):
            raise ValueError(f"a secret has {HR_TLS_SECRET_BYTES} bytes and no zero among them")
        listener.setblocking(False)
        self.core = core
        self.listener = listener
        self.server.table = core.table.table
        self.server.published = &core.live
        self.server.served = &core.ring.served if core.ring is not None else NULL
        self.server.listener = listener.fileno()
        self.server.sample_one_in = sample_one_in
        self.server.is_health_open = is_health_open
        self.server.connections_max = connection_count_max
        self.server.idle_s = idle_s
        memcpy(self.server.back_name, PyBytes_AS_STRING(back_name), len(back_name))
        if secret:
            memcpy(self.server.secret, PyBytes_AS_STRING(secret), HR_TLS_SECRET_BYTES)
            self.has_secret = True
        self.server.memory_max = memory_bytes_max
        self.refusals = (full_message, full_details, memory_message, memory_details)
        self.server.memory_message = PyBytes_AS_STRING(memory_message)
        self.server.memory_details = PyBytes_AS_STRING(memory_details)
        self.server.full_message = PyBytes_AS_STRING(full_message)
        self.server.full_details = PyBytes_AS_STRING(full_details)
        if hr_misses_begin(&self.server.misses) != 0:
            raise MemoryError()
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
        cdef int credential, permission
        with nogil:
            for credential in range(HR_CREDENTIALS):
                for permission in range(HR_PERMISSIONS):
                    hr_server_set_access(&self.server, <hr_credential>credential, <hr_permission>permission, 1, NULL, 0)

    def allow(self, int permission, digests, int credential=HR_CREDENTIAL_TOKEN):
        cdef uint8_t (*copied)[DIGEST_BYTES]
        cdef list held = list(digests)
        cdef uint32_t at = 0, count = <uint32_t>len(held)
        cdef bytes digest
        if not 0 <= permission < HR_PERMISSIONS:
            raise ValueError(f"permission {permission} is none of the loop's")
        if not 0 <= credential < HR_CREDENTIALS:
            raise ValueError(f"credential {credential} is none of the loop's")
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
            hr_server_set_access(&self.server, <hr_credential>credential, <hr_permission>permission, 0, copied, count)

    def set_tls(self, bytes chain not None, bytes key not None, bytes clients not None=b""):
        cdef char problem[PROBLEM_BYTES]
        cdef SSL_CTX *context
        if self.is_started and not self.is_tls:
            raise ValueError("the first certificate comes before the start")
        if clients and not self.has_secret:
            raise ValueError("identities of certificates are handed on with a secret; give one")
        context = hr_tls_context(span_of(chain), span_of(key), span_of(clients), problem, PROBLEM_BYTES)
        if context == NULL:
            raise ValueError((<bytes>problem).decode("utf-8", "replace"))
        if hr_server_set_tls(&self.server, context) != HR_OK:
            raise MemoryError()
        self.is_tls = True

    def set_health(self, str name not None, uint8_t state):
        data = name.encode()
        return bool(hr_server_set_health(&self.server, PyBytes_AS_STRING(data), <uint32_t>len(data), state))

    def connection_count(self):
        return self.server.connection_count

    def memory_bytes(self):
        return hr_memory_bytes(&self.server)

    def stream_count(self):
        return hr_server_streams(&self.server)

    def answer_misses(self, answer):
        cdef hr_job *jobs[HR_H2_TURN_MAX]
        cdef uint32_t count, at
        cdef int is_open = hr_misses_join(&self.server.misses)
        if not is_open:
            return
        try:
            while is_open:
                with nogil:
                    is_open = hr_misses_wait(&self.server.misses)
                # With the interpreter held: what came while this thread waited for it is taken as well.
                count = hr_misses_take(&self.server.misses, jobs) if is_open else 0
                try:
                    if count > 0:
                        self.serve_turn(jobs, count, answer)
                finally:
                    for at in range(count):  # what became no read is left to the server behind
                        if jobs[at] != NULL:
                            hr_job_post(jobs[at])
        finally:
            hr_misses_leave(&self.server.misses)

    cdef int serve_turn(self, hr_job **jobs, uint32_t count, object answer) except -1:
        cdef list turn = []
        cdef MissedRead read
        cdef uint32_t at
        for at in range(count):
            if not hr_job_is_cancelled(jobs[at]):
                turn.append(read_of(self, jobs, at))
        if not turn:
            return 0
        try:
            answer(turn)
        except BaseException:
            for read in turn:
                read.leave()
            raise
        return 0

    def drain(self):
        hr_server_drain(&self.server)

    def stop(self):
        with nogil:
            hr_server_stop(&self.server)

    def counts(self):
        cdef hr_counts total
        hr_server_counts(&self.server, &total)
        return {
            "features": counted(&total.features),
            "rows": counted(&total.rows),
            "turns": counted(&total.turns),
            "missed": total.missed,
            "full": total.full,
            "forwarded": total.forwarded,
            "connections": total.connections,
            "refused_connections": total.refused_connections,
            "abusive_connections": total.abusive_connections,
            "timed_out_connections": total.timed_out_connections,
            "idle_connections": total.idle_connections,
            "memory_refused": total.memory_refused,
            "greedy_connections": total.greedy_connections,
            "handshakes": total.handshakes,
            "failed_handshakes": total.failed_handshakes,
            "evicted_handshakes": total.evicted_handshakes,
        }
