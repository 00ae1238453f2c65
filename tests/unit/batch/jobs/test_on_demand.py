"""On-demand features in jobs: request data from the entity rows, inputs pinned, sets rebuilt to the same digest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.jobs import training
from batch.jobs.context import Context
from batch.jobs.historical import HistoricalRequest, run_historical
from batch.jobs.services import WantedService, resolve_service, service_document, service_from_document
from core_ext import rules
from headrace.definitions import (
    Fallback,
    Feature,
    FeatureService,
    OnDemandView,
    RegisteredEntity,
    RegisteredOnDemandView,
    RegisteredView,
    RequestSource,
    ServiceEntry,
    State,
    derived,
)
from headrace.definitions.on_demand_plans import OnDemandPlans
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.names import VersionRef
from tests.unit.batch.jobs import lakes
from tests.unit.batch.jobs.lakes import ACTIVITY, DIGEST, STAMP, USER

OFFER = OnDemandView(
    "shop.ranking.offer", owner="shop", fallback=Fallback.DEFAULT,
    sources=[
        ServiceEntry(f"{ACTIVITY.name}@v1", ["basket"]),
        ServiceEntry(f"{ACTIVITY.name}@v1", ["country"], {"user_id": "friend_id"}, "friend_"),
        RequestSource("offer", {"label": "i64"}),
    ],
    features=[
        Feature("worth", "f64", derived("basket * cast(label as f64)")),
        Feature("where", "string", derived("concat(friend_country, cast(label as string))"), default="?"),
    ],
)  # fmt: skip
OFFERS = FeatureService(
    "shop.ranking.offers", owner="shop", entries=[ServiceEntry(f"{OFFER.name}@v1", ["worth", "where"])]
)
MIXED = replace(
    OFFERS,
    entries=[
        ServiceEntry(f"{OFFER.name}@v1", ["worth"], output_prefix="a_"),
        ServiceEntry(f"{ACTIVITY.name}@v1", ["country", "basket"]),
        ServiceEntry(f"{OFFER.name}@v1", ["where", "worth"], {"user_id": "friend_id", "friend_id": "user_id"}, "b_"),
        ServiceEntry(f"{OFFER.name}@v1", ["worth"], output_prefix="c_"),
    ],
)


def offer() -> RegisteredOnDemandView:
    activity = RegisteredView(ACTIVITY, STAMP, 1, State.ACTIVE, 3, 4, DIGEST)
    entity = RegisteredEntity(USER, STAMP, 1)
    plan = OnDemandPlans({VersionRef(ACTIVITY.name, 1): activity}.get, {USER.name: entity.definition}.__getitem__)
    compiled = plan.compile(OFFER)
    return RegisteredOnDemandView(compiled.view, STAMP, 1, State.ACTIVE, compiled.digest)


def wanted(service: FeatureService = OFFERS) -> WantedService:
    return resolve_service(lakes.Registry(service, offer()), service.name)


class Here(Context):
    """A context whose registry is in memory."""

    def service(self, name: str) -> WantedService:
        """The service of on-demand features."""
        return wanted()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    lakes.made_lake(tmp_path / "lake").close()
    return Here(tmp_path / "lake")


def joined(context: Context, folder: Path, service: WantedService, **changes: Any) -> pa.Table:
    entities = lakes.entities(folder / "entities.parquet")
    with context.catalogue() as catalogue:
        run_historical(catalogue, service, HistoricalRequest((entities,), str(folder / "out.parquet"), **changes))
    return pq.read_table(folder / "out.parquet")


def test_request_data_are_columns_of_the_entity_rows(context: Context, tmp_path: Path) -> None:
    table = joined(context, tmp_path, wanted())
    assert table.column_names[4:] == ["worth", "worth__status", "where", "where__status"]
    assert table["worth"].to_pylist() == [0.0, 0.5, 24.0, 1.5]
    assert table["worth__status"].to_pylist() == [rules.PRESENT] * 4
    assert table["where"].to_pylist() == ["FR0", "?", "FR2", "?"]
    missing = rules.MISSING | rules.DEFAULTED
    assert table["where__status"].to_pylist() == [rules.PRESENT, missing, rules.PRESENT, missing]


def test_features_stand_in_the_order_of_the_service(context: Context, tmp_path: Path) -> None:
    service = wanted(MIXED)
    table = joined(context, tmp_path, service)
    assert service.outputs == ["a_worth", "country", "basket", "b_where", "b_worth", "c_worth"]
    assert [name for name in table.column_names[4:] if not name.endswith("__status")] == service.outputs
    assert table["a_worth"].to_pylist() == table["c_worth"].to_pylist() == [0.0, 0.5, 24.0, 1.5]
    assert table["b_where"].to_pylist() == ["DE0", "FR1", "DE2", "?"]
    assert service_from_document(service_document(service)) == service
    # The views that are read are joined once for each key, whoever asks for them.
    assert [(view.ref, view.keys[0][1]) for view in service.views] == [
        (f"{ACTIVITY.name}@v1", "user_id"),
        (f"{ACTIVITY.name}@v1", "friend_id"),
    ]


def test_a_set_is_rebuilt_from_pinned_inputs_and_told_from_a_later_one(context: Context, tmp_path: Path) -> None:
    entities = lakes.entities(tmp_path / "entities.parquet")
    arguments = {"service": OFFERS.name, "entities": [entities]}
    made = training.create(context, arguments | {"name": "week"})
    assert (made["feature_count"], made["row_count"]) == (2, 4)
    with context.catalogue() as catalogue:
        lakes.append(catalogue, lakes.history([(1, 1, 77.0, "ZZ"), (9, 0, 1.0, "ZZ")], 4), 4)
    Path(made["result"]).unlink()
    assert training.rebuild(context, {"name": "week"})["digest"] == made["digest"]
    assert training.verify_set(context, {"name": "week"})["same"]
    training.create(context, arguments | {"name": "later"})
    found = training.diff(context, {"first": "week", "second": "later"})
    whats = {one["what"]: one["cause"] for one in found["differences"]}
    assert whats[f"{ACTIVITY.name}@v1:basket snapshot"] == "late events or backfill"
    assert whats["worth values"] == "values"


def test_entity_rows_without_the_request_data_are_refused(context: Context, tmp_path: Path) -> None:
    path = Path(lakes.entities(tmp_path / "entities.parquet"))
    whole = pq.read_table(path)
    texts = whole.set_column(3, "label", pa.array(["a"] * 4))
    for table, reason, words in (
        (whole.drop_columns(["label"]), "MISSING_COLUMN", "has no column 'label'"),
        (texts, "WRONG_TYPE", "column 'label' is string; i64 is int64"),
        (whole.append_column("worth", pa.array([1] * 4)), "NAME_TAKEN", "column 'worth'"),
    ):
        pq.write_table(table, path)
        with context.catalogue() as catalogue, pytest.raises(InvalidArgument, match=words) as caught:
            run_historical(catalogue, wanted(), HistoricalRequest((str(path),), str(tmp_path / "out.parquet")))
        assert caught.value.reason == reason
    assert not (tmp_path / "out.parquet").exists()


def test_another_program_than_the_manifest_names_is_refused(context: Context, tmp_path: Path) -> None:
    service = wanted()
    assert service.on_demand is not None
    changed = [replace(one, program_digest="00" * 32) for one in service.on_demand.programs]
    other = replace(service, on_demand=replace(service.on_demand, programs=tuple(changed)))
    with pytest.raises(FailedPrecondition, match="joined with another kernel"):
        joined(context, tmp_path, other)
