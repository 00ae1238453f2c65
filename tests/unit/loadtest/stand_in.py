"""A small feature server that computes the rows of the load tests; started by the tests of the load generators."""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np

from loadtest.dataset import SERVICES, item_count_of, item_of
from loadtest.rows import values
from protos.feature.v1 import online_feature_service_pb2 as pb

USER_COUNT = 1_000
SERVICE = "headrace.feature.v1.OnlineFeatureService"


class StandIn:
    """Answers every user; `stall_s` holds each answer back, `spoil` changes one value."""

    def __init__(self, stall_s: float, spoil: bool) -> None:
        self._stall_s = stall_s
        self._spoil = spoil

    def prepare(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        service = pb.PrepareFeatureSetRequest.FromString(request).feature_service
        return pb.PrepareFeatureSetResponse(handle=service.encode()).SerializeToString()

    def read(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        request = pb.GetOnlineFeaturesRequest.FromString(message)
        time.sleep(self._stall_s)
        columns = {column.join_key: np.array(column.int64_values) for column in request.entity_columns}
        users = columns["user_id"]
        answer = pb.GetOnlineFeaturesResponse(row_count=len(users))
        for view in SERVICES[request.handle.decode()]:
            items = item_of(users, item_count_of(USER_COUNT))
            rows = values(view.index, items if view.entity.endswith(".item") else users, view.feature_count)
            rows[0, 0] += self._spoil
            for number in range(view.feature_count):
                column = answer.columns.add(values=rows[:, number].astype("<f4").tobytes())
                column.statuses = bytes([pb.VALUE_STATE_PRESENT]) * len(users)
        return answer.SerializeToString()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stall-s", type=float, default=0.0)
    parser.add_argument("--spoil", action="store_true")
    options = parser.parse_args()
    server = grpc.server(ThreadPoolExecutor(4))
    stand_in = StandIn(options.stall_s, options.spoil)
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "PrepareFeatureSet": grpc.unary_unary_rpc_method_handler(stand_in.prepare),
        "GetOnlineFeatures": grpc.unary_unary_rpc_method_handler(stand_in.read),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    sys.stdout.write(f"{server.add_insecure_port('127.0.0.1:0')}\n")
    sys.stdout.flush()
    server.start()
    server.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(main())
