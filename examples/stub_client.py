"""Reads features with nothing but the generated stubs: `python examples/stub_client.py HOST:PORT`."""

import struct
import sys

import grpc

from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as stubs


def main(target: str) -> None:
    """One call for three users; a column's values are packed, little-endian, one slot per row."""
    users = [1, 2, 5]
    request = pb.GetOnlineFeaturesRequest(
        feature_service="shop.ranking.homepage",
        entity_columns=[pb.EntityColumn(join_key="user_id", int64_values=users)],
    )
    with grpc.insecure_channel(target) as channel:
        response = stubs.OnlineFeatureServiceStub(channel).GetOnlineFeatures(request, timeout=1.0)
    columns = {column.name: column for column in response.columns}
    baskets = columns["basket_value"]
    values = struct.unpack(f"<{len(users)}d", baskets.values)
    for user, value, status in zip(users, values, baskets.statuses, strict=True):
        state = status & 0x0F  # the high nibble holds flags
        print(user, value if state == pb.VALUE_STATE_PRESENT else pb.ValueState.keys()[state])


if __name__ == "__main__":
    main(sys.argv[1])
