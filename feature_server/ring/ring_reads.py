"""Reads of a server in a ring: which shards it reads itself, and the rows of the others from its peers."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from feature_server.ring.copies import Copies
from feature_server.ring.fan_out import Await, Came, FanOut, Found, Read, Rows, Send, Token
from feature_server.ring.held_ring import HeldRing
from headrace.errors import HeadraceError, Unavailable
from headrace.ring.values import Phase

FORMING_RETRY_MS: Final = 1_000
TIMEOUT_MIN_S: Final = 0.001


class PeerTransport(Protocol):
    """Carries sub-requests."""

    def send(self, asked: Send, timeout_s: float, done: Callable[[Rows | HeadraceError], None]) -> None:
        """Sends at once; `done` is called once, from any thread, with rows that passed their check or an error."""


class RingReads:
    """What reads ask of the ring."""

    def __init__(
        self,
        held: HeldRing,
        copies: Copies,
        fan_out: FanOut,
        transport: PeerTransport,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._held = held
        self._copies = copies
        self._fan_out = fan_out
        self._transport = transport
        self._clock_s = clock_s
        self.on_behind: Callable[[], None] = lambda: None  # a peer holds a newer ring
        self.sent_count = 0
        self.hedge_count = 0

    def is_local(self, shard: int) -> bool:
        """Whether this server reads a shard itself; raises Unavailable before there is a ring."""
        if not self._held.ring.epoch:
            raise Unavailable(
                "the ring is not formed yet; try again", reason="RING_NOT_FORMED", retry_after_ms=FORMING_RETRY_MS
            )
        return self._held.phase(shard) in {Phase.SERVING, Phase.LEAVING} and self._copies.is_whole(shard)

    def owners(self, shard: int) -> list[str]:
        """Addresses of the servers that serve a shard."""
        ring = self._held.ring
        return [ring.servers[owner].address for owner in ring.shards[shard].owners]

    def check_read(self, shards: Iterable[int], epoch: int) -> None:
        """Raises unless this server may answer a peer that routed by an epoch."""
        if epoch > self._held.ring.epoch:
            self.on_behind()
        self._copies.check_read(shards, epoch)

    def begin(self, keys: Mapping[int, Sequence[bytes]], tokens: Sequence[Token], deadline_s: float) -> "Pending":
        """Sends the sub-requests for keys by shard."""
        found = Found()
        read = self._fan_out.read(keys, tokens, deadline_s, found)
        return Pending(self, read, found, deadline_s)

    def send(self, asked: Send, timeout_s: float, done: Callable[[Rows | HeadraceError], None]) -> None:
        """Hands a sub-request to the transport."""
        self._transport.send(asked, max(timeout_s, TIMEOUT_MIN_S), done)

    def left_s(self, until_s: float) -> float:
        """Seconds until a time of the clock."""
        return until_s - self._clock_s()

    def count(self, found: Found) -> None:
        """Counts what a read has sent."""
        self.sent_count += found.sent_count
        self.hedge_count += found.hedge_count


class Pending:
    """Sub-requests on their way; driven by one thread at a time, by `wait` or by a Waits."""

    def __init__(self, reads: RingReads, read: Read, found: Found, deadline_s: float) -> None:
        self._reads = reads
        self._read = read
        self._found = found
        self._deadline_s = deadline_s
        self._came: SimpleQueue[Came] = SimpleQueue()
        self._on_came: Callable[[], None] | None = None
        self.until_s = self._until_wait(None)

    @property
    def is_over(self) -> bool:
        """Whether everything that can come has come."""
        return self.until_s is None

    def tell(self, on_came: Callable[[], None]) -> None:
        """Calls back, from any thread, whenever something came from now on; who asks `take` next misses nothing."""
        self._on_came = on_came

    def take(self) -> float | None:
        """Takes what came by now and sends what is due; the time to come back at the latest, None at the end."""
        while self.until_s is not None:
            try:
                came = self._came.get_nowait()
            except Empty:
                if self._reads.left_s(self.until_s) > 0:
                    break
                self.until_s = self._until_wait(None)
            else:
                self.until_s = self._until_wait(came)
        return self.until_s

    def wait(self) -> None:
        """Waits for the answers, within the deadline."""
        while self.until_s is not None:
            try:
                came = self._came.get(timeout=max(0.0, self._reads.left_s(self.until_s)))
            except Empty:
                self.until_s = self._until_wait(None)
            else:
                self.until_s = self._until_wait(came)

    def result(self) -> Found:
        """What came. Raises what every peer would refuse alike, and Unavailable where nobody waits any more."""
        if self.until_s is not None:
            raise Unavailable("the server is stopping; ask another", reason="STOPPING")
        self._reads.count(self._found)
        if self._found.refusal is not None:
            raise self._found.refusal
        return self._found

    def _until_wait(self, came: Came | None) -> float | None:
        """Sends all that is to be sent now; the time to wait until, None at the end."""
        try:
            step = self._read.send(came)
            while isinstance(step, Send):
                self._send(step)
                step = next(self._read)
        except StopIteration:
            return None
        assert isinstance(step, Await), "a read sends and waits, and nothing else"
        return step.until_s

    def _send(self, asked: Send) -> None:
        def done(outcome: Rows | HeadraceError) -> None:
            self._came.put(Came(asked.ask, outcome))
            if self._on_came is not None:
                self._on_came()

        self._reads.send(asked, self._reads.left_s(self._deadline_s), done)
