"""Reads rows from peers: one sub-request per peer, all at once, hedged, and tried elsewhere where one fails.

No thread, no clock and no socket: it says what to send and until when to wait, and is told what came. A driver carries
the bytes.
"""

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from core_ext.rules import CAUSE_DEADLINE, CAUSE_QUARANTINED
from feature_server.ring.held_ring import HeldRing
from feature_server.ring.peers import HedgeBudget, Latencies, Outliers
from headrace.errors import CallerError, DataLoss, HeadraceError
from headrace.ring.values import Ring, WrongEpoch

REROUTES_MAX: Final = 3  # times that a shard is routed by a newer ring at once; then it waits for the ring to settle
WAIT_S: Final = 0.01  # a ring reaches everybody by their watches in some milliseconds
WAIT_MAX_S: Final = 0.16  # the waits of a read double up to it, on a fleet too busy to hear of the ring that soon
TRIES_MAX: Final = 4  # peers that are asked for a shard in one read

Token: TypeAlias = tuple[int, int, int]
"""Shard, epoch and offset that an answer must have seen."""


@dataclass(frozen=True, slots=True)
class Send:
    """Ask a peer for rows."""

    ask: int
    peer: str
    address: str
    keys: Sequence[bytes]
    ring_epoch: int
    min_offsets: Sequence[Token]


@dataclass(frozen=True, slots=True)
class Await:
    """Come back with the next answer, or with None at a time of the clock."""

    until_s: float


class Rows(NamedTuple):
    """What a peer answered: rows in the order of the keys, and the places of those that it could not read."""

    rows: Sequence[bytes | None]
    unavailable: Sequence[int] = ()


class Came(NamedTuple):
    """What came of a Send."""

    ask: int
    outcome: Rows | HeadraceError


Step: TypeAlias = Send | Await
Read: TypeAlias = Generator[Step, Came | None, None]


@dataclass(slots=True)
class Found:
    """Rows by key, and why others have none: a cause of core_ext.rules."""

    rows: dict[bytes, bytes | None] = field(default_factory=dict)
    causes: dict[bytes, int] = field(default_factory=dict)
    refusal: CallerError | None = None
    hedge_count: int = 0
    sent_count: int = 0


class _Turns(NamedTuple):
    """How often shards were routed by a newer ring in a read, how often their owners were given a moment, and whether
    one of those asked since has but to hear of the ring.
    """

    reroutes: int = 0
    waits: int = 0
    is_behind: bool = False


@dataclass(slots=True)
class _Part:
    """Keys of shards that one peer is asked for; a hedge asks another for the same."""

    shards: tuple[int, ...]
    keys: list[bytes]
    asked: list[str]
    turns: _Turns
    ring_epoch: int  # of the ring that it was routed by
    hedge_s: float
    resend_s: float = math.inf  # when the owners are asked anew, of a part that waits for them to hear of the ring
    open_asks: set[int] = field(default_factory=set)
    is_done: bool = False


class FanOut:
    """Routes by the ring that is held, and remembers how peers answer. Safe to share between threads."""

    def __init__(self, held: HeldRing, outliers: Outliers, clock_s: Callable[[], float]) -> None:
        self.latencies = Latencies()
        self.outliers = outliers
        self.budget = HedgeBudget()
        self.on_newer_ring: Callable[[Ring], object] = held.accept
        self._held = held
        self._clock_s = clock_s

    def read(
        self, keys: Mapping[int, Sequence[bytes]], tokens: Sequence[Token], deadline_s: float, found: Found
    ) -> Read:
        """Fills `found` with the rows of keys by shard; what is not there by the deadline has its cause."""
        yield from _Reading(self, keys, tokens, deadline_s, found).steps()

    def order(self, shard: int, without: Iterable[str], ring: Ring) -> list[str]:
        """Owners of a shard in a ring, the one to ask first in front: not ejected, and soonest."""
        owners = [peer for peer in ring.shards[shard].owners if peer != self._held.server_id]
        left = [peer for peer in owners if peer not in set(without)]
        return sorted(left, key=lambda peer: (self.outliers.is_ejected(peer), self.latencies.of(peer), peer))


class _Reading:
    """One read."""

    def __init__(
        self,
        fan_out: FanOut,
        keys: Mapping[int, Sequence[bytes]],
        tokens: Sequence[Token],
        deadline_s: float,
        found: Found,
    ) -> None:
        self._fan_out = fan_out
        self._keys = keys
        self._tokens = tokens
        self._deadline_s = deadline_s
        self._found = found
        self._parts: list[_Part] = []
        self._asks: dict[int, tuple[_Part, str, float]] = {}

    def steps(self) -> Read:
        yield from self._route(self._keys, (), _Turns())
        while any(not part.is_done for part in self._parts):
            now_s = self._fan_out._clock_s()
            if now_s >= self._deadline_s:
                self._give_up()
                return
            yield from self._resend(now_s)
            yield from self._hedge(now_s)
            came = yield Await(self._next_time())
            if came is not None:
                yield from self._take(came)

    def _route(self, shards: Iterable[int], asked: Sequence[str], turns: _Turns) -> Read:
        """Sends one sub-request to each peer that is the first for some of the shards; what has no peer left waits for
        one that is behind, or misses.
        """
        by_peer: dict[str, list[int]] = {}
        ring = self._fan_out._held.ring  # the same for all that is sent: the one held may change in between
        for shard in shards:
            order = self._fan_out.order(shard, asked, ring)
            if order and len(asked) < TRIES_MAX:
                by_peer.setdefault(order[0], []).append(shard)
            elif turns.is_behind:
                resend_s = self._fan_out._clock_s() + min(WAIT_S * 2**turns.waits, WAIT_MAX_S)
                waited = turns._replace(waits=turns.waits + 1, is_behind=False)
                self._parts.append(_Part((shard,), [*self._keys[shard]], [], waited, ring.epoch, math.inf, resend_s))
            else:
                self._miss(self._keys[shard], CAUSE_QUARANTINED)
        for peer, numbers in by_peer.items():
            keys = [key for shard in numbers for key in self._keys[shard]]
            part = _Part(tuple(numbers), keys, [*asked], turns, ring.epoch, 0.0)
            self._parts.append(part)
            self._fan_out.budget.earn()
            yield self._send(part, peer, ring)

    def _send(self, part: _Part, peer: str, ring: Ring) -> Send:
        now_s = self._fan_out._clock_s()
        held = self._fan_out._held
        ask = len(self._asks)
        self._asks[ask] = part, peer, now_s
        self._found.sent_count += 1
        part.asked.append(peer)
        part.open_asks.add(ask)
        part.hedge_s = now_s + self._fan_out.latencies.slow_s
        tokens = [token for token in self._tokens if token[0] in part.shards]
        address = ring.servers[peer].address
        return Send(ask, peer, address, part.keys, held.owners_epoch(part.shards), tokens)

    def _resend(self, now_s: float) -> Read:
        due = [part for part in self._parts if not part.is_done and part.resend_s <= now_s]
        for part in due:
            part.is_done = True
        if due:
            turns = _Turns(max(part.turns.reroutes for part in due), max(part.turns.waits for part in due))
            yield from self._route([shard for part in due for shard in part.shards], (), turns)

    def _hedge(self, now_s: float) -> Read:
        for part in self._parts:
            if part.is_done or len(part.open_asks) != 1 or now_s < part.hedge_s:
                continue
            ring = self._fan_out._held.ring
            orders = [self._fan_out.order(shard, part.asked, ring) for shard in part.shards]
            # One peer that has them all; a hedge in pieces would cost more than it saves.
            others = [peer for peer in orders[0] if all(peer in order for order in orders)]
            healthy = [peer for peer in others if not self._fan_out.outliers.is_ejected(peer)]
            part.hedge_s = self._deadline_s
            if healthy and self._fan_out.budget.spend():
                self._found.hedge_count += 1
                yield self._send(part, healthy[0], ring)

    def _next_time(self) -> float:
        hedges = [part.hedge_s for part in self._parts if not part.is_done and len(part.open_asks) == 1]
        resends = [part.resend_s for part in self._parts if not part.is_done]
        return min([self._deadline_s, *hedges, *resends])

    def _take(self, came: Came) -> Read:
        part, peer, sent_s = self._asks[came.ask]
        part.open_asks.discard(came.ask)
        if isinstance(came.outcome, HeadraceError):
            yield from self._failed(part, peer, came.outcome)
            return
        self._fan_out.outliers.succeeded(peer)
        self._fan_out.latencies.note(peer, self._fan_out._clock_s() - sent_s)
        if not part.is_done:
            part.is_done = True
            yield from self._answered(part, came.outcome)

    def _answered(self, part: _Part, answer: Rows) -> Read:
        missing = set(answer.unavailable)
        for index, (key, row) in enumerate(zip(part.keys, answer.rows, strict=True)):
            if index not in missing:
                self._found.rows[key] = row
        if missing:
            lost = {part.keys[index] for index in missing}
            shards = [shard for shard in part.shards if lost.intersection(self._keys[shard])]
            yield from self._route(shards, part.asked, part.turns)

    def _failed(self, part: _Part, peer: str, error: HeadraceError) -> Read:
        if isinstance(error, WrongEpoch):
            yield from self._refused(part, error)
            return
        if isinstance(error, CallerError):
            # Another peer would say the same.
            self._found.refusal = self._found.refusal or error
            part.is_done = True
            return
        if not isinstance(error, DataLoss):  # of one shard, which is rebuilt; the peer is well
            self._fan_out.outliers.failed(peer)
        if not part.is_done and not part.open_asks:
            part.is_done = True
            yield from self._route(part.shards, part.asked, part.turns)

    def _refused(self, part: _Part, error: WrongEpoch) -> Read:
        """The peer has an older ring, or a newer one than the part was routed by: then everybody may be asked anew."""
        held = self._fan_out._held
        if error.ring.epoch > held.ring.epoch:
            self._fan_out.on_newer_ring(error.ring)
        turns = part.turns
        part.turns = turns._replace(is_behind=True)
        if part.is_done or part.open_asks:
            return
        part.is_done = True
        # It may have come by the watch as well, before this refusal.
        if held.ring.epoch > part.ring_epoch and turns.reroutes < REROUTES_MAX:
            yield from self._route(part.shards, (), _Turns(turns.reroutes + 1, turns.waits))
        else:
            yield from self._route(part.shards, part.asked, part.turns)

    def _give_up(self) -> None:
        for part in self._parts:
            if not part.is_done:
                part.is_done = True
                self._miss(part.keys, CAUSE_DEADLINE)
                for ask in part.open_asks:
                    self._fan_out.outliers.failed(self._asks[ask][1])

    def _miss(self, keys: Iterable[bytes], cause: int) -> None:
        for key in keys:
            if key not in self._found.rows:
                self._found.causes[key] = cause
