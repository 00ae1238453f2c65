"""Adds the services of the feature server to a gRPC server."""

from collections.abc import Mapping
from typing import Final

import grpc

from feature_server.rpc.feature_servicer import FeatureServicer
from feature_server.rpc.inspection_servicer import InspectionServicer
from feature_server.rpc.shard_servicer import ShardServicer
from headrace.serving.calls import add_service
from headrace.serving.logging import EventLog
from headrace.serving.permissions import method_permissions
from headrace.serving.telemetry import Telemetry
from protos.feature.v1 import inspection_service_pb2, online_feature_service_pb2, shard_service_pb2

ONLINE: Final = online_feature_service_pb2.DESCRIPTOR.services_by_name["OnlineFeatureService"]
SHARD: Final = shard_service_pb2.DESCRIPTOR.services_by_name["ShardService"]
INSPECTION: Final = inspection_service_pb2.DESCRIPTOR.services_by_name["InspectionService"]
SERVICE_NAMES: Final = (ONLINE.full_name, SHARD.full_name, INSPECTION.full_name)


def permissions() -> Mapping[str, str]:
    """Permission by method of every service."""
    return method_permissions(
        online_feature_service_pb2.DESCRIPTOR, shard_service_pb2.DESCRIPTOR, inspection_service_pb2.DESCRIPTOR
    )


def add_services(
    server: grpc.Server,
    online: FeatureServicer,
    shard: ShardServicer,
    telemetry: Telemetry,
    log: EventLog,
    *,
    inspection: InspectionServicer,
) -> None:
    """GetOnlineFeatures is served from bytes to bytes, everything else by messages."""
    raw = {"GetOnlineFeatures": online.get_online_features}
    add_service(server, ONLINE, online, telemetry, log, raw=raw)
    add_service(server, SHARD, shard, telemetry, log)
    add_service(server, INSPECTION, inspection, telemetry, log)
