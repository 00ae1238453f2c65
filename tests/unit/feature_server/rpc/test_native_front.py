"""What else the native loop answers itself, health and rows for peers: as the gRPC server behind it does."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from core_ext.keys import encode_key, storage_key
from feature_server.rpc.native_front import HAS_NATIVE, TRANSPORTS, NativeTransport
from feature_server.rpc.services import SERVICE_NAMES
from headrace.errors import DataLoss, HeadraceError
from headrace.serving.auth import TokenAuthenticator
from headrace.status import from_rpc_error
from protos.feature.v1 import shard_service_pb2 as pb
from protos.feature.v1 import shard_service_pb2_grpc as rpc
from tests.unit.feature_server.domain.test_reads import write
from tests.unit.feature_server.parts import Parts
from tests.unit.feature_server.served import LIMIT_S, Served, request, serving, until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
READER = "the token of a reader"
PEER = "the token of a peer"
ENTITY_ID, VIEW_ID = 2, 3  # of the shop: ids count up from the source


def health(served: Served, name: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(served.channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=LIMIT_S).status)


def stored_keys(parts: Parts, *keys: int) -> list[bytes]:
    assert parts.catalogue.view_of_id(VIEW_ID) is not None
    return [storage_key(ENTITY_ID, encode_key([3], [key]), VIEW_ID) for key in keys]


def rows(served: Served, keys: list[bytes], token: str = "", **fields: object) -> pb.BatchGetRowsResponse:
    message = pb.BatchGetRowsRequest(keys=keys, **fields)  # type: ignore[arg-type]  # fields of the message by name
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    return rpc.ShardServiceStub(served.channel).BatchGetRows(message, timeout=LIMIT_S, metadata=metadata)


def refused(served: Served, keys: list[bytes], token: str = "", **fields: object) -> HeadraceError:
    with pytest.raises(grpc.RpcError) as caught:
        rows(served, keys, token, **fields)
    return from_rpc_error(caught.value)


def test_health_follows_what_is_set_and_ends_with_the_drain(served: Served) -> None:
    assert health(served) == NOT_SERVING
    for name in ("", *SERVICE_NAMES, "shard/0", "läden"):
        served.health.set(name, is_serving=True)
        assert health(served, name) == SERVING
    served.health.set("shard/0", is_serving=False)
    assert (health(served, "shard/0"), health(served, "")) == (NOT_SERVING, SERVING)
    with pytest.raises(grpc.RpcError) as caught:
        health(served, "nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    served.health.drain()
    served.health.set("", is_serving=True)
    assert health(served) == NOT_SERVING


def test_health_costs_no_call_of_grpcio(native: Served) -> None:
    health(native)
    assert native.count("forwarded") == 0


def test_name_that_the_loop_has_no_room_for_is_told_by_the_server_behind(native: Served) -> None:
    long = "n" * 65
    native.health.set(long, is_serving=True)
    assert health(native, long) == SERVING
    assert native.count("forwarded") == 1


def test_rows_of_the_table_are_those_of_the_disk(served: Served, parts: Parts) -> None:
    write(parts, [1, 2], 40)
    keys = stored_keys(parts, 1, 999, 2, 1)
    parts.table.clear()
    from_disk = rows(served, keys)
    served.get(request([1, 2, 999]))
    from_table = rows(served, keys)
    assert from_table == from_disk
    assert [bool(row) for row in from_table.rows] == [True, False, True, True]
    assert len(rows(served, []).rows) == 0


def test_rows_of_the_table_cost_no_call_of_grpcio_and_are_counted(native: Served, parts: Parts) -> None:
    native.get(request([1]))
    rows(native, stored_keys(parts, 1))
    counts = native.native.counts()
    assert (counts["rows"]["answered"], counts["forwarded"]) == (1, 0)
    assert sum(counts["rows"]["buckets"]) == 1


def test_refusals_of_a_batch_are_alike(served: Served, parts: Parts) -> None:
    served.get(request([1]))
    key = stored_keys(parts, 1)
    assert refused(served, key, ring_epoch=7).reason == "RING_EPOCH"
    assert refused(served, [*key, b"short"]).reason == "BAD_STORAGE_KEY"
    assert refused(served, [*key, b""]).reason == "BAD_STORAGE_KEY"
    far = [{"shard": 77, "epoch": 1}]
    assert refused(served, key, min_offsets=far).reason == "UNKNOWN_SHARD"


def test_row_of_a_quarantined_shard_that_is_not_in_the_table_is_unavailable(served: Served, parts: Parts) -> None:
    parts.shards[parts.shard_of(5)].quarantine(DataLoss("damaged", reason="STORAGE_CORRUPT"))
    parts.table.clear()
    assert list(rows(served, stored_keys(parts, 5)).unavailable_rows) == [0]


@dataclass
class Tokens:
    path: Path

    def write(self, **permissions: str) -> None:
        entries = "".join(
            f"\n- {{sha256: '{hashlib.sha256(token.encode()).hexdigest()}', principal: p, permissions: [{held}]}}"
            for token, held in ((READER, permissions["reader"]), (PEER, permissions["peer"]))
        )
        self.path.write_text(f"tokens:{entries}\n")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_method_asks_for_its_own_permission(transport: str, parts: Parts, tmp_path: Path) -> None:
    if transport == NativeTransport.name and not HAS_NATIVE:
        pytest.skip("the native loop was not compiled in")
    tokens = Tokens(tmp_path / "tokens.yaml")
    tokens.write(reader="FEATURE_READ", peer="PEER")
    authenticator = TokenAuthenticator(tokens.path, lambda: 0.0, parts.log)
    with serving(parts, transport, authenticator) as served:
        assert health(served) == NOT_SERVING, "health is open on loopback"
        keys = stored_keys(parts, 1)
        for _ in range(2):  # from disk, then from the table
            served.read(request([1]), timeout=LIMIT_S, metadata=(("authorization", f"Bearer {READER}"),))
            assert len(rows(served, keys, PEER).rows) == 1
            assert refused(served, keys, READER).reason == "PERMISSION_DENIED"
            assert refused(served, keys, "stranger").reason == "TOKEN_UNKNOWN"
            assert refused(served, keys).reason == "TOKEN_REQUIRED"
            with pytest.raises(grpc.RpcError) as caught:
                served.read(request([1]), timeout=LIMIT_S, metadata=(("authorization", f"Bearer {PEER}"),))
            assert from_rpc_error(caught.value).reason == "PERMISSION_DENIED"


@pytest.mark.skipif(not HAS_NATIVE, reason="the native loop was not compiled in")
def test_permission_that_was_taken_away_is_refused_on_an_open_connection(parts: Parts, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.yaml")
    tokens.write(reader="FEATURE_READ", peer="PEER")
    now_s = [0.0]
    authenticator = TokenAuthenticator(tokens.path, lambda: now_s[0], parts.log)
    with serving(parts, NativeTransport.name, authenticator) as served:
        served.read(request([1]), timeout=LIMIT_S, metadata=(("authorization", f"Bearer {READER}"),))
        keys = stored_keys(parts, 1)
        assert len(rows(served, keys, PEER).rows) == 1
        assert served.native.counts()["rows"]["answered"] == 1
        tokens.write(reader="FEATURE_READ", peer="FEATURE_READ")
        now_s[0] = 10.0

        def is_refused() -> bool:
            try:
                rows(served, keys, PEER)
            except grpc.RpcError as error:
                return bool(from_rpc_error(error).reason == "PERMISSION_DENIED")
            return False

        until(is_refused)
