"""The server as a process: one line when it listens, a clean stop, one owner per folder."""

import hashlib
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from control_plane.app import main
from headrace.convert.definitions import set_to_pb
from headrace.status import from_rpc_error
from protos.control.v1 import registry_service_pb2 as pb
from protos.control.v1 import registry_service_pb2_grpc as rpc
from tests.unit.headrace.definitions.samples import whole_set

LIMIT_S = 60.0
APPLY = pb.ApplyDefinitionsRequest(definitions=set_to_pb(whole_set()))


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """The server takes the signals of its process; a test gives them back."""
    held = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in held.items():
        signal.signal(number, handler)


@contextmanager
def server(repository: Path, data: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """A running process and the fields of its `listening` line."""
    command = [sys.executable, "-m", "control_plane.app", "--data", str(data), "--port", "0", *arguments]
    with subprocess.Popen(
        command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def registered_count(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        response = rpc.RegistryServiceStub(channel).ListSources(pb.ListSourcesRequest(), timeout=LIMIT_S)
    return len(response.sources)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_cleanly_and_what_was_applied_is_there_again(
    tmp_path: Path, repository: Path, number: signal.Signals
) -> None:
    with server(repository, tmp_path) as (process, line):
        assert line["event"] == "listening"
        with grpc.insecure_channel(line["address"]) as channel:
            stub = rpc.RegistryServiceStub(channel)
            states = stub.WatchRegistry(pb.WatchRegistryRequest(), timeout=LIMIT_S)
            next(states)
            assert stub.ApplyDefinitions(APPLY, timeout=LIMIT_S).registry_revision == 1
            process.send_signal(number)
            assert process.wait(LIMIT_S) == 0
            with pytest.raises(grpc.RpcError):
                list(states)
        assert process.stderr is not None and process.stderr.read() == ""
    with server(repository, tmp_path) as (_, line):
        assert registered_count(line["address"]) == 1


def test_killed_server_keeps_what_it_acknowledged(tmp_path: Path, repository: Path) -> None:
    with server(repository, tmp_path) as (process, line):
        with grpc.insecure_channel(line["address"]) as channel:
            rpc.RegistryServiceStub(channel).ApplyDefinitions(APPLY, timeout=LIMIT_S)
        process.kill()
        process.wait(LIMIT_S)
    with server(repository, tmp_path) as (_, line):
        assert registered_count(line["address"]) == 1


def test_second_server_on_the_same_folder_is_refused_in_one_line(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(repository, tmp_path) as (process, line):
        assert main(["--data", str(tmp_path)]) == 2
        assert capsys.readouterr().err == (
            f"control_plane: data folder {tmp_path} is in use by process {process.pid}; "
            "stop it or choose another folder\n"
        )
        assert registered_count(line["address"]) == 0, "the first keeps serving"


def test_health_reflection_and_metrics_are_served(tmp_path: Path, repository: Path) -> None:
    with server(repository, tmp_path, "--metrics-port", "0") as (_, line):
        registered_count(line["address"])
        with grpc.insecure_channel(line["address"]) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for service in ("", "headrace.control.v1.RegistryService"):
                answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=LIMIT_S)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with urllib.request.urlopen(f"http://127.0.0.1:{line['metrics_port']}/metrics", timeout=LIMIT_S) as response:
            text = response.read().decode()
        assert "RegistryService/ListSources" in text
        assert "headrace_registry_watchers" in text


def test_caller_shows_a_token_where_the_server_asks_for_one(tmp_path: Path, repository: Path) -> None:
    tokens = tmp_path / "tokens.yaml"
    digest = hashlib.sha256(b"secret").hexdigest()
    entry = {"sha256": digest, "principal": "reader", "permissions": ["REGISTRY_READ"]}
    tokens.write_text(json.dumps({"tokens": [entry]}))
    with (
        server(repository, tmp_path / "data", "--tokens", str(tokens)) as (_, line),
        grpc.insecure_channel(line["address"]) as channel,
    ):
        stub = rpc.RegistryServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListSources(pb.ListSourcesRequest(), timeout=LIMIT_S)
        assert from_rpc_error(caught.value).code == "UNAUTHENTICATED"
        metadata = (("authorization", "Bearer secret"),)
        assert len(stub.ListSources(pb.ListSourcesRequest(), metadata=metadata, timeout=LIMIT_S).sources) == 0
        assert next(stub.WatchRegistry(pb.WatchRegistryRequest(), metadata=metadata, timeout=LIMIT_S)) is not None
        with pytest.raises(grpc.RpcError) as caught:
            stub.ApplyDefinitions(APPLY, metadata=metadata, timeout=LIMIT_S)
        assert from_rpc_error(caught.value).code == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "beyond loopback and there is no token file"),
        (["--tokens", "missing.yaml"], "token file missing.yaml cannot be read"),
        (["--data", "/dev/null/data"], "cannot be written"),
    ],
)
def test_start_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["--data", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["--data", "x", "--port", "65536"], ["--data", "x", "--port", "many"]])
def test_wrong_argument_exits_with_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_port_in_use_is_refused_and_the_folder_is_free_again(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(repository, tmp_path / "first") as (_, line):
        for _ in range(2):
            assert main(["--data", str(tmp_path / "second"), "--port", str(line["port"])]) == 2
            assert "cannot be bound" in capsys.readouterr().err
