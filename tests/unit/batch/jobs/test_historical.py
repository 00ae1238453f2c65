"""Historical jobs over a real lake: values, statuses, pins, runs, and refusals that leave nothing."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.jobs.historical import HistoricalRequest, run_historical, runs_of
from batch.jobs.services import resolve_service
from batch.offline.catalogue import Catalogue
from batch.offline.lake import lake_config, require_lake
from core_ext import rules
from headrace.definitions import FeatureService, RegisteredView, ServiceEntry
from headrace.definitions.registered import State
from headrace.definitions.transform import view_digest
from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument
from tests.unit.batch.jobs import lakes

DEFAULTED = rules.MISSING | rules.DEFAULTED


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = lakes.made_lake(tmp_path / "lake")
    yield opened
    opened.close()


def request(folder: Path, **changes: Any) -> HistoricalRequest:
    files = (lakes.entities(folder / "entities.parquet"),)
    return replace(HistoricalRequest(files, str(folder / "out.parquet")), **changes)


def test_rows_get_what_was_known_at_their_time(catalogue: Catalogue, tmp_path: Path) -> None:
    stages = []
    result = run_historical(
        catalogue, lakes.wanted(), request(tmp_path), progress=lambda stage, done, total: stages.append(stage)
    )
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["basket"] for row in rows] == [10.0, 0.5, 12.0, 0.5]
    assert [row["basket__status"] for row in rows] == [
        rules.PRESENT,
        rules.NULL | rules.DEFAULTED,
        rules.PRESENT,
        DEFAULTED,
    ]
    assert [row["country"] for row in rows] == ["DE", "FR", "DE", None]
    # The same view once more under another key: the friend of 1 is 2, of 2 is 3, who came later.
    assert [row["friend_basket__status"] for row in rows] == [
        rules.NULL | rules.DEFAULTED,
        DEFAULTED,
        rules.NULL | rules.DEFAULTED,
        DEFAULTED,
    ]
    assert result.row_count == 4
    assert "read shop.users.activity@v1" in stages
    assert "write" in stages


def test_run_is_recorded_and_its_pins_are_released(catalogue: Catalogue, tmp_path: Path) -> None:
    result = run_historical(catalogue, lakes.wanted(), request(tmp_path))
    [run] = runs_of(catalogue).list()
    assert (run["run_id"], run["state"], run["kind"]) == (result.run_id, "SUCCEEDED", "get_historical")
    assert run["snapshots"] == dict(result.snapshots)
    assert catalogue.view_table(lakes.TABLE).pins() == {}


def test_cut_off_hides_what_was_written_later(catalogue: Catalogue, tmp_path: Path) -> None:
    late = lakes.history([(1, 1, 99.0, "XX")], 4, write_us=[lakes.START_US + 50 * lakes.HOUR_US])
    late = late.set_column(5, "_available_time", late["_event_time"])
    late = late.select(lakes.TABLE.arrow.names)
    lakes.append(catalogue, late, 4)
    now = run_historical(catalogue, lakes.wanted(), request(tmp_path))
    assert pq.read_table(now.output)["basket"].to_pylist()[0] == 99.0
    before = run_historical(catalogue, lakes.wanted(), request(tmp_path, cutoff_us=lakes.START_US + 4 * lakes.HOUR_US))
    assert pq.read_table(before.output)["basket"].to_pylist()[0] == 10.0


def test_arrow_file_gives_the_same_digest(catalogue: Catalogue, tmp_path: Path) -> None:
    asked = request(tmp_path, cutoff_us=2**60)
    table = pq.read_table(asked.entities[0])
    with pa.OSFile(str(tmp_path / "entities.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    first = run_historical(catalogue, lakes.wanted(), asked)
    second = run_historical(catalogue, lakes.wanted(), replace(asked, entities=(str(tmp_path / "entities.arrow"),)))
    assert second.digest == first.digest


def test_view_without_history_is_missing_and_told(catalogue: Catalogue, tmp_path: Path) -> None:
    service = FeatureService(
        lakes.SERVICE.name,
        owner="shop",
        entries=[
            ServiceEntry("shop.users.activity@v1", ["basket"]),
            ServiceEntry("shop.users.friends@v1", ["country"], {}, "friends_"),
        ],
    )
    result = run_historical(catalogue, lakes.wanted(service), request(tmp_path))
    assert result.empty_views == ("shop.users.friends@v1",)
    assert set(pq.read_table(result.output)["friends_country__status"].to_pylist()) == {rules.MISSING}
    with pytest.raises(FailedPrecondition, match=r"no history of shop\.users\.friends@v1"):
        run_historical(catalogue, lakes.wanted(service), request(tmp_path, every_view=True))


def test_lake_without_any_history_is_refused(tmp_path: Path) -> None:
    empty = Catalogue(lake_config(tmp_path))
    with pytest.raises(FailedPrecondition, match="holds no history") as caught:
        run_historical(empty, lakes.wanted(), request(tmp_path))
    assert caught.value.reason == "NO_HISTORY"
    empty.close()
    with pytest.raises(FailedPrecondition, match="holds no offline store"):
        require_lake(tmp_path / "elsewhere")


def rewritten(path: str, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def nulls(table: pa.Table, name: str) -> pa.Table:
    place = table.schema.get_field_index(name)
    column = pa.array([None, *table[name].to_pylist()[1:]], table.schema.field(name).type)
    return table.set_column(place, name, column)


def naive(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("event_time")
    return table.set_column(place, "event_time", table["event_time"].cast(pa.timestamp("us")))


BAD_ENTITIES: dict[str, tuple[Callable[[str], object], str]] = {
    "missing key": (lambda path: rewritten(path, lambda t: t.drop_columns(["friend_id"])), "MISSING_COLUMN"),
    "missing time": (lambda path: rewritten(path, lambda t: t.drop_columns(["event_time"])), "MISSING_COLUMN"),
    "naive time": (lambda path: rewritten(path, naive), "NAIVE_TIME"),
    "null key": (lambda path: rewritten(path, lambda t: nulls(t, "user_id")), "NULL_KEY"),
    "null time": (lambda path: rewritten(path, lambda t: nulls(t, "event_time")), "NULL_TIME"),
    "corrupt": (lambda path: Path(path).write_bytes(b"PAR1 and then nothing that is Parquet"), "CORRUPT_FILE"),
    "gone": (lambda path: Path(path).unlink(), "FILE_NOT_FOUND"),
    "name taken": (
        lambda path: rewritten(path, lambda t: t.append_column("basket", pa.array([1.0] * 4))),
        "NAME_TAKEN",
    ),
}


@pytest.mark.parametrize("case", BAD_ENTITIES)
def test_bad_entities_give_one_error_no_result_and_a_retry_works(
    catalogue: Catalogue, tmp_path: Path, case: str
) -> None:
    damage, reason = BAD_ENTITIES[case]
    asked = request(tmp_path)
    damage(asked.entities[0])
    with pytest.raises(HeadraceError) as caught:
        run_historical(catalogue, lakes.wanted(), asked)
    assert caught.value.reason == reason
    assert not Path(asked.output).exists()
    assert list(tmp_path.glob("*.partial")) == []
    assert catalogue.view_table(lakes.TABLE).pins() == {}
    lakes.entities(Path(asked.entities[0]))
    assert run_historical(catalogue, lakes.wanted(), asked).row_count == 4


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_other_forms_of_entities_are_refused(catalogue: Catalogue, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"convert it to \.parquet"):
        run_historical(catalogue, lakes.wanted(), request(tmp_path, entities=(name,)))


def test_impossible_memory_limit_names_the_least(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(HeadraceError, match=r"give at least [0-9]+") as caught:
        run_historical(catalogue, lakes.wanted(), request(tmp_path, memory_limit_bytes=1_000))
    assert caught.value.reason == "MEMORY_LIMIT_TOO_SMALL"
    assert not (tmp_path / "out.parquet").exists()


def test_place_that_cannot_be_written_leaves_no_result(catalogue: Catalogue, tmp_path: Path) -> None:
    asked = request(tmp_path, output="/dev/null/out.parquet")
    with pytest.raises(HeadraceError) as caught:
        run_historical(catalogue, lakes.wanted(), asked)
    assert caught.value.reason == "CANNOT_WRITE"


def test_view_that_stays_online_has_no_history() -> None:
    view = replace(lakes.PLAIN, name="shop.users.session", offline=False)
    digest = view_digest(view, lakes.USER, lakes.EVENTS)
    record = RegisteredView(view, lakes.STAMP, 1, State.ACTIVE, 9, 10, digest)
    entries = [ServiceEntry("shop.users.session@v1", ["country"])]
    service = FeatureService("shop.ranking.session", owner="shop", entries=entries)
    with pytest.raises(FailedPrecondition) as caught:
        resolve_service(lakes.Registry(service, record), service.name)
    assert caught.value.reason == "VIEW_NOT_OFFLINE"
