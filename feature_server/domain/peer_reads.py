"""Rows and shard positions for other servers of the deployment."""

from collections.abc import Iterator, Sequence
from typing import Final

from core_ext.keys import shard_of_slot, slot_of_key, split_storage_key
from feature_server.domain.fetches import CHUNK_KEYS
from feature_server.domain.reads import Reads
from feature_server.domain.row_log import LogChunk, LogPosition, RowLog, RowLogStatus
from feature_server.domain.served_writer import ServedStore
from feature_server.domain.shard import ShardStatus
from feature_server.domain.shard_set import ShardSet
from feature_server.ring.held_ring import check_no_ring
from feature_server.ring.ring_reads import RingReads
from headrace.errors import FailedPrecondition, InvalidArgument, PeerError, ResourceExhausted
from headrace.serving.principal import Principal

KEY_COUNT_MAX: Final = 100_000
ROWS_BYTES_MAX: Final = 48 << 20  # below the message limit, with room for the framing of each row
PEER_PERMISSION: Final = "PEER"


class PeerReads:
    """Answers the calls of peers and of the drain."""

    def __init__(
        self,
        reads: Reads,
        shards: ShardSet,
        store_id: str = "",
        served: ServedStore | None = None,
        ring: RingReads | None = None,
    ) -> None:
        self.store_id = store_id
        self._ring = ring
        self._served = served
        self._reads = reads
        self._shards = shards

    def rows(
        self, keys: Sequence[bytes], ring_epoch: int, positions: Sequence[tuple[int, int, int]], deadline_s: float,
        principal: Principal,
    ) -> tuple[list[bytes | None], list[int]]:  # fmt: skip
        """Stored rows in the order of the keys, and the indexes of those that cannot be read."""
        principal.require(PEER_PERMISSION)
        by_shard = self._by_shard(keys)
        if self._ring is None:
            check_no_ring(ring_epoch)
        else:
            self._ring.check_read(by_shard, ring_epoch)
        for number, epoch, offset in positions:
            if not 0 <= number < len(self._shards):
                raise InvalidArgument(f"there is no shard {number}", reason="UNKNOWN_SHARD", field="min_offsets")
            self._shards[number].wait_for(epoch, offset, deadline_s)
        rows: list[bytes | None] = [None] * len(keys)
        unavailable: list[int] = []
        room = ROWS_BYTES_MAX
        for number, indexes in by_shard.items():
            for start in range(0, len(indexes), CHUNK_KEYS):
                part = indexes[start : start + CHUNK_KEYS]
                try:
                    found = self._reads.stored_rows(number, [keys[index] for index in part])
                except PeerError:
                    unavailable += part
                    continue
                for index, row in zip(part, found, strict=True):
                    rows[index] = row
                    room -= len(row or b"")
                if room < 0:
                    raise ResourceExhausted(
                        f"the rows hold over {ROWS_BYTES_MAX} bytes; ask for fewer", reason="RESPONSE_TOO_LARGE"
                    )
        if self._ring is not None:
            self._ring.check_read(by_shard, ring_epoch)  # a shard that was dropped meanwhile was read empty
        return rows, sorted(unavailable)

    def statuses(self, first: int, count: int, principal: Principal) -> list[ShardStatus]:
        """Shards from a number on, in ascending order."""
        principal.require(PEER_PERMISSION)
        return [shard.status() for shard in self._shards.shards[first : first + count]]

    def row_log(self, shard: int, start: LogPosition, chunk_bytes: int, principal: Principal) -> Iterator[LogChunk]:
        """What a shard committed from a position on."""
        principal.require("PEER")
        return self._row_log(shard).read(start, chunk_bytes)

    def acknowledge(self, shard: int, position: LogPosition, principal: Principal) -> RowLogStatus:
        """Lets a shard drop what lies before a position."""
        principal.require("PEER")
        row_log = self._row_log(shard)
        row_log.acknowledge(position)
        return row_log.status()

    def served_log(self, start: LogPosition, chunk_bytes: int, principal: Principal) -> Iterator[LogChunk]:
        """Logged answers from a position on."""
        principal.require("PEER")
        return self._kept_answers().read(start, chunk_bytes)

    def acknowledge_served(self, position: LogPosition, principal: Principal) -> RowLogStatus:
        """Lets the log of answers drop what lies before a position."""
        principal.require("PEER")
        kept = self._kept_answers()
        kept.acknowledge(position)
        return kept.status()

    def served_log_status(self) -> RowLogStatus | None:
        """State of the log of answers, None where none is kept."""
        return None if self._served is None else self._served.status()

    def row_log_status(self, shard: int) -> RowLogStatus | None:
        """State of the row log of a shard, None where none is kept."""
        row_log = self._shards[shard].row_log
        return None if row_log is None else row_log.status()

    def _kept_answers(self) -> ServedStore:
        if self._served is None:
            raise FailedPrecondition(
                "this server logs no answers; start it with --served-log-share to feed an offline store",
                reason="NO_SERVED_LOG",
            )
        return self._served

    def _row_log(self, shard: int) -> RowLog:
        if not 0 <= shard < len(self._shards):
            raise InvalidArgument(f"there is no shard {shard}", reason="UNKNOWN_SHARD", field="shard")
        row_log = self._shards[shard].row_log
        if row_log is None:
            raise FailedPrecondition(
                "this server keeps no row log; start it with --row-log-bytes to feed an offline store",
                reason="NO_ROW_LOG",
            )
        return row_log

    def _by_shard(self, keys: Sequence[bytes]) -> dict[int, list[int]]:
        if len(keys) > KEY_COUNT_MAX:
            raise InvalidArgument(
                f"{len(keys)} keys in one batch; at most {KEY_COUNT_MAX}: split it",
                reason="TOO_MANY_KEYS",
                field="keys",
            )
        by_shard: dict[int, list[int]] = {}
        for index, key in enumerate(keys):
            try:
                entity_key = split_storage_key(key)[1]
            except ValueError as error:
                raise InvalidArgument(str(error), reason="BAD_STORAGE_KEY", field=f"keys[{index}]") from error
            by_shard.setdefault(shard_of_slot(slot_of_key(entity_key), len(self._shards)), []).append(index)
        return by_shard
