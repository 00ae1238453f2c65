"""Online reads: the core answers from the table; what it misses is fetched from the shards within the deadline."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from core_ext.request_core import Misses, Overlay, Refused, RequestCore, Unresolved
from core_ext.row_codec import CorruptRowError
from core_ext.row_table import RowTable
from core_ext.rules import CAUSE_DEADLINE, CAUSE_QUARANTINED
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.row_checks import check_rows
from feature_server.domain.selection import Prepared
from feature_server.domain.shard_set import ShardSet
from feature_server.ring.fan_out import Found
from feature_server.ring.ring_reads import RingReads
from headrace.errors import (
    DataLoss,
    DeadlineExceeded,
    HeadraceError,
    InvalidArgument,
    PeerError,
    ResourceExhausted,
    Unavailable,
)
from headrace.serving.principal import Principal

CHUNK_KEYS: Final = 256  # keys of one read of a shard: about 1 ms cached, so that the deadline is seen in between
PARALLEL_KEYS_MIN: Final = 32  # from here on shards are read side by side: one cold key takes about 90 us of waiting
READER_COUNT: Final = 8  # of wide reads of all callers
DEADLINE_MARGIN_S: Final = 0.002  # kept for writing and sending what there is
DEADLINE_DEFAULT_S: Final = 10.0  # of a caller that sets none
PEERS_RETRY_MS: Final = 100
READ_PERMISSION: Final = "FEATURE_READ"

_LOST_REASONS: Final = frozenset({"STORED_ROW_CORRUPT"})
_BUSY_REASONS: Final = frozenset({"OUT_OF_MEMORY"})

Remaining = Callable[[], float | None]
"""Seconds until the caller's deadline, None where there is none."""


class Reads:
    """GetOnlineFeatures and PrepareFeatureSet."""

    def __init__(  # noqa: PLR0917 - every one is a different thing that reads are given
        self,
        core: RequestCore,
        table: RowTable,
        shards: ShardSet,
        catalogue: Catalogue,
        clock_us: Callable[[], int],
        peers: RingReads | None = None,
    ) -> None:
        self._peers = peers
        self._core = core
        self._table = table
        self._shards = shards
        self._catalogue = catalogue
        self._clock_us = clock_us
        self._readers = ThreadPoolExecutor(READER_COUNT, "wide-read")

    def get(self, principal: Principal, request: bytes, remaining: Remaining, trace_id: bytes | None = None) -> bytes:
        """Response bytes of request bytes; the trace id is for the log of served answers. Raises HeadraceError."""
        principal.require(READ_PERMISSION)
        read_time_us = self._clock_us()
        try:
            answer = self._core.serve(request, read_time_us, trace_id=trace_id)
            if type(answer) is bytes:
                return answer
            return self._get_missing(request, read_time_us, answer, remaining, trace_id)
        except Refused as refused:
            raise _translated(refused) from refused

    def prepare(self, principal: Principal, feature_service: str, features: Sequence[str]) -> Prepared:
        """Resolves a selection. Raises HeadraceError."""
        principal.require(READ_PERMISSION)
        if bool(feature_service) == bool(features):
            raise InvalidArgument(
                "set exactly one of feature_service and features", reason="NO_SELECTION", field="feature_service"
            )
        return self._catalogue.service(feature_service) if feature_service else self._catalogue.features(features)

    def stored_rows(self, number: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Rows of one shard, every one checked; a damaged one quarantines the shard."""
        shard = self._shards[number]
        rows = shard.read(keys)
        try:
            check_rows(self._catalogue, keys, rows)
        except CorruptRowError as error:
            lost = DataLoss(
                f"a stored row of shard {number} is damaged: {error}",
                reason="STORED_ROW_CORRUPT",
                metadata={"shard": str(number)},
            )
            shard.quarantine(lost)
            raise lost from error
        return rows

    def _get_missing(
        self,
        request: bytes,
        read_time_us: int,
        answer: bytes | Misses | Unresolved,
        remaining: Remaining,
        trace_id: bytes | None,
    ) -> bytes:
        plan = None
        if isinstance(answer, Unresolved):
            plan = self._resolve(answer).plan
            answer = self._core.serve(request, read_time_us, plan, trace_id=trace_id)
        if isinstance(answer, bytes):
            return answer
        left_s = remaining()
        deadline_s = time.monotonic() + (DEADLINE_DEFAULT_S if left_s is None else left_s) - DEADLINE_MARGIN_S
        overlay = Overlay()
        if isinstance(answer, Misses):
            self._await_offsets(answer, deadline_s)
            self._core.mark(overlay)
        # Entries that were found at first may be evicted while others are fetched: each round adds keys to the
        # overlay, which holds every key of the request in the end.
        while isinstance(answer, Misses):
            self._fetch(answer, overlay, deadline_s)
            answer = self._core.serve(request, read_time_us, plan, overlay, trace_id)
        assert isinstance(answer, bytes)
        return answer

    def _resolve(self, wanted: Unresolved) -> Prepared:
        if wanted.feature_service:
            return self._catalogue.service(wanted.feature_service)
        return self._catalogue.handle(wanted.handle) if wanted.handle else self._catalogue.features(wanted.features)

    def _await_offsets(self, misses: Misses, deadline_s: float) -> None:
        """Waits for the shards of this server; peers wait for theirs."""
        for index, (shard, epoch, offset) in enumerate(misses.wants_offsets):
            if not 0 <= shard < len(self._shards):
                raise InvalidArgument(
                    f"there is no shard {shard}; this store has {len(self._shards)}: send tokens as WriteFeatures gave",
                    reason="UNKNOWN_SHARD",
                    field=f"options.min_offsets[{index}].shard",
                    metadata={"shard": str(shard)},
                )
            if self._is_local(shard):
                self._shards[shard].wait_for(epoch, offset, deadline_s)

    def _is_local(self, shard: int) -> bool:
        return self._peers is None or self._peers.is_local(shard)

    def _fetch(self, misses: Misses, overlay: Overlay, deadline_s: float) -> None:
        by_shard: dict[int, list[bytes]] = {}
        for key, shard in zip(misses.storage_keys, misses.shards, strict=True):
            by_shard.setdefault(shard, []).append(key)

        elsewhere = {shard: by_shard.pop(shard) for shard in [*by_shard] if not self._is_local(shard)}
        pending = None
        if elsewhere:
            assert self._peers is not None, "without a ring every shard is here"
            pending = self._peers.begin(elsewhere, misses.wants_offsets, deadline_s)
        self._fetch_here(by_shard, misses, overlay, deadline_s)
        if pending is not None:
            _merge(pending.finish(), overlay, partial=misses.partial)

    def _fetch_here(
        self, by_shard: dict[int, list[bytes]], misses: Misses, overlay: Overlay, deadline_s: float
    ) -> None:
        def read(shard: int) -> list[Sequence[bytes | None] | int]:
            chunks = batched(by_shard[shard], CHUNK_KEYS)
            return [self._read_chunk(shard, keys, deadline_s, partial=misses.partial) for keys in chunks]

        is_wide = len(by_shard) > 1 and sum(map(len, by_shard.values())) >= PARALLEL_KEYS_MIN
        found = self._readers.map(read, by_shard) if is_wide else map(read, by_shard)
        for keys, parts in zip(by_shard.values(), found, strict=True):
            for chunk, rows in zip(batched(keys, CHUNK_KEYS), parts, strict=True):
                if isinstance(rows, int):
                    overlay.add_unavailable(chunk, rows)
                else:
                    overlay.add(chunk, rows)

    def _read_chunk(
        self, shard: int, keys: Sequence[bytes], deadline_s: float, *, partial: bool
    ) -> Sequence[bytes | None] | int:
        """Rows, put into the table as well, or the cause why there are none."""
        if time.monotonic() >= deadline_s:
            if not partial:
                raise _late()
            return CAUSE_DEADLINE
        ticket = self._table.ticket()
        try:
            rows = self.stored_rows(shard, keys)
        except PeerError:
            elsewhere = self._from_peers(shard, keys, deadline_s)
            if elsewhere is not None:
                return elsewhere
            if not partial:
                raise
            return CAUSE_QUARANTINED
        self._table.fill(keys, rows, ticket)
        return rows

    def _from_peers(self, shard: int, keys: Sequence[bytes], deadline_s: float) -> list[bytes | None] | None:
        """Rows of a shard of this server that has just failed, from its other owners; None where they have not all."""
        if self._peers is None:
            return None
        found = self._peers.begin({shard: keys}, (), deadline_s).finish()
        return None if found.causes else [found.rows[key] for key in keys]


def batched(keys: Sequence[bytes], count: int) -> Iterator[Sequence[bytes]]:
    """The keys in order, so many at a time."""
    return (keys[first : first + count] for first in range(0, len(keys), count))


def _merge(found: Found, overlay: Overlay, *, partial: bool) -> None:
    """Puts what peers answered beside the table: only rows of this server are kept in it."""
    overlay.add(list(found.rows), list(found.rows.values()))
    for cause in (CAUSE_DEADLINE, CAUSE_QUARANTINED):
        keys = [key for key, held in found.causes.items() if held == cause]
        if keys and not partial:
            raise _late() if cause == CAUSE_DEADLINE else _unreachable(len(keys))
        if keys:
            overlay.add_unavailable(keys, cause)


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


def _translated(refused: Refused) -> HeadraceError:
    if refused.reason in _LOST_REASONS:
        return DataLoss(refused.message, reason=refused.reason, metadata=refused.metadata)
    if refused.reason in _BUSY_REASONS:
        return ResourceExhausted(refused.message, reason=refused.reason, metadata=refused.metadata)
    return InvalidArgument(refused.message, reason=refused.reason, field=refused.field, metadata=refused.metadata)
