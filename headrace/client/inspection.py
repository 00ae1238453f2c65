"""The client of what a feature server tells of itself: why a value is what it is, and what rows take on disk."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from headrace.client.batch import FeatureBatch, value_type_of
from headrace.client.calls import ValueState
from headrace.client.entities import EntityValues, encode_entities
from headrace.client.request_data import RequestData, encode_request_data
from headrace.client.unary import UnaryClient
from headrace.types import Scalar, ValueType
from protos.feature.v1 import inspection_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2 as pb_online

CALL_TIMEOUT_S_DEFAULT: Final = 10.0
STORAGE_TIMEOUT_S_DEFAULT: Final = 3_600.0  # of a walk over a whole store, some hundred GB at its bound
_SERVICE: Final = "/headrace.feature.v1.InspectionService/"


@dataclass(frozen=True, slots=True)
class Reason:
    """One sentence; the code is the same for the same cause."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class RowFacts:
    """Where a row lies and what its header says; all from `schema_id` on is 0 or empty where none is stored."""

    slot: int
    shard: int
    view_id: int
    is_stored: bool
    is_cached: bool
    is_erased: bool
    is_drained: bool
    schema_id: int
    event_time_us: int
    write_time_us: int
    available_time_us: int
    source_id: int
    source: str
    partition: int
    offset: int
    row_bytes: int
    tile_map_bytes: int


@dataclass(frozen=True, slots=True)
class TileFacts:
    """One tile that was folded: the events of (start, start + width]."""

    start_time_us: int
    width_us: int
    event_count: int
    covered_offset: int | None
    is_batch: bool


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """The window (start, end] of a value, and its tiles."""

    start_time_us: int
    end_time_us: int
    window_us: int
    hop_us: int
    event_count: int
    newest_event_time_us: int | None
    is_exact: bool
    tiles: tuple[TileFacts, ...]


@dataclass(frozen=True, slots=True)
class FeatureFacts:
    """One feature and what it was made of. Without request data that it needs, `status` is None: nothing was computed.

    `has_value` tells a null from an empty slot; `value` is None in both.
    """

    feature: str
    transform: str
    value: Any  # of the type of the feature
    value_type: str
    has_value: bool
    status: int | None
    state: str
    event_time_us: int
    reasons: tuple[Reason, ...]
    row: RowFacts | None
    window: WindowFacts | None
    inputs: "tuple[FeatureFacts, ...]"
    request_fields: Mapping[str, ValueType]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one feature of one entity has its value at the time of the read."""

    feature: FeatureFacts
    read_time_us: int
    registry_revision: int


@dataclass(frozen=True, slots=True)
class ViewStorage:
    """Rows of one view version in one shard; bytes are those of keys and rows before compression."""

    feature_view: str
    view_id: int
    owner: str
    is_retired: bool
    row_count: int
    row_bytes: int
    expired_count: int
    expired_bytes: int
    tombstone_count: int
    tombstone_bytes: int
    logged_count: int
    logged_bytes: int


@dataclass(frozen=True, slots=True)
class ShardStorage:
    """What one shard takes; `problem` says why it was not measured. Files are counted as they lie on disk."""

    shard: int
    problem: str
    disk_bytes: int
    row_log_bytes: int
    served_log_bytes: int
    measured_us: int
    views: tuple[ViewStorage, ...]


class ReclaimedRows(NamedTuple):
    """Rows that were taken away of one shard; `problem` says why the walk ended early."""

    shard: int
    row_count: int
    row_bytes: int
    problem: str


class InspectionClient(UnaryClient):
    """Explains values and measures shards over one channel; safe to share between threads."""

    service = _SERVICE

    def explain(
        self,
        feature: str,
        entity: Mapping[str, EntityValues],
        *,
        key_types: Mapping[str, Scalar] | None = None,
        request_data: RequestData = None,
        request_fields: Mapping[str, ValueType] | None = None,
        timeout_s: float = CALL_TIMEOUT_S_DEFAULT,
    ) -> Explanation:
        """Explains "view@v3:feature" of one entity: a column of one value per join key, and per request field."""
        columns = encode_entities(entity, key_types or {}) + encode_request_data(request_data, request_fields or {})
        read = pb_online.GetOnlineFeaturesRequest.FromString(columns)
        request = pb.ExplainFeatureRequest(
            feature=feature, entity_columns=read.entity_columns, request_columns=read.request_columns
        )
        answer = pb.ExplainFeatureResponse.FromString(self._unary("ExplainFeature", request, timeout_s))
        return Explanation(_feature(answer.explanation), answer.read_time.ToMicroseconds(), answer.registry_revision)

    def storage(
        self, shards: Sequence[int] = (), timeout_s: float = STORAGE_TIMEOUT_S_DEFAULT
    ) -> Iterator[ShardStorage]:
        """Measures shard after shard, all without numbers; closing the iterator ends the walk."""
        request = pb.MeasureStorageRequest(shards=shards)
        for raw in self._transport.answers(_SERVICE + "MeasureStorage", request.SerializeToString(), timeout_s):
            yield _shard(pb.MeasureStorageResponse.FromString(raw))

    def reclaim(self, timeout_s: float = STORAGE_TIMEOUT_S_DEFAULT) -> Iterator[ReclaimedRows]:
        """Takes rows of retired versions away, shard after shard; nothing comes where nothing is due."""
        request = pb.ReclaimStorageRequest().SerializeToString()
        for raw in self._transport.answers(_SERVICE + "ReclaimStorage", request, timeout_s):
            answer = pb.ReclaimStorageResponse.FromString(raw)
            yield ReclaimedRows(answer.shard, answer.row_count, answer.row_bytes, answer.problem)


def _shard(message: pb.MeasureStorageResponse) -> ShardStorage:
    return ShardStorage(
        shard=message.shard,
        problem=message.problem,
        disk_bytes=message.disk_bytes,
        row_log_bytes=message.row_log_bytes,
        served_log_bytes=message.served_log_bytes,
        measured_us=message.measure_time.ToMicroseconds(),
        views=tuple(
            ViewStorage(
                feature_view=view.feature_view,
                view_id=view.view_id,
                owner=view.owner,
                is_retired=view.retired,
                row_count=view.row_count,
                row_bytes=view.row_bytes,
                expired_count=view.expired_count,
                expired_bytes=view.expired_bytes,
                tombstone_count=view.tombstone_count,
                tombstone_bytes=view.tombstone_bytes,
                logged_count=view.logged_count,
                logged_bytes=view.logged_bytes,
            )
            for view in message.views
        ),
    )


def _feature(message: pb.ExplainedFeature) -> FeatureFacts:
    value, has_value, status, event_time_us, kind = None, False, None, 0, ""
    if message.HasField("column"):
        answer = pb_online.GetOnlineFeaturesResponse(columns=[message.column], row_count=1)
        batch = FeatureBatch(answer.SerializeToString())
        name = message.column.name
        value = batch.to_arrow().column(0).to_pylist()[0]
        has_value, status = bool(batch.has_value(name)[0]), int(batch.statuses(name)[0])
        event_time_us = int(batch.event_times(name).astype("int64")[0])
        kind = str(value_type_of(message.column.value_type))
    return FeatureFacts(
        feature=message.feature,
        transform=message.transform,
        value=value,
        value_type=kind,
        has_value=has_value,
        status=status,
        state="NOT_COMPUTED" if status is None else ValueState(status & 0x0F).name,
        event_time_us=event_time_us,
        reasons=tuple(Reason(one.code, one.message) for one in message.reasons),
        row=_row(message.row) if message.HasField("row") else None,
        window=_window(message.window) if message.HasField("window") else None,
        inputs=tuple(map(_feature, message.inputs)),
        request_fields={one.name: value_type_of(one.value_type) for one in message.request_fields},
    )


def _row(message: pb.ExplainedRow) -> RowFacts:
    return RowFacts(
        slot=message.slot,
        shard=message.shard,
        view_id=message.view_id,
        is_stored=message.stored,
        is_cached=message.cached,
        is_erased=message.erased,
        is_drained=message.drained,
        schema_id=message.schema_id,
        event_time_us=message.event_time.ToMicroseconds(),
        write_time_us=message.write_time.ToMicroseconds(),
        available_time_us=message.available_time.ToMicroseconds(),
        source_id=message.source_id,
        source=message.source,
        partition=message.partition,
        offset=message.offset,
        row_bytes=message.row_bytes,
        tile_map_bytes=message.tile_map_bytes,
    )


def _window(message: pb.ExplainedWindow) -> WindowFacts:
    newest = message.newest_event_time.ToMicroseconds() if message.HasField("newest_event_time") else None
    return WindowFacts(
        start_time_us=message.start_time.ToMicroseconds(),
        end_time_us=message.end_time.ToMicroseconds(),
        window_us=message.window_duration.ToMicroseconds(),
        hop_us=message.hop_duration.ToMicroseconds(),
        event_count=message.event_count,
        newest_event_time_us=newest,
        is_exact=not message.inexact,
        tiles=_tiles(message.tiles),
    )


def _tiles(messages: Sequence[pb.FoldedTile]) -> tuple[TileFacts, ...]:
    return tuple(
        TileFacts(
            start_time_us=tile.start_time.ToMicroseconds(),
            width_us=tile.width_duration.ToMicroseconds(),
            event_count=tile.event_count,
            covered_offset=tile.covered_offset if tile.HasField("covered_offset") else None,
            is_batch=tile.batch,
        )
        for tile in messages
    )
