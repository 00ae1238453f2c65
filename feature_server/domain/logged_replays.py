"""Rows of the offline store on their way into a ring whose copies share a log."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa

from feature_server.domain.catalogue import Catalogue
from feature_server.domain.layouts import ViewLayout
from feature_server.domain.log_messages import Kind, LogMessage
from feature_server.domain.logged_writes import RowsLog, ToShard, small_batches
from feature_server.domain.replays import ReplayAck, Replays, split_order
from feature_server.domain.shard import Position
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.shard_writes import Durability
from feature_server.domain.write_columns import encode_batch
from feature_server.domain.writes import highest_positions, rows_by_shard
from headrace.errors import FailedPrecondition
from headrace.serving.principal import Principal


class LoggedReplays(Replays):
    """Satisfies what the servicer asks of Replays. The epoch of the ring is of no matter: the log has one order."""

    def __init__(self, catalogue: Catalogue, shards: ShardSet, clock_us: Callable[[], int], log: RowsLog) -> None:
        super().__init__(catalogue, shards, clock_us)
        self._rows_log = log

    def write(
        self,
        feature_view: str,
        batches: Callable[[], Iterable[pa.RecordBatch]],
        durability: Durability,
        covered: Sequence[Position],
        principal: Principal,
        *,
        ring_epoch: int = 0,
    ) -> ReplayAck:
        """Rows with the columns of a write and an order. Rows of computed views are refused."""
        principal.require("PEER")
        target = self._catalogue.view(feature_view)
        if target.computed is not None:
            raise FailedPrecondition(
                f"rows of a batch of {target.ref} are put together with what each copy holds, which a log does not "
                "order yet; write its events, or bring them by a stream",
                reason="RING_REPLAY",
                field="feature_view",
                metadata={"feature_view": target.ref},
            )
        self._rows_log.check(durability)
        messages: list[ToShard] = []
        row_count = 0
        for batch in batches():
            messages += self._messages(batch, target)
            row_count += batch.num_rows
        positions = self._rows_log.append(messages) if messages else []
        return ReplayAck(highest_positions(positions), row_count, 0, ())

    def _messages(self, batch: pa.RecordBatch, target: ViewLayout) -> Iterator[ToShard]:
        first = 0
        for part in encode_batch(split_order(batch)[0], target, self._clock_us()):
            for shard, indexes in rows_by_shard(part, len(self._shards)):
                for chosen in small_batches(batch, indexes + first):
                    yield ToShard(shard, LogMessage(Kind.REPLAY, [target.view_id], self._catalogue.revision, chosen))
            first += part.row_count
