"""Rows that reads miss, fetched for all reads of a turn: from storage together; peers of the ring are only asked."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from core_ext.request_core import Misses, Overlay, Plan
from core_ext.row_table import RowTable
from core_ext.rules import CAUSE_DEADLINE, CAUSE_QUARANTINED
from feature_server.domain.storage_keys import VIEW_ID_BYTES
from feature_server.ring import ring_reads
from feature_server.ring.ring_reads import RingReads
from headrace.errors import DeadlineExceeded, HeadraceError, PeerError, Unavailable

CHUNK_KEYS: Final = 256  # keys of one read of a shard: about 1 ms cached, so that the deadline is seen in between
PARALLEL_KEYS_MIN: Final = 32  # from here on shards are read side by side: one cold key takes about 90 us of waiting
READER_COUNT: Final = 8  # of wide reads of all callers
DEADLINE_MARGIN_S: Final = 0.002  # kept for writing and sending what there is
PEERS_RETRY_MS: Final = 100

StoredRows = Callable[[int, Sequence[bytes]], list[bytes | None]]
"""Checked rows of one shard by their keys; raises HeadraceError."""


class Pending:
    """A read between its first look into the table and its outcome.

    `asked`: sub-requests to peers, whose rows are in the overlay once `take` was called after their end.
    """

    __slots__ = ("asked", "deadline_s", "misses", "outcome", "overlay", "plan", "read_time_us", "request", "trace_id")

    def __init__(self, request: bytes, read_time_us: int, trace_id: bytes | None) -> None:
        self.request = request
        self.read_time_us = read_time_us
        self.trace_id = trace_id
        self.asked: list[_Asked] = []
        self.deadline_s = 0.0
        self.plan: Plan | None = None
        self.misses: Misses | None = None
        self.overlay: Overlay | None = None
        self.outcome: bytes | HeadraceError | None = None

    def miss(self, misses: Misses) -> Overlay:
        """Notes what is missing; what is found of it comes into the overlay returned."""
        self.misses = misses
        self.overlay = Overlay()
        return self.overlay

    @property
    def sent(self) -> list[ring_reads.Pending]:
        """Sub-requests that are not over."""
        return [asked.sent for asked in self.asked if not asked.sent.is_over]

    def take(self) -> None:
        """Puts what peers answered, or why they did not, into the overlay; every sub-request is over."""
        for asked in self.asked:
            _take(self, asked)
        self.asked.clear()


class Fetches:
    """Reads shards for what is missing, fills the table and the overlays of those who asked."""

    def __init__(self, table: RowTable, stored_rows: StoredRows, peers: RingReads | None = None) -> None:
        self._peers = peers
        self._table = table
        self._stored_rows = stored_rows
        self._readers = ThreadPoolExecutor(READER_COUNT, "wide-read")
        self._lock = threading.Lock()  # of the counts
        self._counts: defaultdict[bytes, int] = defaultdict(int)

    def is_local(self, shard: int) -> bool:
        """Whether this server reads a shard itself; raises Unavailable before there is a ring."""
        return self._peers is None or self._peers.is_local(shard)

    def counts(self) -> dict[int, int]:
        """Rows that were asked of storage, by view id."""
        with self._lock:
            return {int.from_bytes(view_id, "big"): count for view_id, count in self._counts.items()}

    def fetch(self, turn: Sequence[Pending]) -> None:
        """Puts every missing row of this server, or why there is none, into its overlay, and asks peers for the others.

        A read that may get no part has an error.
        """
        by_shard: dict[int, list[_Part]] = {}
        key_count = 0
        for pending in turn:
            here, elsewhere = self._split(pending)
            for shard, part in here:
                by_shard.setdefault(shard, []).append(part)
                key_count += len(part.keys)
            if elsewhere:
                pending.asked.append(_Asked(self._ask(pending, elsewhere)))
        is_wide = key_count >= PARALLEL_KEYS_MIN and len(by_shard) > 1
        wanted = by_shard.items()
        found = self._readers.map(self._read_shard, wanted) if is_wide else map(self._read_shard, wanted)
        for parts in found:
            for part, rows in parts:
                _tell(part, rows)

    def _split(self, pending: Pending) -> tuple[list[tuple[int, "_Part"]], dict[int, list[bytes]]]:
        """Parts of shards that are read here, and keys of shards that peers have."""
        here: list[tuple[int, _Part]] = []
        elsewhere: dict[int, list[bytes]] = {}
        try:
            for shard, part in _parts(pending):
                if self.is_local(shard):
                    here.append((shard, part))
                else:
                    elsewhere.setdefault(shard, []).extend(part.keys)
        except HeadraceError as error:
            pending.outcome = error
            return [], {}
        return here, elsewhere

    def _ask(self, pending: Pending, elsewhere: Mapping[int, Sequence[bytes]]) -> ring_reads.Pending:
        assert self._peers is not None, "without a ring every shard is here"
        assert pending.misses is not None
        return self._peers.begin(elsewhere, pending.misses.wants_offsets, pending.deadline_s)

    def _read_shard(self, wanted: tuple[int, list["_Part"]]) -> list[tuple["_Part", "_Found"]]:
        shard, parts = wanted
        if len(parts) == 1:
            return self._read_chunk(shard, parts)
        return [found for chunk in _chunks(parts) for found in self._read_chunk(shard, chunk)]

    def _read_chunk(self, shard: int, parts: Sequence["_Part"]) -> list[tuple["_Part", "_Found"]]:
        """Rows, put into the table as well, or the error why there are none."""
        now_s = time.monotonic()
        found: list[tuple[_Part, _Found]] = []
        in_time: list[_Part] = []
        for part in parts:
            if part.pending.outcome is not None:  # it has failed by another shard
                continue
            if now_s < part.pending.deadline_s:
                in_time.append(part)
            else:
                found.append((part, None))
        if not in_time:
            return found
        keys = in_time[0].keys if len(in_time) == 1 else [key for part in in_time for key in part.keys]
        ticket = self._table.ticket()
        try:
            rows = self._stored_rows(shard, keys)
        except HeadraceError as error:
            return [*found, *((part, self._from_peers(shard, part, error)) for part in in_time)]
        if not self.is_local(shard):
            gone = Unavailable(f"shard {shard} has just moved to another server", reason="SHARD_MOVED")
            return [*found, *((part, self._from_peers(shard, part, gone)) for part in in_time)]
        self._table.fill(keys, rows, ticket)
        self._count(keys)
        first = 0
        for part in in_time:
            found.append((part, rows[first : first + len(part.keys)]))
            first += len(part.keys)
        return found

    def _count(self, keys: Sequence[bytes]) -> None:
        counts = self._counts
        with self._lock:
            for key in keys:
                counts[key[-VIEW_ID_BYTES:]] += 1

    def _from_peers(self, shard: int, part: "_Part", error: HeadraceError) -> "_Found":
        """Asks the other owners of a shard of this server that has just failed."""
        if self._peers is None or not isinstance(error, PeerError):
            return error
        try:
            return _Asked(self._ask(part.pending, {shard: part.keys}), part, error)
        except HeadraceError:
            return error


class _Part(NamedTuple):
    """Keys of one shard that one read misses, at most a chunk of them."""

    pending: Pending
    keys: Sequence[bytes]


class _Asked(NamedTuple):
    """A sub-request; of a part that was to be read here with the error why it was not."""

    sent: ring_reads.Pending
    part: _Part | None = None
    error: HeadraceError | None = None


_Found = list[bytes | None] | _Asked | HeadraceError | None
"""Rows of a part, who is asked for them, why it cannot be read, or None where its deadline came first."""


def batched(keys: Sequence[bytes], count: int) -> Iterator[Sequence[bytes]]:
    """The keys in order, so many at a time."""
    return (keys[first : first + count] for first in range(0, len(keys), count))


def _parts(pending: Pending) -> list[tuple[int, _Part]]:
    misses = pending.misses
    assert misses is not None
    keys, shards = misses.storage_keys, misses.shards
    if 0 < len(keys) <= CHUNK_KEYS and shards.count(shards[0]) == len(shards):  # of one entity, most likely
        return [(shards[0], _Part(pending, keys))]
    by_shard: dict[int, list[bytes]] = {}
    for key, shard in zip(keys, shards, strict=True):
        by_shard.setdefault(shard, []).append(key)
    return [(shard, _Part(pending, chunk)) for shard, kept in by_shard.items() for chunk in batched(kept, CHUNK_KEYS)]


def _chunks(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """Parts in order, together at most a chunk of keys."""
    chunk: list[_Part] = []
    key_count = 0
    for part in parts:
        if chunk and key_count + len(part.keys) > CHUNK_KEYS:
            yield chunk
            chunk, key_count = [], 0
        chunk.append(part)
        key_count += len(part.keys)
    if chunk:
        yield chunk


def _tell(part: _Part, found: _Found) -> None:
    pending = part.pending
    assert pending.misses is not None
    assert pending.overlay is not None
    is_partial = pending.misses.partial
    if isinstance(found, list):
        pending.overlay.add(part.keys, found)
    elif isinstance(found, _Asked):
        pending.asked.append(found)
    elif found is None and is_partial:
        pending.overlay.add_unavailable(part.keys, CAUSE_DEADLINE)
    elif isinstance(found, PeerError) and is_partial:
        pending.overlay.add_unavailable(part.keys, CAUSE_QUARANTINED)
    elif pending.outcome is None:
        pending.outcome = found or _late()


def _take(pending: Pending, asked: _Asked) -> None:
    """Puts what peers answer beside the table: only rows of this server are kept in it."""
    assert pending.misses is not None
    assert pending.overlay is not None
    try:
        found = asked.sent.result()
    except HeadraceError as error:
        if asked.part is not None:
            _tell(asked.part, asked.error)
        else:
            pending.outcome = pending.outcome or error
        return
    if asked.part is not None and found.causes:
        _tell(asked.part, asked.error)
        return
    pending.overlay.add(list(found.rows), list(found.rows.values()))
    for cause in (CAUSE_DEADLINE, CAUSE_QUARANTINED):
        keys = [key for key, held in found.causes.items() if held == cause]
        if keys and pending.misses.partial:
            pending.overlay.add_unavailable(keys, cause)
        elif keys and pending.outcome is None:
            pending.outcome = _late() if cause == CAUSE_DEADLINE else _unreachable(len(keys))


def _late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "the deadline came before every row was read: give more time, or ask for PARTIAL", reason="DEADLINE_EXCEEDED"
    )


def _unreachable(key_count: int) -> Unavailable:
    return Unavailable(
        f"{key_count} rows lie on servers that do not answer: try again, or ask for PARTIAL",
        reason="PEERS_UNAVAILABLE",
        metadata={"rows": str(key_count)},
        retry_after_ms=PEERS_RETRY_MS,
    )
