"""The historical service as a process over a real registry and lake: jobs that end, are broken off, are refused."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from batch.jobs.app import main
from batch.offline.catalogue import Catalogue
from batch.offline.lake import lake_config
from headrace.client import HistoricalJob, HistoryClient, JobState, RegistryClient
from headrace.definitions import DefinitionSet
from headrace.errors import (
    Aborted,
    AlreadyExists,
    HeadraceError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from headrace.status import from_rpc_error
from protos.offline.v1 import historical_service_pb2 as pb
from protos.offline.v1 import historical_service_pb2_grpc as rpc
from tests.unit.batch.jobs import lakes

LIMIT_S = 60.0
SERVICE = "headrace.offline.v1.HistoricalService"


@contextmanager
def process(repository: Path, module: str, *words: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """A server and its `listening` line, gone after the block."""
    command = [sys.executable, "-m", module, *words]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        try:
            line = json.loads(started.stdout.readline())
            while line["event"] != "listening":
                line = json.loads(started.stdout.readline())
            yield started, line
        finally:
            started.kill()


@pytest.fixture(scope="module")
def registry(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("registry")
    with process(repository, "control_plane.app", "--data", str(data)) as (_, line):
        definitions = DefinitionSet(
            sources=[lakes.EVENTS],
            entities=[lakes.USER],
            feature_views=[lakes.ACTIVITY, lakes.PLAIN],
            feature_services=[lakes.SERVICE],
        )
        with RegistryClient(line["address"]) as client:
            client.apply(definitions)
        yield line["address"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lakes.made_lake(tmp_path / "lake").close()
    (tmp_path / "files").mkdir()
    lakes.entities(tmp_path / "files" / "entities.parquet")
    return tmp_path


Served = Callable[..., Any]


@pytest.fixture
def serve(repository: Path, registry: str, folder: Path) -> Served:
    def start(*more: str) -> Any:
        words = ("--data", str(folder / "jobs"), "--lake", str(folder / "lake"), "--registry", registry)
        return process(repository, "batch.jobs.app", *words, "--root", str(folder / "files"), *more)

    return start


def start(client: HistoryClient, folder: Path, **more: Any) -> HistoricalJob:
    names = {"entities": [str(folder / "files" / "entities.parquet")], "output": str(folder / "files" / "out.parquet")}
    return client.start(lakes.SERVICE.name, **(names | more))


def big_entities(folder: Path, count: int = 3_000_000) -> None:
    """Rows that take a join some seconds."""
    times = pa.array([lakes.START_US + 3 * lakes.HOUR_US] * count, pa.timestamp("us", "UTC"))
    users = pa.array(range(count), pa.int64())
    rows = pa.table({"user_id": users, "friend_id": users, "event_time": times})
    pq.write_table(rows, folder / "files" / "entities.parquet")


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def pins(folder: Path) -> dict[str, int]:
    catalogue = Catalogue(lake_config(folder / "lake"))
    try:
        return dict(catalogue.view_table(lakes.TABLE).pins())
    finally:
        catalogue.close()


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "files").iterdir())


def test_job_runs_to_its_result_and_is_known_after_a_restart(serve: Served, folder: Path) -> None:
    request_id = str(uuid.uuid4())
    with serve("--metrics-port", "0") as (server, line), HistoryClient(line["address"]) as client:
        job = start(client, folder, request_id=request_id)
        done = client.wait(job.name, LIMIT_S)
        assert (done.state, done.row_count) == (JobState.SUCCEEDED, 4)
        assert pq.read_table(done.output)["basket"].to_pylist() == [10.0, 0.5, 12.0, 0.5]
        assert start(client, folder, request_id=request_id).name == job.name
        with pytest.raises(AlreadyExists):
            start(client, folder, request_id=request_id, output=str(folder / "files" / "other.parquet"))
        with urlopen(f"http://127.0.0.1:{line['metrics_port']}/metrics", timeout=LIMIT_S) as response:
            text = response.read().decode()
        assert 'headrace_jobs{state="SUCCEEDED"} 1.0' in text
        assert "HistoricalService/StartHistoricalJob" in text
        with grpc.insecure_channel(line["address"]) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=SERVICE), timeout=LIMIT_S
            )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        server.send_signal(signal.SIGTERM)
        assert server.wait(LIMIT_S) == 0
    with serve() as (_, line), HistoryClient(line["address"]) as client:
        assert client.get(job.name).digest == done.digest
        assert [one.name for one in client.list()] == [job.name]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_job_under_way_when_the_server_ends_is_failed_and_leaves_nothing(
    serve: Served, folder: Path, number: signal.Signals
) -> None:
    big_entities(folder)
    with serve("--running-jobs", "1") as (server, line), HistoryClient(line["address"]) as client:
        running = start(client, folder)
        waiting = start(client, folder, output=str(folder / "files" / "second.parquet"))
        until(lambda: client.get(running.name).stage != "", "the job begins")
        assert client.get(waiting.name).state is JobState.QUEUED
        server.send_signal(number)
        server.wait(LIMIT_S)
    lakes.entities(folder / "files" / "entities.parquet")
    with serve() as (_, line), HistoryClient(line["address"]) as client:
        with pytest.raises(Aborted, match="the server stopped while the job ran") as caught:
            client.wait(running.name, LIMIT_S)
        assert caught.value.reason == "SERVER_RESTARTED"
        assert client.wait(waiting.name, LIMIT_S).row_count == 4, "what waited goes on"
        again = client.wait(start(client, folder).name, LIMIT_S)
        assert again.state is JobState.SUCCEEDED
    assert left_in(folder) == ["entities.parquet", "out.parquet", "second.parquet"]
    assert pins(folder) == {}


def test_cancelled_job_leaves_nothing(serve: Served, folder: Path) -> None:
    big_entities(folder)
    with serve("--running-jobs", "1") as (_, line), HistoryClient(line["address"]) as client:
        running = start(client, folder)
        waiting = start(client, folder, output=str(folder / "files" / "second.parquet"))
        assert client.cancel(waiting.name).state is JobState.CANCELLED
        until(lambda: client.get(running.name).stage != "", "the job begins")
        client.cancel(running.name)
        with pytest.raises(Aborted, match="was cancelled"):
            client.wait(running.name, LIMIT_S)
        assert client.cancel(running.name).state is JobState.CANCELLED, "again changes nothing"
        assert left_in(folder) == ["entities.parquet"]
        assert pins(folder) == {}
        assert list((folder / "jobs" / "running").iterdir()) == []


def test_job_that_fails_says_why(serve: Served, folder: Path) -> None:
    with serve() as (_, line), HistoryClient(line["address"]) as client:
        (folder / "files" / "entities.parquet").write_bytes(b"PAR1 no Parquet PAR1")
        job = start(client, folder)
        with pytest.raises(HeadraceError, match="cannot be read as Parquet") as caught:
            client.wait(job.name, LIMIT_S)
        assert caught.value.reason == "CORRUPT_FILE"
        (folder / "files" / "entities.parquet").unlink()
        with pytest.raises(NotFound):
            client.wait(start(client, folder).name, LIMIT_S)
        lakes.entities(folder / "files" / "entities.parquet")
        with pytest.raises(HeadraceError, match="give at least"):
            client.wait(start(client, folder, memory_limit_bytes=1_000).name, LIMIT_S)
        assert left_in(folder) == ["entities.parquet"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"output": "/etc/out.parquet"}, "URI_OUTSIDE_ROOTS"),
        ({"output": "WAREHOUSE/shop/out.parquet"}, "URI_OUTSIDE_ROOTS"),
        ({"entities": ["../secret.parquet"]}, "URI_OUTSIDE_ROOTS"),
        ({"entities": ["http://127.0.0.1/x"]}, "URI_SCHEME"),
        ({"entities": []}, "OUT_OF_RANGE"),
        ({"memory_limit_bytes": 1 << 50}, "OUT_OF_RANGE"),
        ({"memory_limit_bytes": -1}, "OUT_OF_RANGE"),
        ({"request_id": "again"}, "NOT_A_UUID"),
    ],
)
def test_query_that_cannot_be_is_refused_at_once(
    serve: Served, folder: Path, more: dict[str, Any], reason: str
) -> None:
    warehouse = str(folder / "lake" / "warehouse")
    more = {name: one.replace("WAREHOUSE", warehouse) if name == "output" else one for name, one in more.items()}
    with serve() as (_, line), HistoryClient(line["address"]) as client:
        with pytest.raises(InvalidArgument) as caught:
            start(client, folder, **more)
        assert caught.value.reason == reason
        assert list(client.list()) == []


def test_unknown_jobs_and_bad_names_are_refused(serve: Served, folder: Path) -> None:
    with serve() as (_, line), HistoryClient(line["address"]) as client:
        with pytest.raises(NotFound):
            client.get(f"jobs/{uuid.uuid4()}")
        with pytest.raises(InvalidArgument):
            client.cancel("42")


def test_job_is_seen_by_its_owner_alone(serve: Served, folder: Path) -> None:
    entries = [
        {"sha256": sha256(name.encode()).hexdigest(), "principal": name, "permissions": permissions}
        for name, permissions in (("ann", ["HISTORY_READ"]), ("bob", ["HISTORY_READ"]), ("eve", ["FEATURE_READ"]))
    ]
    (folder / "tokens.yaml").write_text(json.dumps({"tokens": entries}))
    with serve("--tokens", str(folder / "tokens.yaml")) as (_, line):
        with HistoryClient(line["address"], token="ann") as ann:
            job = start(ann, folder)
            ann.wait(job.name, LIMIT_S)
        with HistoryClient(line["address"], token="bob") as bob:
            assert list(bob.list()) == []
            with pytest.raises(NotFound):
                bob.cancel(job.name)
        with HistoryClient(line["address"], token="eve") as eve, pytest.raises(PermissionDenied):
            start(eve, folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--host", "0.0.0.0"), "beyond loopback"),
        (("--tokens", "missing.yaml"), "cannot be read"),
        (("--data", "/dev/null/jobs"), "cannot be written"),
    ],
)
def test_start_that_cannot_be_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    base = ["--data", str(folder / "jobs"), "--lake", str(folder / "lake"), "--registry", "127.0.0.1:1"]
    assert main([*base, *words]) == 2
    for number, handler in before.items():
        signal.signal(number, handler)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_second_server_on_the_same_folder_is_refused(serve: Served, folder: Path) -> None:
    with serve() as (first, _):
        assert os.path.exists(f"/proc/{first.pid}")
        base = ["--data", str(folder / "jobs"), "--lake", str(folder / "lake"), "--registry", "127.0.0.1:1"]
        command = [sys.executable, "-m", "batch.jobs.app", *base]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        assert (second.returncode, second.stderr.count("\n")) == (2, 1)


def test_pages_follow_one_another_and_bad_ones_are_refused(serve: Served, folder: Path) -> None:
    with serve() as (_, line), grpc.insecure_channel(line["address"]) as channel:
        stub = rpc.HistoricalServiceStub(channel)
        with HistoryClient(line["address"]) as client:
            names = [start(client, folder).name for _ in range(3)]
            first = stub.ListHistoricalJobs(pb.ListHistoricalJobsRequest(page_size=2), timeout=LIMIT_S)
            rest = pb.ListHistoricalJobsRequest(page_size=2, page_token=first.next_page_token)
            second = stub.ListHistoricalJobs(rest, timeout=LIMIT_S)
            assert [job.name for job in (*first.jobs, *second.jobs)] == names[::-1]
            assert second.next_page_token == ""
            wrong: list[dict[str, Any]] = [{"page_size": -1}, {"page_token": "x"}, {"page_token": "9" * 40}]
            for bad in wrong:
                with pytest.raises(grpc.RpcError) as caught:
                    stub.ListHistoricalJobs(pb.ListHistoricalJobsRequest(**bad), timeout=LIMIT_S)
                assert from_rpc_error(caught.value).reason == "BAD_PAGE"
            for name in names:
                client.wait(name, LIMIT_S)
