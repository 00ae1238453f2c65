"""Clients of other languages see what the contract says, on both transports, plain and by TLS."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from feature_server.rpc.native_front import TRANSPORTS
from tests.interop.cases import EXPECTED
from tests.interop.servers import ROOT, Target, target

LIMIT_S = 60
READERS = 8  # of a client that reads until the server is gone
LANGUAGES = ("node", "java", "go")
HERE = Path(__file__).parent
NODE_PACKAGES = ROOT / ".cache/npm/interop/node_modules"
JARS = ROOT / ".cache/jars/grpc"
GO = ROOT / ".cache/go"
GO_LIMIT_S = 240  # the modules are compiled by `make setup`; this compiles the client and links
Command = Callable[[Path], list[str]]


def environment() -> dict[str, str]:
    """That of the tests, in which Node finds its packages."""
    return os.environ | {"NODE_PATH": str(NODE_PACKAGES)}


@pytest.fixture(scope="session")
def node() -> Command:
    """The command line of the client of Node."""
    assert NODE_PACKAGES.is_dir(), "the packages of tests/interop/node are not there: run `make setup`"
    return lambda config: ["node", str(HERE / "node/client.js"), str(config)]


@pytest.fixture(scope="session")
def java(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command line of the client of Java, compiled once."""
    assert JARS.is_dir(), "the jars of tools/jars/grpc.lock are not there: run `make setup`"
    classes, sources = tmp_path_factory.mktemp("java"), sorted(map(str, (HERE / "java").glob("*.java")))
    command = ["javac", "-d", str(classes), "-cp", f"{JARS}/*", *sources]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    line = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{classes}:{JARS}/*", "Client"]
    return lambda config: [*line, str(config)]


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command line of the client of Go, compiled once, from nothing but what the set-up brought."""
    if not (GO / ".stamp").exists():
        pytest.skip("there was no Go that is new enough when `make setup` last ran")
    program = tmp_path_factory.mktemp("go") / "client"
    offline = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    caches = {"GOMODCACHE": str(GO / "mod"), "GOCACHE": str(GO / "build")}
    done = subprocess.run(
        ["go", "build", "-o", str(program), "."], capture_output=True, text=True, timeout=GO_LIMIT_S, check=False,
        cwd=HERE / "go", env=os.environ | offline | caches,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return lambda config: [str(program), str(config)]


@pytest.fixture(scope="module", params=[f"{name}-{line}" for name in TRANSPORTS for line in ("plain", "tls")])
def called(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    transport, line = request.param.split("-")
    with target(tmp_path_factory.mktemp(request.param), transport, line) as found:
        yield found


@pytest.mark.parametrize("language", LANGUAGES)
def test_client_sees_what_the_contract_says(called: Target, language: str, request: pytest.FixtureRequest) -> None:
    line: Command = request.getfixturevalue(language)
    run = subprocess.run(
        line(called.config), capture_output=True, text=True, timeout=LIMIT_S, env=environment(), cwd=ROOT, check=False
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == EXPECTED
    assert called.running.is_serving()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_client_loses_no_call_to_another_end_when_the_server_drains(
    transport: str, language: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    line: Command = request.getfixturevalue(language)
    with ExitStack() as stack:
        serving = stack.enter_context(ExitStack())
        found = serving.enter_context(target(tmp_path, transport, "plain"))
        command = [*line(found.config), "drain"]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT)
        stack.callback(client.wait)
        stack.callback(client.kill)
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        threading.Event().wait(0.3)  # of reads in flight
        serving.close()
        ends = json.loads(client.communicate(timeout=LIMIT_S)[0])
    if transport == "grpcio":  # ends as CANCELLED what reaches it while it stops
        ends["UNAVAILABLE"] = ends.get("UNAVAILABLE", 0) + ends.pop("CANCELLED", 0)
    assert set(ends) == {"OK", "UNAVAILABLE"}, "what had begun was answered, the rest told to go elsewhere"
    assert ends["OK"] > ends["UNAVAILABLE"] == READERS
