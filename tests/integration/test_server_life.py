"""A feature server beside a real control plane: start, restart, registry gone or restored, refusals, telemetry."""

import hashlib
import io
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from control_plane import app as control_plane
from feature_server import app as feature_server
from feature_server.options import parse_options
from headrace.client.tls import open_channel
from headrace.convert.definitions import set_to_pb
from headrace.serving.logging import EventLog
from headrace.status import from_rpc_error
from protos.control.v1 import registry_service_pb2 as registry_pb
from protos.control.v1 import registry_service_pb2_grpc as registry_grpc
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as pb_grpc
from tests.unit.feature_server.parts import SERVICE, VIEW, ipc, shop_batch, shop_definitions

TIMEOUT_S = 20.0
ROOT = Path(__file__).parents[2]


@dataclass
class Server:
    """A running feature server."""

    address: str
    log: io.StringIO
    channel: grpc.Channel
    credentials: grpc.ChannelCredentials | None = None

    @property
    def stub(self) -> pb_grpc.OnlineFeatureServiceStub:
        return pb_grpc.OnlineFeatureServiceStub(self.channel)

    def new_channel(self) -> grpc.Channel:
        """Another channel, with a connection of its own."""
        return open_channel(self.address, (("grpc.use_local_subchannel_pool", 1),), self.credentials)

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def has_event(self, name: str) -> bool:
        return any(event["event"] == name for event in self.events())

    def is_serving(self, name: str = "") -> bool:
        request = health_pb2.HealthCheckRequest(service=name)
        answer = health_pb2_grpc.HealthStub(self.channel).Check(request, timeout=TIMEOUT_S)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def read(self, *keys: int) -> bytes:
        columns = [pb.EntityColumn(join_key="user_id", int64_values=keys)]
        request = pb.GetOnlineFeaturesRequest(feature_service=SERVICE, entity_columns=columns)
        return bytes(self.stub.GetOnlineFeatures(request, timeout=TIMEOUT_S).columns[0].statuses)

    def write(self, *keys: int) -> pb.WriteFeaturesResponse:
        now_us = time.time_ns() // 1_000
        request = pb.WriteFeaturesRequest(feature_view=VIEW, arrow_ipc=ipc(shop_batch(keys, now_us)))
        return self.stub.WriteFeatures(request, timeout=TIMEOUT_S)


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """A control plane."""
    arguments = ["--data", str(folder), "--port", "0"]
    options = control_plane._options(arguments)
    with control_plane.running(options, EventLog("control_plane", time.time, io.StringIO())) as port:
        yield f"127.0.0.1:{port}"


@contextmanager
def server(
    folder: Path, registry_address: str, *options: str, credentials: grpc.ChannelCredentials | None = None
) -> Iterator[Server]:
    """A feature server, and a channel to it that is TLS with credentials."""
    stream = io.StringIO()
    arguments = ["--data", str(folder), "--port", "0", "--registry", registry_address, "--shards", "2", *options]
    parsed = parse_options(arguments)
    with feature_server.running(parsed, EventLog("feature_server", time.time, stream)) as port:
        address = f"127.0.0.1:{port}"
        with open_channel(address, (), credentials) as channel:
            yield Server(address, stream, channel, credentials)


def apply(registry_address: str) -> None:
    with grpc.insecure_channel(registry_address) as channel:
        stub = registry_grpc.RegistryServiceStub(channel)
        definitions = set_to_pb(shop_definitions())
        stub.ApplyDefinitions(registry_pb.ApplyDefinitionsRequest(definitions=definitions), timeout=TIMEOUT_S)


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end_s, "the condition did not come"
        threading.Event().wait(0.005)


def test_registered_service_is_served_without_a_restart(tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as address, server(tmp_path / "store", address) as running:
        wait_until(running.is_serving)
        with pytest.raises(grpc.RpcError) as caught:
            running.read(1)
        assert from_rpc_error(caught.value).reason == "UNKNOWN_FEATURE_SERVICE"
        apply(address)
        wait_until(lambda: sum(event["event"] == "registry_served" for event in running.events()) == 2)
        running.write(1)
        assert running.read(1, 2) == bytes([1, 3])


def test_server_restarts_and_serves_without_its_registry(tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as address:
        apply(address)
        with server(tmp_path / "store", address) as running:
            wait_until(running.is_serving)
            token = running.write(1).tokens[0]
    with server(tmp_path / "store", address) as running:
        assert running.is_serving()
        assert running.read(1, 2) == bytes([1, 3])
        later = next(item for item in running.write(1).tokens if item.shard == token.shard)
        assert (later.epoch, later.offset) == (token.epoch, token.offset + 1)
        wait_until(lambda: running.has_event("registry_unreachable"))


def test_registry_that_forgot_ids_is_refused_and_the_last_good_one_served(tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as address:
        apply(address)
        with server(tmp_path / "store", address) as running:
            wait_until(running.is_serving)
            running.write(1)
    with registry(tmp_path / "empty") as address, server(tmp_path / "store", address) as running:
        wait_until(lambda: running.has_event("registry_refused"))
        assert running.read(1) == bytes([1])
    (tmp_path / "store" / "registry").write_bytes(b"damaged")
    with registry(tmp_path / "empty") as address, server(tmp_path / "store", address) as running:
        wait_until(lambda: running.has_event("registry_refused"))
        assert running.has_event("registry_copy_unusable")
        assert not running.is_serving()


def test_metrics_tell_calls_shards_and_registry(tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as address:
        apply(address)
        with server(tmp_path / "store", address, "--metrics-port", "0") as running:
            wait_until(running.is_serving)
            running.write(1)
            running.read(1)
            listening = next(event for event in running.events() if event["event"] == "listening")
            url = f"http://127.0.0.1:{listening['metrics_port']}/metrics"
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                text = answer.read().decode()
    read = 'rpc_method="headrace.feature.v1.OnlineFeatureService/GetOnlineFeatures",rpc_response_status_code="OK"'
    assert f"rpc_server_call_duration_seconds_count{{{read}" in text
    assert 'headrace_shard_state{shard="0"} 1.0' in text
    assert "headrace_registry_revision 1.0" in text
    assert "headrace_table_rows 1.0" in text


def test_tokens_are_asked_for_and_their_permissions_kept(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"reader").hexdigest()
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text(f"tokens: [{{sha256: '{digest}', principal: models.m, permissions: [FEATURE_READ]}}]")
    with registry(tmp_path / "registry") as address:
        apply(address)
        with server(tmp_path / "store", address, "--tokens", str(tokens)) as running:
            wait_until(running.is_serving)
            columns = [pb.EntityColumn(join_key="user_id", int64_values=[1])]
            read = pb.GetOnlineFeaturesRequest(feature_service=SERVICE, entity_columns=columns)
            with pytest.raises(grpc.RpcError) as caught:
                running.stub.GetOnlineFeatures(read, timeout=TIMEOUT_S)
            assert from_rpc_error(caught.value).reason == "TOKEN_REQUIRED"
            metadata = (("authorization", "Bearer reader"),)
            assert running.stub.GetOnlineFeatures(read, timeout=TIMEOUT_S, metadata=metadata).row_count == 1
            with pytest.raises(grpc.RpcError) as caught:
                running.stub.WriteFeatures(pb.WriteFeaturesRequest(), timeout=TIMEOUT_S, metadata=metadata)
            assert from_rpc_error(caught.value).reason == "PERMISSION_DENIED"


def run_process(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "feature_server.app", "--registry", "127.0.0.1:1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


def test_second_server_on_the_folder_or_a_taken_port_ends_with_one_line(tmp_path: Path) -> None:
    with server(tmp_path / "store", "127.0.0.1:1") as running:
        folder = run_process("--data", str(tmp_path / "store"))
        port = run_process("--data", str(tmp_path / "other"), "--port", running.address.rpartition(":")[2])
    for done, word in ((folder, "in use by another process"), (port, "cannot be bound")):
        assert done.returncode == 2
        assert word in done.stderr
        assert done.stderr.count("\n") == 1


def test_bind_beyond_loopback_without_tokens_is_refused(tmp_path: Path) -> None:
    done = run_process("--data", str(tmp_path / "store"), "--host", "0.0.0.0")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--tokens" in done.stderr
    assert not (tmp_path / "store").exists()
