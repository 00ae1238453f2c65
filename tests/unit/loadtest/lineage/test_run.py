"""The Locust user against a real control plane: a good run passes, a node that is not there breaks the gate."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.client import RegistryClient
from loadtest.lineage import run
from loadtest.peers.processes import Child, free_port, listens
from tests.unit.headrace.definitions.samples import SOURCE, whole_set

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    port, folder = free_port(), tmp_path / "registry"
    folder.mkdir()
    words = [sys.executable, "-m", "control_plane.app", "--data", str(folder), "--port", str(port)]
    with Child(words, tmp_path / "control.log", cwd=ROOT) as child:
        child.wait_until(lambda: listens(port), "the control plane")
        with RegistryClient(f"127.0.0.1:{port}") as client:
            client.apply(whole_set())
        yield f"127.0.0.1:{port}"


def outcome(folder: Path, host: str, node: str) -> tuple[int, dict[str, object]]:
    summary = folder / "summary.json"
    words = ["--host", host, "--node", node, "--column", "dep_delay", "--rate", "30", "--duration", "2s"]
    words += ["--p99-ms-max", "5000", "--summary", str(summary)]
    done = subprocess.run(run.command(run.parse(words)), cwd=ROOT, capture_output=True, timeout=120, check=False)
    found = json.loads(summary.read_text())
    assert isinstance(found, dict)
    return done.returncode, found


def test_the_same_answer_each_time_passes_the_gate(host: str, tmp_path: Path) -> None:
    code, found = outcome(tmp_path, host, SOURCE)
    assert (code, found["error_count"]) == (0, 0), found
    assert int(str(found["call_count"])) > 10


def test_a_node_that_is_not_there_breaks_the_gate(host: str, tmp_path: Path) -> None:
    code, found = outcome(tmp_path, host, "flights.ops.nothing")
    assert code == 1
    assert "NOT_FOUND" in str(found["faults"])
