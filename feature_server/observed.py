"""What a feature server tells of itself by metrics."""

from collections.abc import Iterable, Mapping

from core_ext.row_table import RowTable
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.served_writer import ServedWriter
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.writes import Writes
from feature_server.rpc.ring_parts import RingParts
from headrace.serving.telemetry import Telemetry


def observe_store(
    telemetry: Telemetry, shards: ShardSet, table: RowTable, catalogue: Catalogue, served: ServedWriter | None
) -> None:
    """Shards, registry and row table, and the log of answers where there is one."""
    if served is not None:
        observe_served(telemetry, served)

    def each(field: str) -> Iterable[tuple[float, Mapping[str, str]]]:
        return [(getattr(status, field), {"shard": str(status.shard)}) for status in shards.statuses()]

    def logs(field: str) -> Iterable[tuple[float, Mapping[str, str]]]:
        kept = [(shard, shard.row_log.status()) for shard in shards.shards if shard.row_log is not None]
        return [(getattr(status, field), {"shard": str(shard.number)}) for shard, status in kept]

    def stat(name: str) -> Iterable[tuple[float, Mapping[str, str]]]:
        return [(table.stats()[name], {})]

    telemetry.gauge("headrace.shard.state", "1 serving, 2 read-only, 3 quarantined.", lambda: each("state"))
    telemetry.counter("headrace.shard.offset", "Rows written to a shard.", lambda: each("offset"))
    telemetry.gauge(
        "headrace.row_log.stored", "Rows on disk that wait to be drained.", lambda: logs("stored_bytes"), "By"
    )
    telemetry.gauge("headrace.row_log.max", "From here on writes are refused.", lambda: logs("bytes_max"), "By")
    telemetry.gauge("headrace.registry.revision", "Registry served.", lambda: [(catalogue.revision, {})])
    telemetry.gauge("headrace.table.used", "Memory of the row table.", lambda: stat("used_bytes"), "By")
    telemetry.gauge("headrace.table.rows", "Rows in the table.", lambda: stat("row_count"))
    telemetry.counter("headrace.table.evictions", "Entities put out of the table.", lambda: stat("eviction_count"))


def observe_writes(telemetry: Telemetry, writes: Writes) -> None:
    """Rows that were written."""
    telemetry.counter("headrace.write.rows", "Rows accepted.", lambda: [(writes.row_count, {})])
    telemetry.counter("headrace.write.stale", "Rows older than the stored.", lambda: [(writes.stale_count, {})])


def observe_ring(telemetry: Telemetry, ring: RingParts) -> None:
    telemetry.gauge("headrace.ring.held_epoch", "Epoch of the ring that is held.", lambda: [(ring.held.ring.epoch, {})])
    telemetry.counter("headrace.ring.sent", "Sub-requests to peers.", lambda: [(ring.reads.sent_count, {})])
    telemetry.counter("headrace.ring.hedged", "Sub-requests that were hedges.", lambda: [(ring.reads.hedge_count, {})])
    telemetry.gauge("headrace.ring.ejected", "Peers asked last.", lambda: [(len(ring.outliers.ejected()), {})])


def observe_served(telemetry: Telemetry, writer: ServedWriter) -> None:
    telemetry.counter("headrace.served.sampled", "Reads to log.", lambda: [(writer.sampled_count, {})])
    telemetry.counter("headrace.served.written", "Answers logged.", lambda: [(writer.written_count, {})])
    telemetry.counter(
        "headrace.served.dropped",
        "Reads to log that were not, by reason.",
        lambda: [(count, {"reason": reason}) for reason, count in writer.dropped().items()],
    )
