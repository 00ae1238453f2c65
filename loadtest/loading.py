"""Applies the definitions of the load tests and writes their rows over gRPC."""

import argparse
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import grpc

from headrace.convert.definitions import set_to_pb
from loadtest.dataset import BATCH_ROWS, SERVICES, VIEWS, View, arrow_rows, definitions, key_ranges, row_count_of
from loadtest.rows import EVENT_TIME_US
from protos.control.v1 import registry_service_pb2, registry_service_pb2_grpc
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as rpc

APPLY_S: Final = 60.0
WRITE_S: Final = 60.0  # one batch, compaction stalls included
IN_FLIGHT: Final = 2  # batches; one is made while one is written
MESSAGE_BYTES_MAX: Final = 64 << 20


def apply_definitions(control: str) -> int:
    """Registers everything and returns the registry revision."""
    with grpc.insecure_channel(control, options=[("grpc.max_send_message_length", MESSAGE_BYTES_MAX)]) as channel:
        stub = registry_service_pb2_grpc.RegistryServiceStub(channel)
        request = registry_service_pb2.ApplyDefinitionsRequest(
            definitions=set_to_pb(definitions()), request_id=str(uuid.uuid4())
        )
        return int(stub.ApplyDefinitions(request, timeout=APPLY_S).registry_revision)


class Writer:
    """Sends Arrow batches through WriteFeatures at LOG with a few in flight; every batch must be acknowledged whole."""

    def __init__(self, features: str) -> None:
        options = [("grpc.max_send_message_length", MESSAGE_BYTES_MAX)]
        self._channel = grpc.insecure_channel(features, options=options)
        self._stub = rpc.OnlineFeatureServiceStub(self._channel)

    def send(self, requests: Iterable[pb.WriteFeaturesRequest]) -> int:
        """Rows acknowledged."""
        pending: deque[grpc.Future[pb.WriteFeaturesResponse]] = deque()
        row_count = 0
        for request in requests:
            if len(pending) >= IN_FLIGHT:
                row_count += pending.popleft().result().row_count
            pending.append(self._stub.WriteFeatures.future(request, timeout=WRITE_S))
        return row_count + sum(call.result().row_count for call in pending)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


def write_requests(
    view: View, keys: range, user_count: int, event_time_us: int = EVENT_TIME_US, batch_rows: int = BATCH_ROWS
) -> list[pb.WriteFeaturesRequest]:
    """Requests that write the rows of a range of keys, made before anything is timed."""
    return [
        pb.WriteFeaturesRequest(
            feature_view=view.reference,
            arrow_ipc=arrow_rows(view, batch, user_count, event_time_us),
            durability=pb.DURABILITY_LOG,
        )
        for batch in key_ranges(keys.start, len(keys), batch_rows)
    ]


def load(writer: Writer, views: Sequence[View], user_count: int) -> int:
    """Writes all rows of the views for so many users; returns the rows acknowledged."""
    row_count = 0
    for view in views:
        for batch in key_ranges(0, row_count_of(view, user_count), BATCH_ROWS * IN_FLIGHT * 2):
            keys = range(int(batch[0]), int(batch[-1]) + 1)
            row_count += writer.send(write_requests(view, keys, user_count))
    return row_count


def main() -> int:
    """Applies and loads the views of the named services."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", required=True, help="control plane, host:port")
    parser.add_argument("--features", required=True, help="feature server, host:port")
    parser.add_argument("--entities", type=int, default=1_000_000, help="users to load")
    parser.add_argument("--services", nargs="*", choices=sorted(SERVICES), default=sorted(SERVICES))
    options = parser.parse_args()
    revision = apply_definitions(options.control)
    wanted = {view.name for service in options.services for view in SERVICES[service]}
    writer = Writer(options.features)
    began = time.perf_counter()
    row_count = load(writer, [view for view in VIEWS if view.name in wanted], options.entities)
    spent_s = time.perf_counter() - began
    writer.close()
    rate = f"{row_count} rows in {spent_s:.1f} s, {row_count / spent_s:,.0f} rows/s"
    sys.stdout.write(f"registry revision {revision}, {rate}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
