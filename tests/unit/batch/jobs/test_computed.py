"""Computed views in joins and training sets over a lake: resolved, joined, kept in a manifest, built again."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.jobs import training
from batch.jobs.context import Context
from batch.jobs.historical import HistoricalRequest, run_historical
from batch.jobs.services import WantedService, resolve_service, service_document, service_from_document
from batch.offline.catalogue import Catalogue
from batch.offline.columns import ViewColumns
from batch.offline.positions import LogRange
from core_ext import rules
from headrace.definitions import (
    Feature,
    FeatureService,
    FeatureView,
    RegisteredView,
    ServiceEntry,
    derived,
    latest,
    window,
)
from headrace.definitions.registered import State
from headrace.definitions.transform import view_digest
from headrace.errors import FailedPrecondition
from headrace.names import VersionRef
from tests.unit.batch.jobs import lakes
from tests.unit.batch.jobs.lakes import EVENTS, HOUR_US, START_US, USER

VIEW: Final = FeatureView(
    "shop.users.baskets", owner="shop", entity=USER.name, source=EVENTS.name, filter="basket is not null",
    features=[
        Feature("visits", "i64", window("count", over="3h", hop="1h")),
        Feature("spent", "f64", window("sum", "basket * 2.0", over="3h", hop="1h")),
        Feature("newest", "timestamp_us", window("max", "event_time", over="3h", hop="1h")),
        Feature("country", "string", latest("country"), default="XX"),
        Feature("mean", "f64", derived("spent / cast(visits as f64)")),
    ],
)  # fmt: skip
TABLE: Final = ViewColumns(VersionRef(VIEW.name, 1), lakes.TABLE.keys, lakes.TABLE.features)
SERVICE: Final = FeatureService(
    "shop.ranking.homepage",
    owner="shop",
    entries=[
        ServiceEntry("shop.users.baskets@v1", ["visits", "newest"]),
        ServiceEntry("shop.users.baskets@v1", ["mean", "country"], {"user_id": "friend_id"}, "friend_"),
        ServiceEntry("shop.users.activity@v1", ["basket"]),
    ],
)
RECORD: Final = RegisteredView(VIEW, lakes.STAMP, 1, State.ACTIVE, 7, 8, view_digest(VIEW, USER, EVENTS))
ROWS: Final = [(1, 0, 10.0, "DE"), (2, 0, 1.0, None), (1, 2, 12.0, "FR"), (3, 3, 7.0, "IT")]


def wanted() -> WantedService:
    return resolve_service(lakes.Registry(SERVICE, RECORD), SERVICE.name)


def rows_of(
    rows: Sequence[tuple[int, int, float | None, str | None]], first: int = 0, *, gone: bool = False
) -> pa.Table:
    table = lakes.history(rows, first)
    at = table.schema.get_field_index("_tombstone")
    return table.set_column(at, table.schema.field(at), pa.array([gone] * len(rows)))


def append(catalogue: Catalogue, rows: pa.Table, first: int) -> None:
    catalogue.view_table(TABLE).append(rows, [LogRange("log", 0, 1, first, first + rows.num_rows)])


class Here(Context):
    """A context whose registry is in memory."""

    def service(self, name: str) -> WantedService:
        """The service of this file."""
        return wanted()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    catalogue = lakes.made_lake(tmp_path / "lake")
    append(catalogue, rows_of(ROWS), 0)
    catalogue.close()
    return Here(tmp_path / "lake")


@pytest.fixture
def catalogue(context: Context) -> Iterator[Catalogue]:
    with context.catalogue() as opened:
        yield opened


def joined(catalogue: Catalogue, folder: Path) -> pa.Table:
    entities = lakes.entities(folder / "entities.parquet")
    run_historical(catalogue, wanted(), HistoricalRequest((entities,), str(folder / "out.parquet")))
    return pq.read_table(folder / "out.parquet")


def test_features_come_from_the_events_of_the_lake(catalogue: Catalogue, tmp_path: Path) -> None:
    found = joined(catalogue, tmp_path)  # users 1, 2 an hour after the start; 1, 9 two hours later
    assert found["visits"].to_pylist() == [1, 1, 2, 0]
    newest = [START_US, START_US, START_US + 2 * HOUR_US, None]
    assert found["newest"].cast(pa.int64()).to_pylist() == newest
    assert found["friend_mean"].to_pylist() == [2.0, None, 2.0, None]
    assert found["friend_country"].to_pylist() == [None] * 4
    states = [state & rules.STATE_MASK for state in found["friend_country__status"].to_pylist()]
    assert states == [rules.NULL, rules.MISSING, rules.NULL, rules.MISSING]
    assert found["basket"].to_pylist() == [10.0, 0.5, 12.0, 0.5]


def test_an_erased_entity_starts_again(catalogue: Catalogue, tmp_path: Path) -> None:
    append(catalogue, rows_of([(1, 1, None, None)], 4, gone=True), 4)
    found = joined(catalogue, tmp_path)
    assert found["visits"].to_pylist() == [0, 1, 1, 0]


def test_a_set_is_built_again_from_its_manifest_after_later_writes(
    context: Context, catalogue: Catalogue, tmp_path: Path
) -> None:
    entities = lakes.entities(tmp_path / "entities.parquet")
    made = training.create(context, {"name": "week", "service": SERVICE.name, "entities": [entities]})
    assert training.verify_set(context, {"name": "week"})["same"]
    append(catalogue, rows_of([(1, 0, 99.0, "ZZ"), (1, 1, None, None)], 4), 4)
    again = training.rebuild(context, {"name": "week"})
    assert (again["same"], again["digest"]) == (True, made["digest"])
    assert joined(catalogue, tmp_path)["visits"].to_pylist() == [3, 1, 4, 0]


def test_definitions_outlive_their_registry() -> None:
    service = wanted()
    assert service_from_document(json.loads(json.dumps(service_document(service)))) == service


def test_another_kernel_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    service = wanted()
    changed = replace(service, views=tuple(replace(view, transform_digest="00" * 32) for view in service.views[:2]))
    request = HistoricalRequest((lakes.entities(tmp_path / "entities.parquet"),), str(tmp_path / "out.parquet"))
    with pytest.raises(FailedPrecondition) as caught:
        run_historical(catalogue, changed, request)
    assert caught.value.reason == "TRANSFORM_CHANGED"
    assert not (tmp_path / "out.parquet").exists()
