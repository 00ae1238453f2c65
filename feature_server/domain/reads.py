"""Online reads: the core answers from the table; what it misses is fetched from the shards within the deadline."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from core_ext.request_core import Misses, Refused, RequestCore, Unresolved
from core_ext.row_codec import CorruptRowError
from core_ext.row_table import RowTable
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.fetches import DEADLINE_MARGIN_S, Fetches, Pending
from feature_server.domain.row_checks import check_rows
from feature_server.domain.selection import Prepared
from feature_server.domain.shard_set import ShardSet
from feature_server.ring.ring_reads import RingReads
from headrace.errors import DataLoss, FailedPrecondition, HeadraceError, InvalidArgument, ResourceExhausted
from headrace.serving.principal import Principal

DEADLINE_DEFAULT_S: Final = 10.0  # of a caller that sets none
READ_PERMISSION: Final = "FEATURE_READ"

_LOST_REASONS: Final = frozenset({"STORED_ROW_CORRUPT"})
_BUSY_REASONS: Final = frozenset({"OUT_OF_MEMORY"})

Remaining = Callable[[], float | None]
"""Seconds until the caller's deadline, None where there is none."""

Asked = tuple[Principal, bytes, Remaining]
"""Who asks, the request, and how long the answer may take."""


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
        self._fetches = Fetches(table, self.stored_rows, peers)

    def get(self, principal: Principal, request: bytes, remaining: Remaining, trace_id: bytes | None = None) -> bytes:
        """Response bytes of request bytes; the trace id is for the log of served answers. Raises HeadraceError."""
        begun = self._begin(principal, request, remaining, trace_id)
        if isinstance(begun, bytes):
            return begun
        self._fetch([begun])
        while begun.outcome is None:
            for sent in begun.sent:
                sent.wait()
            if not self._is_over(begun):
                self._fetch([begun])
        if isinstance(begun.outcome, HeadraceError):
            raise begun.outcome
        return begun.outcome

    def get_turn(self, turn: Sequence[Asked]) -> list[bytes | HeadraceError | Pending]:
        """What `get` returns or raises of each, or the read itself where it waits for peers.

        Rows of one shard that several miss are read from storage together.
        """
        begun = [self._try_begin(*asked) for asked in turn]
        self._fetch([one for one in begun if isinstance(one, Pending)])
        return [_told(one) if isinstance(one, Pending) else one for one in begun]

    def resume(self, pending: Pending) -> bytes | HeadraceError | None:
        """What `get` returns or raises of a read whose peers have answered; None where it is to be fetched again."""
        return pending.outcome if self._is_over(pending) else None

    def fetch_again(self, pending: Pending) -> bytes | HeadraceError | Pending:
        """What `get_turn` returns of a read for which `resume` has nothing."""
        self._fetch([pending])
        return _told(pending)

    def fetched(self) -> dict[int, int]:
        """Rows that were asked of storage, by view id."""
        return self._fetches.counts()

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

    def _begin(
        self, principal: Principal, request: bytes, remaining: Remaining, trace_id: bytes | None = None
    ) -> bytes | Pending:
        """The answer where nothing is missing, else what is missing."""
        principal.require(READ_PERMISSION)
        pending = Pending(request, self._clock_us(), trace_id)
        answer = self._serve(pending)
        if isinstance(answer, Unresolved):
            pending.plan = self._resolve(answer).plan
            answer = self._serve(pending)
        if isinstance(answer, bytes):
            return answer
        assert isinstance(answer, Misses)
        left_s = remaining()
        pending.deadline_s = time.monotonic() + (DEADLINE_DEFAULT_S if left_s is None else left_s) - DEADLINE_MARGIN_S
        self._await_offsets(answer, pending.deadline_s)
        self._core.mark(pending.miss(answer))
        return pending

    def _try_begin(self, principal: Principal, request: bytes, remaining: Remaining) -> bytes | Pending | HeadraceError:
        try:
            return self._begin(principal, request, remaining)
        except HeadraceError as error:
            return error

    def _fetch(self, pending: Sequence[Pending]) -> None:
        """Fetches until each has its outcome or waits for peers."""
        # Entries that were found at first may be evicted while others are fetched: each round adds keys to the
        # overlays, which hold every key of their requests in the end.
        while pending:
            self._fetches.fetch(pending)
            pending = [one for one in pending if one.outcome is None and not one.sent and not self._is_over(one)]

    def _is_over(self, pending: Pending) -> bool:
        """Whether a read that waits for nobody has its outcome; else what it misses now is noted."""
        pending.take()
        if pending.outcome is not None:
            return True
        try:
            answer = self._serve(pending)
        except HeadraceError as error:
            pending.outcome = error
            return True
        if isinstance(answer, bytes):
            pending.outcome = answer
            return True
        assert isinstance(answer, Misses)
        pending.misses = answer
        return False

    def _serve(self, pending: Pending) -> bytes | Misses | Unresolved:
        try:
            return self._core.serve(
                pending.request, pending.read_time_us, pending.plan, pending.overlay, pending.trace_id
            )
        except Refused as refused:
            raise translated(refused) from refused

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
            if self._fetches.is_local(shard):
                self._shards[shard].wait_for(epoch, offset, deadline_s)

    def check_here(self, shard: int) -> None:
        """Raises FailedPrecondition where other servers of the ring have the rows of a shard."""
        if self._fetches.is_local(shard):
            return
        assert self._peers is not None, "without a ring every shard is here"
        owners = self._peers.owners(shard)
        remedy = f"ask one of them: {', '.join(owners)}" if owners else "none serves it now, try again later"
        raise FailedPrecondition(
            f"shard {shard} lies on other servers of the ring; {remedy}",
            reason="SHARD_ELSEWHERE",
            metadata={"shard": str(shard), "servers": ",".join(owners)},
        )


def _told(pending: Pending) -> bytes | HeadraceError | Pending:
    return pending if pending.outcome is None else pending.outcome


def translated(refused: Refused) -> HeadraceError:
    """Our error for a refusal of the core."""
    if refused.reason in _LOST_REASONS:
        return DataLoss(refused.message, reason=refused.reason, metadata=refused.metadata)
    if refused.reason in _BUSY_REASONS:
        return ResourceExhausted(refused.message, reason=refused.reason, metadata=refused.metadata)
    return InvalidArgument(refused.message, reason=refused.reason, field=refused.field, metadata=refused.metadata)
