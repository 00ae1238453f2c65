"""Ports and the lock of a platform, before any server starts."""

import os
import queue
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control_plane.cli.endpoints import Endpoints
from control_plane.cli.processes import Child
from control_plane.cli.up import Launcher, UpOptions, free_port, platform
from control_plane.store.lock import locked_folder
from headrace.errors import FailedPrecondition, InvalidArgument

# A server whose own port is always taken by another program, so that only a port of the system's choice works.
UNLUCKY = """
import json, sys, threading
from concurrent.futures import ThreadPoolExecutor
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if arguments["--port"] != "0" or arguments["--metrics-port"] != "0":
    sys.exit(f"port {arguments['--port']} cannot be bound")
servicer = health.HealthServicer()
servicer.set("", health_pb2.HealthCheckResponse.SERVING)
server = grpc.server(ThreadPoolExecutor(1))
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(json.dumps({"event": "listening", "address": f"127.0.0.1:{port}", "metrics_port": 7}), flush=True)
threading.Event().wait()
"""


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_busy_port_is_passed_over(busy: int) -> None:
    assert free_port(busy) > busy


def test_port_that_is_taken_meanwhile_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unlucky").mkdir()
    (tmp_path / "unlucky" / "__init__.py").write_text("")
    (tmp_path / "unlucky" / "app.py").write_text(UNLUCKY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    children: list[Child] = []
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    launcher = Launcher(tmp_path, children, ended, any_ports=False)
    try:
        address, metrics = launcher.start("server", "unlucky", (), (None, 20_000, 21_000))
        assert address.startswith("127.0.0.1:") and metrics == "127.0.0.1:7"
        assert len(children) == 1
        assert ended.empty()
    finally:
        for child in children:
            child.stop()


@pytest.mark.parametrize("options", [lambda port: UpOptions(port=port), lambda port: UpOptions(feature_port=port)])
def test_busy_port_that_was_named_is_refused(tmp_path: Path, busy: int, options: Callable[[int], UpOptions]) -> None:
    with (
        pytest.raises(FailedPrecondition, match=f"{busy} is in use") as caught,
        platform(tmp_path, options(busy)),
    ):
        pass
    assert caught.value.reason == "PORT_IN_USE"


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_number_that_is_no_port_is_refused(tmp_path: Path, port: int) -> None:
    with pytest.raises(InvalidArgument, match="is not 1 to 65535"), platform(tmp_path, UpOptions(port=port)):
        pass


def test_second_platform_on_a_folder_is_refused_with_the_owner(tmp_path: Path) -> None:
    Endpoints(control="127.0.0.1:6570", pid=77).write(tmp_path)
    with locked_folder(tmp_path), pytest.raises(FailedPrecondition) as caught, platform(tmp_path):
        pass
    assert caught.value.reason == "DATA_FOLDER_IN_USE"
    assert "process 77, control plane at 127.0.0.1:6570" in caught.value.message


def test_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition, match="cannot be written"), platform(tmp_path / "file" / "data"):
        pass
