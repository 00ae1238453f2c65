"""Servers, shims and loads that the fault tests share."""

import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.cluster.attack import Bystander, bystander_of
from tests.cluster.calls import Caller, View, register
from tests.cluster.faults import compile_shim
from tests.cluster.history import LOG
from tests.cluster.processes import FeatureServer, ServerProcess
from tests.cluster.run import FaultRun


@pytest.fixture(scope="session")
def registry_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A control plane for all feature servers of this test process."""
    folder = tmp_path_factory.mktemp("registry")
    arguments = ["--data", str(folder / "data"), "--port", "0"]
    process = ServerProcess("control_plane.app", arguments, folder / "control_plane.log")
    process.launch()
    try:
        yield f"127.0.0.1:{process.wait_listening()}"
    finally:
        process.stop()


@pytest.fixture(scope="session")
def view(registry_address: str) -> View:
    """The view of the runs, registered."""
    return register(registry_address)


@pytest.fixture(scope="session")
def faults_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_shim("faults", tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def journal_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_shim("journal", tmp_path_factory.mktemp("shim"))


@pytest.fixture
def source(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """Random choices of one test, from the seed of the run."""
    return random.Random(f"{seed}/{request.node.name}")


@pytest.fixture
def start_run(
    tmp_path: Path, registry_address: str, view: View, seed: int, request: pytest.FixtureRequest
) -> Iterator[Callable[..., FaultRun]]:
    """Makes runs on folders of their own; ends their processes and shows the logs of a failed test."""
    runs: list[FaultRun] = []

    def start(*, data: Path | None = None, options: Sequence[str] = ()) -> FaultRun:
        folder = tmp_path / f"run{len(runs)}"
        folder.mkdir()
        run = FaultRun(FeatureServer.create(folder, registry_address, data=data, options=options), folder, view, seed)
        runs.append(run)
        return run

    yield start
    for run in runs:
        run.end()
        request.node.add_report_section("teardown", "server log", run.server.server.tail())


@pytest.fixture(scope="module")
def written_run(
    tmp_path_factory: pytest.TempPathFactory, registry_address: str, view: View, seed: int
) -> Iterator[FaultRun]:
    """A killed server whose rows lie in tables of two earlier lives and in logs; to be copied, not to be started."""
    folder = tmp_path_factory.mktemp("written")
    run = FaultRun(FeatureServer.create(folder, registry_address), folder, view, seed)
    try:
        for _ in range(3):
            run.server.start()
            run.start_writer([LOG])
            run.wait_acknowledged(120)
            run.server.kill()
            run.stop_writer()
        yield run
    finally:
        run.end()


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, registry_address: str, view: View) -> Iterator[FeatureServer]:
    """One server for all attacks of a module: it must outlive them."""
    server = FeatureServer.create(tmp_path_factory.mktemp("attacked"), registry_address)
    server.start()
    yield server
    if server.server.exit_code() is None:
        server.server.kill()


@pytest.fixture
def bystander(attacked: FeatureServer) -> Iterator[Bystander]:
    """A good client through each attack."""
    with bystander_of(attacked) as seen:
        yield seen


@pytest.fixture
def caller(attacked: FeatureServer) -> Iterator[Caller]:
    with Caller(attacked.address) as caller:
        yield caller


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], Path]]:
    """Makes file systems of a given size in memory; needs root, as mounting does."""
    mounts: list[Path] = []

    if os.geteuid() != 0:
        pytest.skip("mounts a small tmpfs, which only root may do")

    def mount(size_bytes: int) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="headrace-disk-"))
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            folder.rmdir()
            pytest.fail(f"a small tmpfs cannot be mounted: {done.stderr.strip()}")
        mounts.append(folder)
        return folder

    yield mount
    for folder in mounts:
        # Lazily: the server of the test may end after this.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()
