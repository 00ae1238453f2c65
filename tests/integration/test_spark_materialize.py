"""Rows of a computed view that Spark has made are those of the local engine, and bring a lost store back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from batch.materialize import computed
from batch.materialize.computed import ComputedMaterialization, Part, Way, local_parts
from batch.materialize.marks import Mark
from batch.offline.catalogue import Catalogue
from batch.offline.runs import Provenance, Runs
from batch.spark.session import Catalogue as SparkCatalogue
from batch.spark.stored_rows import DONE, SparkParts
from headrace.definitions.registered import RegisteredView, all_records
from tests.integration.lakes import LOCAL, session_on
from tests.integration.test_computed_materialize import STATE, VIEWS, Twins, made
from tests.integration.test_computed_parity import EVENTS
from tests.unit.batch.offline.parts import catalogue_of
from tests.unit.feature_server.parts import ENTITY


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def spark(tmp_path: Path) -> Iterator[SparkSession]:
    lake = SparkCatalogue("headrace", f"sqlite:///{tmp_path}/catalogue.db", f"file://{tmp_path}/warehouse")
    with session_on(LOCAL, lake) as session:
        yield session


@pytest.fixture
def twins(tmp_path: Path, catalogue: Catalogue, seed: int) -> Iterator[Twins]:
    opened = Twins(tmp_path, catalogue, seed)
    yield opened
    opened.close()


def rows_of(part: Part, key: str) -> dict[str, list[Any]]:
    """Keys and bytes of a part, by key."""
    found: dict[str, list[Any]] = part.rows.sort_by(key).to_pydict()
    return found


@pytest.mark.timeout(300)
def test_rows_made_on_spark_bring_a_lost_store_back(
    twins: Twins, catalogue: Catalogue, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computed, "PART_ROWS", 100)
    twins.live(12)
    twins.erase([3, 5])
    twins.live(3)
    twins.lose()
    seen = [(shard.shard, shard.epoch, -1) for shard in twins.store.shards.list()[1]]
    runs = Runs(catalogue, Provenance("test"), twins.store.clock)
    for view in VIEWS:
        record = next(one for one in all_records(STATE) if isinstance(one, RegisteredView) and str(one.ref) == view)
        maker, columns = made(view)
        make = SparkParts(spark, (record, STATE.entities[ENTITY], STATE.sources[EVENTS]), str(tmp_path / "rows"))
        table = catalogue.load(columns.identifier)
        way = Way(columns, maker, Mark(), 4, None)
        here = list(local_parts(table, way, seen, tmp_path))
        there = list(make(table, way, seen, tmp_path))
        keys = [name for name, _ in maker.keys]
        assert [rows_of(part, keys[0]) for part in there] == [rows_of(part, keys[0]) for part in here]
        files = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").rglob("*.*")}
        assert [part.rows for part in make(table, way, seen, tmp_path)] == [part.rows for part in there]
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").rglob("*.*")} == files, "made once"
        for broken in ("", "[0, 1"):
            for path in (tmp_path / "rows").rglob(DONE):
                path.write_text(broken)
            assert [part.rows for part in make(table, way, seen, tmp_path)] == [part.rows for part in there]
        done = ComputedMaterialization(catalogue, twins.store.shards, twins.store.views, runs, make=make).run(
            maker, columns
        )
        assert done.row_count > 0
    assert twins.differences()[:5] == []
    twins.live(3)
    assert twins.differences()[:5] == []
