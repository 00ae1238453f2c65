"""A gRPC server of native threads: reads are answered without the interpreter, everything else by a server behind."""

from collections.abc import Iterable
from socket import socket
from typing import TypedDict, final, type_check_only

from core_ext.request_core import RequestCore

LOOP_COUNT_MAX: int
CONNECTION_COUNT_MAX: int

@type_check_only
class Counts(TypedDict):
    """Totals of all loops since the start."""

    answered: int
    """Reads answered in the loops, all with OK."""
    seconds_ns: int
    """Time that they took there."""
    buckets: list[int]
    """The same reads by latency, in the buckets of headrace/serving/call_metrics.py."""
    forwarded: int
    """Streams handed to the server behind."""
    connections: int
    refused_connections: int
    """Closed at once, because there were too many."""
    abusive_connections: int
    """Told to calm down: resets, pings, settings beyond their budget."""
    timed_out_connections: int

@final
class NativeServer:
    """Loops over one listening socket.

    GetOnlineFeatures is answered in the loop while every row is in the core's table and the caller may read. Every
    other stream goes to the gRPC server that listens on the abstract unix socket `back_name`. Nobody may read in the
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
    ) -> None: ...
    def start(self) -> None:
        """Starts one thread per loop."""
    def allow(self, digests: Iterable[bytes]) -> None:
        """Lets the bearers of tokens with these SHA-256 digests read, and nobody else."""
    def allow_all(self) -> None:
        """Lets everybody read."""
    def connection_count(self) -> int:
        """Connections that are open."""
    def drain(self) -> None:
        """Accepts no more and tells clients to leave; streams that run go on."""
    def stop(self) -> None:
        """Closes every connection and ends the threads."""
    def counts(self) -> Counts:
        """Totals, which stay when the server is stopped."""
