"""`headrace lineage` against a real platform and lake: impact, runs of the lake, what a model needs, what changed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch.offline.catalogue import Catalogue
from batch.offline.lake import lake_config
from tests.integration.platforms import Running, headrace, running
from tests.integration.test_cli_history import SERVICE, append, ask, document, entities

__all__ = ["entities"]  # a fixture
SOURCE = "shop.users.activity_events"
MODEL = "shop.ranking.order"
DEFINED = f"""
from headrace.definitions import Model

order = Model("{MODEL}", owner="shop.ranking_team", feature_service="{SERVICE}@v1")
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("lineage") / "project"
    assert headrace("init", str(folder), cwd=folder.parent).returncode == 0
    (folder / "model.py").write_text(DEFINED)
    with running(folder, "--no-offline") as started:
        for name in ("definitions.py", "model.py"):
            applied = started.headrace("apply", name)
            assert applied.returncode == 0, applied.stderr
        yield started


@pytest.fixture(scope="module")
def lake(platform: Running) -> Path:
    folder = platform.folder / "lake"
    folder.mkdir()
    catalogue = Catalogue(lake_config(folder))
    append(catalogue, [(1, 0, "DE", 19.9, 1), (2, 0, "FR", None, 1)], 0)
    catalogue.close()
    return folder


def test_impact_names_every_reader_with_its_path_and_fails_on_models(platform: Running) -> None:
    words = ("lineage", "impact", SOURCE, "--column", "visits", "--change", "drop")
    told = document(platform.headrace(*words, "-o", "json"))
    found = {one["node"]: one for one in told["impacted"]}
    assert set(found) == {"shop.users.activity@v1:visits", f"{SERVICE}@v1", f"{MODEL}@v1"}
    assert (told["node"], told["node_count"]) == (f"{SOURCE}:visits", 3)
    assert found[f"{MODEL}@v1"]["owner"] == "shop.ranking_team"
    assert [step["node"] for step in found[f"{MODEL}@v1"]["path"]] == [
        f"{SOURCE}:visits",
        "shop.users.activity@v1:visits",
        f"{SERVICE}@v1",
        f"{MODEL}@v1",
    ]
    assert found["shop.users.activity@v1:visits"]["effect"] == "BROKEN"
    assert platform.headrace(*words).returncode == 0
    assert platform.headrace(*words, "--fail-on", "models").returncode == 1
    table = platform.headrace(*words, "--kind", "models").stdout
    assert "visits -value-> shop.users.activity@v1:visits -serves->" in table
    assert "1 feature" not in table.splitlines()[-1]


def test_a_node_that_is_not_there_is_one_line(platform: Running) -> None:
    done = platform.headrace("lineage", "impact", SOURCE, "--column", "visit")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "did you mean 'visits'?" in done.stderr
    assert "[UNKNOWN_NODE]" in done.stderr


def test_runs_of_the_lake_lead_to_what_a_model_needs(
    platform: Running,
    lake: Path,
    entities: Path,
) -> None:
    words = ("training-set", "create", "orders", "--entities", str(entities), "--service", SERVICE)
    made = document(ask(platform, lake, *words, "-o", "json"))
    observed = document(ask(platform, lake, "lineage", "observe", "-o", "json"))["runs"]
    assert [(one["run_id"], one["lineage"]) for one in observed] == [(made["run_id"], "new")]
    assert document(ask(platform, lake, "lineage", "observe", "-o", "json"))["runs"][0]["lineage"] == "known"
    fit = ("lineage", "record", "--job", "fit", "--input", "training_set:orders", "--git-sha", "1a2b3c")
    recorded = platform.headrace(*fit, "--output-node", f"{MODEL}@v1", "-o", "json")
    assert document(recorded)["known"] is False
    states = needed(platform, lake, 0)
    snapshot = made["features"][0]["snapshot_id"]
    assert {
        f"snapshot:shop.users.activity@v1#{snapshot}",
        "training_set:orders",
        f"dataset:{made['entities']}",
    } == {name for name, one in states.items() if one["state"] == "there"}
    assert states["training_set:orders"]["digest"] == made["digest"]
    assert states["shop.users.activity@v1"]["digest"] == made["features"][0]["transform_digest"]
    assert states["dataset:data/activity.csv"]["state"] == "not checked"
    Path(made["entities"]).unlink()
    assert needed(platform, lake, 1)[f"dataset:{made['entities']}"]["state"] == "missing"


def needed(platform: Running, lake: Path, code: int) -> dict[str, dict[str, Any]]:
    done = ask(platform, lake, "lineage", "requirements", f"{MODEL}@v1", "--verify", "-o", "json")
    assert done.returncode == code, done.stderr
    return {one["node"]: one for one in json.loads(done.stdout)["requirements"]}


def test_diff_tells_what_changed_above_a_model(platform: Running) -> None:
    words = ("lineage", "diff", f"{MODEL}@v1", "--from", "2026-01-01T00:00Z")
    told = document(platform.headrace(*words, "-o", "json"))["changes"]
    assert f"{MODEL}@v1 reads {SERVICE}@v1" in [one["text"] for one in told if one["hop"] == 1]
    assert {one["change"] for one in told} >= {"EDGE", "SCHEMA"}
    text = (platform.folder / "definitions.py").read_text()
    owned = '"shop.users.activity_events",\n    owner="shop"'
    changed = text.replace(owned, owned.replace('"shop"', '"shop.events_team"'))
    assert changed != text
    (platform.folder / "definitions.py").write_text(changed)
    assert platform.headrace("apply", "definitions.py").returncode == 0
    table = platform.headrace(*words).stdout
    assert "owner changes from 'shop' to 'shop.events_team', by local" in table
    quiet = platform.headrace(
        "lineage", "diff", f"{MODEL}@v1", "--from", "2026-01-01T00:00Z", "--to", "2026-01-02T00:00Z"
    )
    assert quiet.stdout == f"nothing changed above {MODEL}@v1\n"
