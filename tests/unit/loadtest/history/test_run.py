"""The Locust user against a real historical service: a good run passes, a join that fails breaks the gate."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.history import run
from tests.unit.batch.jobs import lakes
from tests.unit.batch.rpc.test_historical_service import process, registry  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def host(repository: Path, registry: str, tmp_path: Path) -> Iterator[str]:  # noqa: F811 - the fixture
    lakes.made_lake(tmp_path / "lake").close()
    words = ("--data", str(tmp_path / "jobs"), "--lake", str(tmp_path / "lake"), "--registry", registry)
    with process(repository, "batch.jobs.app", *words, "--root", str(tmp_path)) as (_, line):
        yield line["address"]


def outcome(folder: Path, host: str, entities: str) -> tuple[int, dict[str, object]]:
    summary = folder / "summary.json"
    words = ["--host", host, "--service", lakes.SERVICE.name, "--entities", entities]
    words += ["--output", str(folder / "out.parquet"), "--rate", "30", "--duration", "2s"]
    words += ["--p99-ms-max", "5000", "--summary", str(summary)]
    done = subprocess.run(run.command(run.parse(words)), cwd=ROOT, capture_output=True, timeout=120, check=False)
    found = json.loads(summary.read_text())
    assert isinstance(found, dict)
    return done.returncode, found


def test_watched_job_passes_the_gate(host: str, tmp_path: Path) -> None:
    code, found = outcome(tmp_path, host, lakes.entities(tmp_path / "entities.parquet"))
    assert (code, found["error_count"]) == (0, 0), found
    assert int(str(found["call_count"])) > 10


def test_join_that_fails_breaks_the_gate(host: str, tmp_path: Path) -> None:
    code, found = outcome(tmp_path, host, str(tmp_path / "nothing.parquet"))
    assert code == 1
    assert "does not exist" in str(found["faults"])
