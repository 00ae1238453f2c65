"""What a gRPC client sees is the same on both transports; the grpcio server is the oracle of the native loop."""

import hashlib
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from feature_server.rpc.native_front import HAS_NATIVE, TRANSPORTS
from headrace.client.tls import channel_credentials
from headrace.status import from_rpc_error
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as pb_grpc
from protos.feature.v1 import shard_service_pb2, shard_service_pb2_grpc
from tests.integration import frames
from tests.integration.certificates import Authority
from tests.integration.frames import raw_client
from tests.integration.test_server_life import Server, apply, registry, server, wait_until
from tests.unit.feature_server.parts import SERVICE, VIEW, ipc, shop_batch

TIMEOUT_S = 20.0
KEYS = range(200)
METHOD = frames.READ_PATH


@dataclass
class Running(Server):
    """A server, and how a client of frames speaks to it."""

    tls: ssl.SSLContext | None = None

    def raw(self) -> AbstractContextManager[frames.RawClient]:
        return raw_client(port_of(self), tls=self.tls)


@pytest.fixture(scope="module", params=[f"{name}-{line}" for name in TRANSPORTS for line in ("plain", "tls")])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A loaded server on one transport, plain or TLS."""
    name, line = request.param.split("-")
    if name == "native" and not HAS_NATIVE:
        pytest.skip("the native loop was not compiled in")
    folder = tmp_path_factory.mktemp(request.param)
    options, tls, credentials = ["--transport", name, "--loops", "2"], None, None
    if line == "tls":
        authority = Authority(folder)
        pair = authority.issue("server")
        options += ["--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)]
        tls = ssl.create_default_context(cafile=str(authority.file))
        tls.set_alpn_protocols(["h2"])
        credentials = channel_credentials(authority.file)
    with registry(folder / "registry") as address:
        apply(address)
        with server(folder / "store", address, *options, credentials=credentials) as plain:
            started = Running(plain.address, plain.log, plain.channel, credentials, tls)
            wait_until(started.is_serving)
            started.write(*KEYS)
            yield started


def tokens_file(**permissions: list[str]) -> str:
    """Token file whose tokens are the names."""
    entries = [
        {"sha256": hashlib.sha256(name.encode()).hexdigest(), "principal": name, "permissions": held}
        for name, held in permissions.items()
    ]
    return yaml.safe_dump({"tokens": entries})


def read_request(*keys: int, service: str = SERVICE, **options: Any) -> pb.GetOnlineFeaturesRequest:
    columns = [pb.EntityColumn(join_key="user_id", int64_values=keys)]
    return pb.GetOnlineFeaturesRequest(
        feature_service=service, entity_columns=columns, options=pb.ReadOptions(**options)
    )


def raw_read(channel: grpc.Channel, method: str = METHOD) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return call


def failure(running: Server, request: bytes, **options: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        raw_read(running.channel)(request, timeout=TIMEOUT_S, **options)
    return caught.value


def port_of(running: Server) -> int:
    return int(running.address.rpartition(":")[2])


def test_values_statuses_and_missing_rows(running: Running) -> None:
    answer = running.stub.GetOnlineFeatures(read_request(1, 2, 100_000), timeout=TIMEOUT_S)
    assert [column.name for column in answer.columns]
    assert {column.statuses for column in answer.columns} == {bytes([1, 1, 3])}
    again = running.stub.GetOnlineFeatures(read_request(1, 2, 100_000), timeout=TIMEOUT_S)
    answer.ClearField("read_time_us")
    again.ClearField("read_time_us")
    assert answer == again, "a row that was missed and one that is known to be missing read alike"


@pytest.mark.parametrize(
    ("request_bytes", "code", "reason"),
    [
        (b"", "INVALID_ARGUMENT", "NO_SELECTION"),
        (b"\xff\xff", "INVALID_ARGUMENT", "MALFORMED_REQUEST"),
        (read_request(1, service="shop.web.none").SerializeToString(), "NOT_FOUND", "UNKNOWN_FEATURE_SERVICE"),
    ],
)
def test_errors_carry_code_and_details(running: Running, request_bytes: bytes, code: str, reason: str) -> None:
    error = failure(running, request_bytes)
    assert (error.code().name, from_rpc_error(error).reason) == (code, reason)


def test_every_other_method_is_served_on_the_same_port(running: Running) -> None:
    shards = shard_service_pb2_grpc.ShardServiceStub(running.channel)
    assert len(shards.ListShards(shard_service_pb2.ListShardsRequest(), timeout=TIMEOUT_S).shards) == 2
    now_us = time.time_ns() // 1_000
    one = pb.WriteFeaturesRequest(feature_view=VIEW, arrow_ipc=ipc(shop_batch([7], now_us)))
    stream = running.stub.IngestFeatures(iter([pb.IngestFeaturesRequest(write=one)] * 3), timeout=TIMEOUT_S)
    assert [answer.write.row_count for answer in stream] == [1, 1, 1]
    prepared = running.stub.PrepareFeatureSet(pb.PrepareFeatureSetRequest(feature_service=SERVICE), timeout=TIMEOUT_S)
    by_handle = read_request(1)
    by_handle.feature_service = ""
    by_handle.handle = prepared.handle
    assert len(running.stub.GetOnlineFeatures(by_handle, timeout=TIMEOUT_S).columns) == len(prepared.columns)


def test_unknown_method_is_unimplemented(running: Running) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        raw_read(running.channel, "/headrace.feature.v1.OnlineFeatureService/Nothing")(b"", timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_compressed_request_is_answered(running: Running) -> None:
    answer = running.stub.GetOnlineFeatures(read_request(*KEYS), timeout=TIMEOUT_S, compression=grpc.Compression.Gzip)
    assert answer.row_count == len(KEYS)


def test_deadline_that_is_over_is_told(running: Running) -> None:
    with running.raw() as client:
        block = frames.request_fields(METHOD, ("grpc-timeout", "0n"))
        body = frames.message(read_request(1).SerializeToString())
        client.send(frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block))
        client.send(frames.frame(frames.DATA, frames.END_STREAM, 1, body))
        first = next(found for found in client.frames() if found[2] == 1)
        assert first[1] & frames.END_STREAM or first[0] == frames.RST_STREAM


def test_metadata_beyond_its_limit_is_refused_and_the_next_call_served(running: Running) -> None:
    error = failure(running, read_request(1).SerializeToString(), metadata=(("x-large", "a" * (40 << 10)),))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert running.read(1) == bytes([1])


def test_message_beyond_its_limit_is_refused(running: Running) -> None:
    error = failure(running, bytes(65 << 20))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert running.read(1) == bytes([1])


def test_request_larger_than_a_window_is_answered(running: Running) -> None:
    keys = [number % 200 for number in range(10_000)]
    padded = read_request(*keys)
    padded.entity_columns[0].int64_values[0] = 1
    data = padded.SerializeToString()
    unknown = b"\xfa\x3f\xff\xff\x1f" + bytes((1 << 19) - 1)  # a field that nobody knows, half a megabyte
    answer = pb.GetOnlineFeaturesResponse.FromString(raw_read(running.channel)(data + unknown, timeout=TIMEOUT_S))
    assert answer.row_count == 10_000


def test_cancelled_calls_leave_the_connection_whole(running: Running) -> None:
    stub = raw_read(running.channel)
    data = read_request(*KEYS).SerializeToString()
    for _ in range(50):
        stub.future(data, timeout=TIMEOUT_S).cancel()
    assert running.read(1) == bytes([1])


@pytest.mark.parametrize("count", [1, 32, 1_000])
def test_concurrent_streams_of_one_connection(running: Running, count: int) -> None:
    stub = raw_read(running.channel)
    data = read_request(1, 2, 3).SerializeToString()
    stub(data, timeout=TIMEOUT_S)
    calls = [stub.future(data, timeout=TIMEOUT_S) for _ in range(count)]
    assert {pb.GetOnlineFeaturesResponse.FromString(call.result()).row_count for call in calls} == {3}


def test_large_answer_to_a_slow_reader_holds_up_nobody(running: Running) -> None:
    keys = [number % 200 for number in range(800)]
    body = frames.message(read_request(*keys, include_event_times=True).SerializeToString())
    with running.raw() as client:
        for stream in range(1, 17, 2):
            client.send(
                frames.frame(frames.HEADERS, frames.END_HEADERS, stream, frames.request_fields()),
                frames.frame(frames.DATA, frames.END_STREAM, stream, body),
            )
        assert client.until(frames.DATA)
        assert running.read(1) == bytes([1])  # while windows of 64 KiB hold back the rest
        got = 0
        client.send(frames.frame(frames.WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big")))
        for stream in range(1, 17, 2):
            client.send(frames.frame(frames.WINDOW_UPDATE, 0, stream, (1 << 30).to_bytes(4, "big")))
        ended: set[int] = set()
        for kind, flags, stream, payload in client.frames():
            got += len(payload) if kind == frames.DATA else 0
            if kind == frames.HEADERS and flags & frames.END_STREAM:
                ended.add(stream)
            if len(ended) == 8:
                break
        assert got > 8 * 800 * 10


def test_half_close_without_a_message_and_a_message_without_half_close(running: Running) -> None:
    body = frames.message(read_request(1).SerializeToString())
    with running.raw() as client:
        client.send(frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, frames.request_fields()))
        client.send(frames.frame(frames.HEADERS, frames.END_HEADERS, 3, frames.request_fields()))
        client.send(frames.frame(frames.DATA, 0, 3, body))
        client.send(frames.frame(frames.DATA, frames.END_STREAM, 3))
        seen: set[tuple[int, int]] = set()  # which of the two is answered first is open
        refused = {(1, frames.HEADERS), (1, frames.RST_STREAM)}  # unary calls have a message
        for kind, _, stream, _ in client.frames():
            seen.add((stream, kind))
            if (3, frames.DATA) in seen and seen & refused:
                break
        assert (1, frames.DATA) not in seen


def test_message_in_many_small_frames(running: Running) -> None:
    body = frames.message(read_request(*KEYS).SerializeToString())
    with running.raw() as client:
        client.send(frames.frame(frames.HEADERS, frames.END_HEADERS, 1, frames.request_fields()))
        for at in range(0, len(body), 7):
            client.send(frames.frame(frames.DATA, 0, 1, body[at : at + 7]))
        client.send(frames.frame(frames.DATA, frames.END_STREAM, 1))
        assert client.until(frames.DATA, 1)


def test_many_connections_at_once(running: Running) -> None:
    def one(number: int) -> bytes:
        with running.new_channel() as channel:
            return (
                pb_grpc.OnlineFeatureServiceStub(channel)
                .GetOnlineFeatures(read_request(number % 200), timeout=TIMEOUT_S)
                .columns[0]
                .statuses
            )

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(one, range(100))) == {bytes([1])}


def test_identity_from_outside_is_dropped_and_a_trace_is_not(running: Running) -> None:
    data = read_request(1).SerializeToString()
    metadata = (("headrace-sampled", "1"), ("traceparent", "00-" + "1" * 32 + "-" + "2" * 16 + "-01"))
    assert raw_read(running.channel)(data, timeout=TIMEOUT_S, metadata=metadata)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_tokens_are_asked_for_and_a_revoked_one_is_refused(transport: str, tmp_path: Path) -> None:
    if transport == "native" and not HAS_NATIVE:
        pytest.skip("the native loop was not compiled in")
    file = tmp_path / "tokens.yaml"
    file.write_text(tokens_file(reader=["FEATURE_READ"], writer=["FEATURE_WRITE"]))
    with registry(tmp_path / "registry") as address:
        apply(address)
        options = ("--tokens", str(file), "--transport", transport)
        with server(tmp_path / "store", address, *options) as running:
            wait_until(running.is_serving)
            data = read_request(1).SerializeToString()
            stub = raw_read(running.channel)

            def code(token: str | None) -> str:
                metadata = (("authorization", f"Bearer {token}"),) if token else ()
                try:
                    stub(data, timeout=TIMEOUT_S, metadata=metadata)
                except grpc.RpcError as error:
                    return str(error.code().name)
                return "OK"

            wait_until(lambda: code("reader") == "OK")
            found = [code(token) for token in ("reader", "reader", "writer", "stranger", None)]
            assert found == ["OK", "OK", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNAUTHENTICATED"]
            file.write_text(tokens_file(writer=["FEATURE_WRITE"]))
            wait_until(lambda: code("reader") == "UNAUTHENTICATED")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_drain_lets_running_streams_end(transport: str, tmp_path: Path) -> None:
    if transport == "native" and not HAS_NATIVE:
        pytest.skip("the native loop was not compiled in")
    with registry(tmp_path / "registry") as address:
        apply(address)
        with server(tmp_path / "store", address, "--transport", transport) as running:
            wait_until(running.is_serving)
            port = port_of(running)
            running.write(1)
            assert running.read(1) == bytes([1])
            connection = raw_client(port)
            client = connection.__enter__()
            client.send(frames.frame(frames.PING, 0, 0, bytes(8)))
            client.until(frames.PING)
            heard: list[int] = []
            listener = threading.Thread(target=lambda: heard.extend(client.ends()))
            listener.start()
        listener.join(TIMEOUT_S)
        connection.__exit__(None, None, None)
    assert frames.GOAWAY in heard
    assert not listener.is_alive(), "the connection is closed at the end"
