"""The examples run against a real platform with the starter project."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.platforms import Running, environment, headrace, running


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("examples") / "project"
    assert headrace("init", str(folder), cwd=folder.parent).returncode == 0
    with running(folder) as started:
        for command in (["apply", "definitions.py"], ["materialize", "shop.users.activity"]):
            done = started.headrace(*command)
            assert done.returncode == 0, done.stderr
        yield started


def run(platform: Running, repository: Path, name: str) -> str:
    done = subprocess.run(
        [sys.executable, str(repository / "examples" / name), platform.endpoints["features"]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_stub_client_reads_values_and_states(platform: Running, repository: Path) -> None:
    assert run(platform, repository, "stub_client.py").splitlines() == [
        "1 42.5",
        "2 VALUE_STATE_NULL",
        "5 VALUE_STATE_MISSING",
    ]


def test_client_reads_in_every_form(platform: Running, repository: Path) -> None:
    out = run(platform, repository, "read_features.py")
    assert "mean basket of 2 users: 24.875" in out
    assert "'country': 'DE'" in out


def test_asyncio_client_reads_many_at_once(platform: Running, repository: Path) -> None:
    assert len(run(platform, repository, "read_features_async.py").splitlines()) == 10


def test_write_is_read_back(platform: Running, repository: Path) -> None:
    out = run(platform, repository, "write_features.py")
    assert "wrote 1 row" in out
    assert "'country': 'SE'" in out


def test_on_demand_features_are_read_by_client_and_command(platform: Running, repository: Path) -> None:
    applied = platform.headrace("apply", str(repository / "examples" / "on_demand.yaml"))
    assert applied.returncode == 0, applied.stderr
    asked = ["read", "shop.ranking.offers", "--entity", "user_id=1,9", "--request", "price=85,1", "-o", "json"]
    read = platform.headrace(*asked, "--request", "in_country=FR,FR")
    assert read.returncode == 0, read.stderr  # what was applied is served
    rows = json.loads(read.stdout)["rows"]
    assert [row["features"] for row in rows] == [
        {"share_of_basket": 2.0, "is_home": False, "visits": 2},
        {"share_of_basket": 1.0, "is_home": None, "visits": None},
    ]
    assert rows[1]["statuses"]["share_of_basket"] == "MISSING"
    assert run(platform, repository, "read_on_demand.py").splitlines() == [
        "needs price (f64), in_country (string)",
        "{'share_of_basket': 0.5, 'is_home': True, 'visits': 2}",
        "{'share_of_basket': 2.0, 'is_home': None, 'visits': 1}",
    ]
    refused = platform.headrace(*asked)
    assert refused.returncode == 1
    assert "--request in_country=... is missing" in refused.stderr
    described = platform.headrace("describe", "on_demand_view", "shop.ranking.offer@v1", "-o", "json")
    assert json.loads(described.stdout)["version"] == 1
