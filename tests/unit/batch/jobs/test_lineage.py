"""Runs of a lake as lineage takes them, and what of their data is still there."""

from pathlib import Path

import pytest

from batch.jobs import lineage, training
from batch.jobs.commands import COMMANDS
from batch.jobs.context import Context
from batch.training.manifest import Manifest
from batch.training.sets import TrainingSets
from headrace.errors import HeadraceError
from tests.unit.batch.jobs import lakes
from tests.unit.batch.jobs.test_training import Here, arguments


@pytest.fixture
def context(tmp_path: Path) -> Context:
    lakes.made_lake(tmp_path / "lake").close()
    return Here(tmp_path / "lake")


def test_a_training_set_is_a_run_with_snapshots_entities_and_its_digest(context: Context, tmp_path: Path) -> None:
    made = training.create(context, arguments(tmp_path))
    (run,) = COMMANDS["lineage_runs"](context, {})["runs"]
    assert (run["job"], run["is_done"], run["outputs"]) == ("training_set", True, [["training_set:week", ""]])
    assert run["digests"] == {"training_set:week": made["digest"]}
    assert run["run_id"] == made["run_id"]
    snapshots = {name: version for name, version in run["inputs"] if version}
    assert snapshots == {one["feature_view"]: str(one["snapshot_id"]) for one in made["features"]}
    plain = [name for name, version in run["inputs"] if not version]
    assert plain == [f"dataset:{made['entities']}", lakes.wanted().name]
    assert 0 < run["start_time_us"] <= run["end_time_us"]


def test_a_training_set_without_its_manifest_is_left_for_later(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(TrainingSets, "create", _stopped)  # the run has ended, and its manifest is not written
        with pytest.raises(KeyboardInterrupt):
            training.create(context, arguments(tmp_path, "half"))
    assert lineage.runs(context, {})["runs"] == []
    made = training.create(context, arguments(tmp_path))
    training.rebuild(context, {"name": "week"})
    first, second = lineage.runs(context, {})["runs"]
    assert (first["run_id"], first["outputs"]) == (made["run_id"], [["training_set:week", ""]])
    assert second["outputs"] == [], "made again, which names nothing new"


def _stopped(sets: TrainingSets, manifest: Manifest) -> None:
    raise KeyboardInterrupt


def test_a_run_that_failed_has_made_nothing(context: Context, tmp_path: Path) -> None:
    with pytest.raises(HeadraceError):
        training.create(context, arguments(tmp_path, time_column="no_such_column"))
    (run,) = lineage.runs(context, {})["runs"]
    assert (run["is_done"], run["outputs"], run["digests"]) == (False, [], {})


def test_check_tells_what_is_there_what_is_gone_and_what_it_cannot_ask(context: Context, tmp_path: Path) -> None:
    made = training.create(context, arguments(tmp_path))
    one = made["features"][0]
    view = one["feature_view"]
    there, gone = f"{view}#{one['snapshot_id']}", f"{view}#7"
    entities = str(tmp_path / "entities.parquet")
    asked = {
        "snapshots": [there, gone, "shop.users.nothing@v1#7", "table#7"],
        "datasets": [entities, f"{entities}.gone", "events", "kafka://broker/topic", f"{tmp_path}/*.parquet"],
        "training_sets": ["week", "other"],
    }
    found = COMMANDS["lineage_check"](context, asked)
    assert found["snapshots"] == {there: True, gone: False, "shop.users.nothing@v1#7": False, "table#7": None}
    assert found["datasets"] == {
        entities: True,
        f"{entities}.gone": False,
        "events": None,
        "kafka://broker/topic": None,
        f"{tmp_path}/*.parquet": None,
    }
    assert found["training_sets"] == {"week": True, "other": False}
