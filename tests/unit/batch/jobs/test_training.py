"""Training sets by command: made, verified, damaged, rebuilt, told apart."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.jobs import training
from batch.jobs.context import Context
from batch.jobs.services import WantedService
from batch.offline.catalogue import Catalogue
from batch.offline.maintenance import expire
from headrace.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from tests.unit.batch.jobs import lakes


class Here(Context):
    """A context whose registry is in memory."""

    def service(self, name: str) -> WantedService:
        """The shop's service."""
        return lakes.wanted()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    lakes.made_lake(tmp_path / "lake").close()
    return Here(tmp_path / "lake")


@pytest.fixture
def catalogue(context: Context) -> Iterator[Catalogue]:
    with context.catalogue() as opened:
        yield opened


def arguments(folder: Path, name: str = "week", **more: Any) -> dict[str, Any]:
    entities = folder / "entities.parquet"
    if not entities.exists():
        lakes.entities(entities)
    return {"name": name, "service": lakes.SERVICE.name, "entities": [str(entities)], **more}


def test_set_is_made_listed_shown_and_verified(context: Context, tmp_path: Path) -> None:
    made = training.create(context, arguments(tmp_path))
    assert (made["row_count"], made["feature_count"]) == (4, 3)
    assert training.list_sets(context, {})["training_sets"][0]["digest"] == made["digest"]
    assert training.show(context, {"name": "week"}) == made
    assert training.verify_set(context, {"name": "week"})["same"]
    with pytest.raises(AlreadyExists):
        training.create(context, arguments(tmp_path))
    with pytest.raises(NotFound):
        training.show(context, {"name": "other"})


def test_rebuild_gives_the_digest_after_backfill_expiry_and_loss(
    context: Context, catalogue: Catalogue, tmp_path: Path
) -> None:
    made = training.create(context, arguments(tmp_path))
    lakes.append(catalogue, lakes.history([(1, 0, 77.0, "ZZ"), (9, 0, 1.0, "ZZ")], 4), 4)
    expire(lambda: catalogue.load(lakes.TABLE.identifier), 2**52)
    (tmp_path / "entities.parquet").unlink()
    Path(made["result"]).unlink()
    again = training.rebuild(context, {"name": "week"})
    assert again["digest"] == made["digest"]
    assert training.verify_set(context, {"name": "week"})["same"]
    assert pq.read_table(made["result"])["basket"].to_pylist() == [10.0, 0.5, 12.0, 0.5]


def test_changed_value_fails_verification_and_rebuild_puts_it_back(context: Context, tmp_path: Path) -> None:
    made = training.create(context, arguments(tmp_path))
    rows = pq.read_table(made["result"])
    place = rows.schema.get_field_index("basket")
    pq.write_table(rows.set_column(place, "basket", pa.array([1.0, 0.5, 12.0, 0.5])), made["result"])
    verdict = training.verify_set(context, {"name": "week"})
    assert (verdict["same"], verdict["changed_columns"]) == (False, ["basket"])
    training.rebuild(context, {"name": "week"})
    assert training.verify_set(context, {"name": "week"})["same"]


def test_rebuild_of_changed_entities_is_refused(context: Context, tmp_path: Path) -> None:
    made = training.create(context, arguments(tmp_path))
    lakes.entities(Path(made["entities"]), [(1, 2, 0)])
    with pytest.raises(FailedPrecondition, match="no longer those of training set"):
        training.rebuild(context, {"name": "week"})


def test_rebuild_that_differs_leaves_the_result_alone(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = training.create(context, arguments(tmp_path))
    before = Path(made["result"]).read_bytes()
    wrong = lakes.wanted()
    short = WantedService(wrong.name, wrong.views[:1])
    monkeypatch.setattr(training, "service_from_document", lambda document: short)
    with pytest.raises(FailedPrecondition, match="not touched"):
        training.rebuild(context, {"name": "week"})
    assert Path(made["result"]).read_bytes() == before
    assert list(Path(made["result"]).parent.glob("*.rebuilt")) == []


def test_difference_names_rows_columns_and_cause(context: Context, catalogue: Catalogue, tmp_path: Path) -> None:
    training.create(context, arguments(tmp_path))
    lakes.append(catalogue, lakes.history([(1, 1, 11.0, "DE")], 4), 4)
    training.create(context, arguments(tmp_path, "later"))
    found = training.diff(context, {"first": "week", "second": "later"})
    assert not found["same"]
    assert {one["cause"] for one in found["differences"]} == {"late events or backfill", "values"}
    assert found["changed_rows"] == [{"output": "basket", "row_count": 1, "status_count": 0, "first_rows": [0]}]
    same = training.diff(context, {"first": "week", "second": "week"})
    assert (same["same"], same["changed_rows"]) == (True, [])


def test_column_that_cannot_be_proved_is_refused(context: Context, tmp_path: Path) -> None:
    asked = arguments(tmp_path)
    file = asked["entities"][0]
    rows = pq.read_table(file)
    pq.write_table(rows.append_column("price", rows["label"].cast(pa.decimal128(30, 2))), file)
    with pytest.raises(InvalidArgument, match="price"):
        training.create(context, asked)
    assert training.list_sets(context, {})["training_sets"] == []


def test_name_that_is_no_word_is_refused(context: Context, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="lower snake case"):
        training.create(context, arguments(tmp_path, "Two Words"))
