"""A log of rows in memory, and copies on real shards that follow it."""

from collections.abc import Sequence
from pathlib import Path

from feature_server.domain.log_messages import Headers, Logged
from feature_server.domain.logged_writes import LoggedWrites, ToShard
from feature_server.domain.shard import Position
from feature_server.domain.shard_writes import Durability
from feature_server.pipeline.log_fold import LogFold
from headrace.definitions.registered import RegistryState
from headrace.errors import FailedPrecondition
from tests.unit.feature_server.parts import NOW_US, Parts

EPOCH = 1 << 62 | 7


class FakeLog:
    """Satisfies RowsLog. Every message takes a millisecond of the broker's clock."""

    def __init__(self, shard_count: int = 2) -> None:
        self.messages: list[list[Logged]] = [[] for _ in range(shard_count)]
        self.time_us = NOW_US

    def check(self, durability: Durability) -> None:
        if durability is Durability.FSYNC:
            raise FailedPrecondition("this log flushes nothing", reason="FSYNC_NOT_OFFERED")

    def append(self, messages: Sequence[ToShard]) -> list[Position]:
        return [self.put(shard, message.value(), message.headers()) for shard, message in messages]

    def put(self, shard: int, value: bytes, headers: Headers) -> Position:
        """One message, whoever wrote it."""
        self.time_us += 1_000
        held = self.messages[shard]
        held.append(Logged(len(held), self.time_us, value, headers))
        return Position(shard, EPOCH, len(held) - 1)


class Copy:
    """A server whose shards follow a log, opened again at will."""

    def __init__(self, folder: Path, log: FakeLog, state: RegistryState | None = None) -> None:
        self.log = log
        self.parts = Parts(folder, shard_count=len(log.messages), state=state, follows_log=True)
        self.fold = LogFold(self.parts.catalogue, self.parts.shards, self.parts.log)
        self.writes = LoggedWrites(self.parts.catalogue, self.parts.shards, self.parts.clock, log)

    def follow(self, step: int = 1_000_000) -> None:
        """Applies what the log holds, so many messages at once."""
        for shard in self.parts.shards.shards:
            held = self.log.messages[shard.number]
            while (first := self.next_offset(shard.number)) < len(held):
                chosen = held[first : first + step]
                writes = self.fold.writes(shard.number, chosen)
                assert shard.follow(EPOCH, first, first + len(chosen), writes)

    def next_offset(self, shard: int) -> int:
        return self.parts.shards[shard].status().offset + 1

    def states(self) -> list[tuple[int, int, int]]:
        """Epoch, offset and content hash of every shard: what copies at equal offsets must share."""
        return [(one.epoch, one.offset, one.content_hash) for one in self.parts.shards.statuses()]

    def close(self) -> None:
        self.parts.close()
