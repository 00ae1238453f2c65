"""A gRPC server of native threads: reads are answered without the interpreter, everything else by a server behind."""

from collections.abc import Callable, Iterable
from socket import socket
from typing import TypeAlias, TypedDict, final, type_check_only

from core_ext.request_core import RequestCore

LOOP_COUNT_MAX: int
CONNECTION_COUNT_MAX: int
FULL_MESSAGE: bytes
MEMORY_MESSAGE: bytes
MEMORY_BYTES: int
MEMORY_BYTES_MIN: int
PERMISSION_READ: int
PERMISSION_PEER: int
CREDENTIAL_TOKEN: int
CREDENTIAL_CERTIFICATE: int
SECRET_LENGTH: int

_Outcome: TypeAlias = bytes | tuple[int, bytes, bytes]

@type_check_only
class Calls(TypedDict):
    """Calls of one method that were answered in the loops, all with OK."""

    answered: int
    seconds_ns: int
    """Time that they took there."""
    buckets: list[int]
    """The same calls by latency, in the buckets of headrace/serving/call_metrics.py."""

@type_check_only
class Counts(TypedDict):
    """Totals of all loops since the start."""

    features: Calls
    """GetOnlineFeatures."""
    rows: Calls
    """BatchGetRows."""
    turns: Calls
    """The calls of `features` by the time from the loop's wake to the hand-over of the answer to the socket."""
    missed: int
    """Reads handed to `answer_misses`, as a row was not in the table or the request is refused."""
    full: int
    """Reads refused because too many waited for `answer_misses`."""
    forwarded: int
    """Streams handed to the server behind."""
    connections: int
    refused_connections: int
    """Closed at once, because there were too many."""
    abusive_connections: int
    """Told to calm down: resets, pings, settings beyond their budget."""
    timed_out_connections: int
    idle_connections: int
    """Told to leave, as they had no stream for `idle_s`."""
    memory_refused: int
    """Reads refused because connections held as much memory as they may."""
    greedy_connections: int
    """Closed, as they held most of that memory."""
    handshakes: int
    failed_handshakes: int
    evicted_handshakes: int
    """Closed in the middle, as they were the oldest of too many."""

@final
class MissedRead:
    """A read that waits for its outcome; one that is dropped without it is left to the server behind."""

    @property
    def request(self) -> bytes: ...
    @property
    def authorization(self) -> bytes:
        """The header, or nothing."""
    @property
    def identity(self) -> bytes:
        """That of the client's certificate, or nothing."""
    @property
    def begun_s(self) -> float:
        """When it was handed over, by the monotonic clock."""
    @property
    def deadline_s(self) -> float | None:
        """By the same clock."""
    def give(self, outcome: _Outcome) -> None:
        """The response, or the code, grpc-message and grpc-status-details-bin of a refusal; any thread may give it.

        Does nothing for a read that has an outcome, or whose `answer` has raised. Raises ValueError for an outcome of
        another form, and leaves the read to the server behind.
        """

@final
class NativeServer:
    """Loops over one listening socket.

    GetOnlineFeatures is answered in the loop while every row is in the core's table and the caller may read, else by a
    thread in `answer_misses`; more reads than it may hold are refused with `full_message` and `full_details`, both as
    they stand in trailers. All connections together hold `memory_bytes_max` of requests and answers: for an answer
    beyond it those that hold most are closed, and where that does not help the read is refused with `memory_message`
    and `memory_details`. BatchGetRows is answered while every row is in the table, and the health of parts that
    `set_health` named while anybody may ask for it. Every other stream goes to the gRPC server that listens on the
    abstract unix socket `back_name`, and so do misses while no thread is in `answer_misses`. Nobody may read in the
    loop before `allow` or `allow_all`. One call in `sample_one_in` (0: none), and every one with a traceparent while
    it is not 0, goes to the server behind to be traced there. Raises ValueError where a size is out of range.
    """

    def __init__(
        self,
        core: RequestCore,
        listener: socket,
        back_name: bytes,
        loop_count: int,
        sample_one_in: int = 0,
        connection_count_max: int = ...,
        full_message: bytes = ...,
        full_details: bytes = b"",
        is_health_open: bool = False,
        idle_s: int = ...,
        secret: bytes = b"",
        memory_bytes_max: int = ...,
        memory_message: bytes = ...,
        memory_details: bytes = b"",
    ) -> None: ...
    def start(self) -> None:
        """Starts one thread per loop."""
    def set_tls(self, chain: bytes, key: bytes, clients: bytes = b"") -> None:
        """Speaks TLS on connections to come, with a certificate, its chain and its key in PEM.

        The first call is before `start`, a later one replaces what was given. With `clients`, PEM of authorities, a
        client may show a certificate of theirs; what it names is then its identity (headrace/serving/certificates.py),
        told to the server behind as `headrace-certificate`: the server's secret, then the identity in hexadecimal.
        Raises ValueError, and keeps what was, where OpenSSL cannot use them.
        """
    def allow(self, permission: int, digests: Iterable[bytes], credential: int = ...) -> None:
        """Grants a permission to these credentials of a kind, and to no others of it.

        They are SHA-256 digests of tokens, or identities of certificates.
        """
    def allow_all(self) -> None:
        """Grants everything to everybody."""
    def set_health(self, name: str, state: int) -> bool:
        """Tells the state of a part; False where the name is too long or one too many."""
    def connection_count(self) -> int:
        """Connections that are open."""
    def memory_bytes(self) -> int:
        """What all connections hold of requests, answers and frames, with what the loops took ahead."""
    def stream_count(self) -> int:
        """Streams that are open."""
    def answer_misses(self, answer: Callable[[list[MissedRead]], object]) -> None:
        """Answers reads on this thread until `stop`; any number of threads may.

        `answer` is given a few reads at once and gives each its outcome, or hands it to another thread that does.
        Reads whose `answer` raises are left to the server behind, and the error ends this call.
        """
    def drain(self) -> None:
        """Accepts no more and tells clients to leave; streams that run go on."""
    def stop(self) -> None:
        """Waits for the threads in `answer_misses` and the reads that they took, then closes connections and loops."""
    def counts(self) -> Counts:
        """Totals, which stay when the server is stopped."""
