"""Servicer of headrace.feature.v1.InspectionService."""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta
from typing import Final

import grpc
from google.protobuf import duration_pb2, timestamp_pb2

from core_ext.window_tiles import FoldedTile
from feature_server.domain.explained import ExplainedFeature, FoundRow, Place, WindowFacts
from feature_server.domain.explanations import Explanations, KeyPart
from feature_server.domain.reclaim import Reclaim
from feature_server.domain.storage_use import ShardUse, StorageUse, ViewUse
from headrace.convert.values import duration_to_pb, type_to_pb
from headrace.errors import InvalidArgument
from headrace.serving.principal import Principal
from protos.feature.v1 import inspection_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2 as pb_online

_KEY_FIELDS: Final = ("int64_values", "string_values", "bytes_values")


class InspectionServicer:
    """Converts messages, calls the domain, converts back."""

    def __init__(
        self, explanations: Explanations, storage: StorageUse, reclaim: Reclaim, principal: Callable[[], Principal]
    ) -> None:
        self._explanations = explanations
        self._storage = storage
        self._reclaim = reclaim
        self._principal = principal

    def ExplainFeature(  # noqa: N802 - named by the contract
        self, request: pb.ExplainFeatureRequest, context: grpc.ServicerContext
    ) -> pb.ExplainFeatureResponse:
        """Explains one feature of one entity."""
        found = self._explanations.explain(
            self._principal(),
            request.feature,
            _keys(request.entity_columns),
            lambda join_keys, with_data: _read(request, join_keys, with_data=with_data),
            has_request_data=bool(request.request_columns),
        )
        columns = pb_online.GetOnlineFeaturesResponse.FromString(found.answer).columns
        return pb.ExplainFeatureResponse(
            explanation=_feature_to_pb(found.feature, columns, found.read_time_us),
            read_time=_time(found.read_time_us),
            registry_revision=found.revision,
        )

    def MeasureStorage(  # noqa: N802 - named by the contract
        self, request: pb.MeasureStorageRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.MeasureStorageResponse]:
        """Measures shard by shard."""
        for use in self._storage.measure(self._principal(), request.shards, context.is_active):
            yield _use_to_pb(use)

    def ReclaimStorage(  # noqa: N802 - named by the contract
        self, request: pb.ReclaimStorageRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ReclaimStorageResponse]:
        """Takes rows of retired versions away, shard by shard."""
        for done in self._reclaim.run(self._principal(), context.is_active):
            yield pb.ReclaimStorageResponse(
                shard=done.shard, row_count=done.row_count, row_bytes=done.row_bytes, problem=done.problem
            )


def _keys(columns: Sequence[pb_online.EntityColumn]) -> dict[str, KeyPart | None]:
    keys: dict[str, KeyPart | None] = {}
    for index, column in enumerate(columns):
        values = [value for field in _KEY_FIELDS for value in getattr(column, field)]
        if len(values) != 1 or column.join_key in keys:
            raise InvalidArgument(
                f"join key {column.join_key!r} has {len(values)} values or stands twice; explain one entity at a time",
                reason="ONE_ENTITY",
                field=f"entity_columns[{index}]",
                metadata={"join_key": column.join_key},
            )
        keys[column.join_key] = None if column.null_rows else values[0]
    return keys


def _read(request: pb.ExplainFeatureRequest, join_keys: Collection[str], *, with_data: bool) -> bytes:
    """The read that the explanation is of."""
    return pb_online.GetOnlineFeaturesRequest(
        features=[request.feature],
        entity_columns=[column for column in request.entity_columns if column.join_key in join_keys],
        request_columns=request.request_columns if with_data else (),
        options=pb_online.ReadOptions(include_event_times=True),
    ).SerializeToString()


def _feature_to_pb(
    feature: ExplainedFeature, columns: Sequence[pb_online.FeatureColumn], read_time_us: int
) -> pb.ExplainedFeature:
    answered = feature.answered
    return pb.ExplainedFeature(
        feature=feature.column.reference,
        transform=feature.transform,
        column=None if answered is None else columns[answered.column],
        reasons=[pb.Reason(code=reason.code, message=reason.message) for reason in feature.reasons],
        row=None if feature.place is None or feature.found is None else _row_to_pb(feature.place, feature.found),
        window=None if feature.window is None else _window_to_pb(feature.window, read_time_us),
        inputs=[_feature_to_pb(one, columns, read_time_us) for one in feature.inputs],
        request_fields=[
            pb_online.RequestField(name=name, value_type=type_to_pb(kind))
            for name, kind in feature.request_fields.items()
        ],
    )


def _row_to_pb(place: Place, found: FoundRow) -> pb.ExplainedRow:
    row = pb.ExplainedRow(
        slot=place.slot,
        shard=place.shard,
        view_id=int.from_bytes(place.storage_key[-4:], "big"),
        cached=found.is_cached,
    )
    if found.header is None or found.row is None:
        return row
    header = found.header
    row.stored, row.erased, row.drained = True, found.is_erased, found.is_drained
    row.schema_id, row.source_id, row.source = header.schema_id, header.source_id, found.source
    row.partition, row.offset = header.partition, header.offset
    row.event_time.CopyFrom(_time(header.event_time_us))
    row.write_time.CopyFrom(_time(header.write_time_us))
    row.available_time.CopyFrom(_time(header.available_time_us))
    row.row_bytes, row.tile_map_bytes = len(found.row), len(found.tile_map or b"")
    return row


def _window_to_pb(window: WindowFacts, read_time_us: int) -> pb.ExplainedWindow:
    newest_us = window.folded.newest_us
    return pb.ExplainedWindow(
        start_time=_time(window.folded.start_us),
        end_time=_time(read_time_us),
        window_duration=_span(window.window_us),
        hop_duration=_span(window.hop_us),
        tiles=[_tile_to_pb(tile) for tile in window.folded.tiles],
        event_count=window.event_count,
        newest_event_time=None if newest_us is None else _time(newest_us),
        inexact=not window.is_exact,
    )


def _tile_to_pb(tile: FoldedTile) -> pb.FoldedTile:
    return pb.FoldedTile(
        start_time=_time(tile.start_us),
        width_duration=_span(tile.width_us),
        event_count=tile.event_count,
        covered_offset=tile.covered_offset,
        batch=tile.is_batch,
    )


def _use_to_pb(use: ShardUse) -> pb.MeasureStorageResponse:
    return pb.MeasureStorageResponse(
        shard=use.shard,
        problem=use.problem,
        disk_bytes=use.disk_bytes,
        row_log_bytes=use.row_log_bytes,
        views=[_view_to_pb(use.views[view_id]) for view_id in sorted(use.views)],
        served_log_bytes=use.served_log_bytes,
        measure_time=_time(use.measured_us),
    )


def _view_to_pb(use: ViewUse) -> pb.ViewStorage:
    layout = use.layout
    return pb.ViewStorage(
        feature_view="" if layout is None else layout.ref,
        view_id=use.view_id,
        owner="" if layout is None else layout.definition.owner,
        retired=layout is not None and not layout.is_active,
        row_count=use.row_count,
        row_bytes=use.row_bytes,
        expired_count=use.expired_count,
        expired_bytes=use.expired_bytes,
        tombstone_count=use.tombstone_count,
        tombstone_bytes=use.tombstone_bytes,
        logged_count=use.logged_count,
        logged_bytes=use.logged_bytes,
    )


def _time(time_us: int) -> timestamp_pb2.Timestamp:
    seconds, rest = divmod(time_us, 1_000_000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=rest * 1_000)


def _span(span_us: int) -> duration_pb2.Duration:
    return duration_to_pb(timedelta(microseconds=span_us))
