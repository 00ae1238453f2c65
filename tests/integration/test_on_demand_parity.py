"""What a server computes on demand is what a historical join computes from the request columns of its entity rows.

Two levels: an on-demand view over windows, expressions and latest columns, and one over that view and request data.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.drain.drain import Drain
from batch.drain.views import Views
from batch.historical import memory
from batch.jobs.historical import HistoricalRequest, HistoricalResult, run_historical
from batch.jobs.services import WantedService, resolve_service, service_document, service_from_document
from batch.offline.catalogue import Catalogue
from batch.offline.runs import Provenance, Runs
from core_ext import rules
from headrace.client import Client
from headrace.client.shards import ShardClient
from headrace.definitions import (
    DefinitionSet,
    Fallback,
    Feature,
    FeatureService,
    OnDemandView,
    RequestSource,
    ServiceEntry,
    derived,
)
from headrace.definitions.registered import all_records
from tests.integration.test_computed_parity import (
    FILTERED,
    FILTERED_COLUMNS,
    USERS,
    WINDOWED,
    InMemory,
    Shop,
    bits_of,
    definitions,
    differences,
)
from tests.unit.batch.offline.parts import catalogue_of
from tests.unit.feature_server.parts import NOW_US, OWNER, Parts, state_of

BASKET, OFFER, SERVICE = "shop.web.basket", "shop.web.offer", "shop.web.checkout"
FIELDS = {
    "amount": pa.float64(), "items": pa.int32(), "coupon": pa.string(), "gift": pa.bool_(), "tag": pa.binary(),
    "rate": pa.float32(), "due": pa.timestamp("us", "UTC"), "budget": pa.int64(),
}  # fmt: skip


def on_demand_definitions() -> DefinitionSet:
    """The views of the computed parity test, on-demand views over them, and a service of both."""
    given = definitions()
    basket = OnDemandView(
        name=BASKET, owner=OWNER, fallback=Fallback.DEFAULT,
        sources=[
            f"{WINDOWED}@v1",
            ServiceEntry(f"{FILTERED}@v1", ["price", "twice"], output_prefix="paid_"),
            RequestSource("basket", {"amount": "f64", "items": "i32", "coupon": "string", "gift": "bool"}),
        ],
        features=[
            Feature("relative", "f64", derived("amount / w5_3d"), default=-2.0),
            Feature("over_usual", "bool", derived("amount > w7_2h or gift")),
            Feature("more_items", "i64", derived("items - w0_2h"), default=-1),
            Feature("label", "string", derived("concat(coupon, '/', coalesce(shop, named))")),
            Feature("paid_sum", "f64", derived("paid_price + paid_twice * amount")),
            Feature("asked_only", "f64", derived("amount * 2.0"), default=0.5),
        ],
    )  # fmt: skip
    offer = OnDemandView(
        name=OFFER, owner=OWNER,
        sources=[
            ServiceEntry(f"{BASKET}@v1", output_prefix="b_"),
            ServiceEntry(f"{WINDOWED}@v1", ["w12_2h", "price", "raw", "day"]),
            RequestSource("offer", {"tag": "bytes", "rate": "f32", "due": "timestamp_us", "budget": "i64"}),
        ],
        features=[
            Feature("score", "f64", derived("coalesce(b_relative, 0.0) * rate + if(b_over_usual, 1.0, price)")),
            Feature("text", "string", derived("concat(b_label, ' ', coalesce(w12_2h, '-'))"), default="none"),
            Feature("same_tag", "bool", derived("tag = raw")),
            Feature("weekend", "bool", derived("day_of_week(due, 'Europe/Berlin') >= 6 or b_more_items = budget")),
            Feature("narrow", "f32", derived("cast(b_paid_sum * rate as f32)")),
            Feature("due_day", "date", derived("if(day is null, date(due, 'UTC'), day)")),
        ],
    )  # fmt: skip
    entries = [
        ServiceEntry(f"{OFFER}@v1", [one.name for one in offer.features]),
        ServiceEntry(f"{WINDOWED}@v1", ["price", "share", "w5_3d"], output_prefix="own_"),
        ServiceEntry(f"{BASKET}@v1", ["relative", "label", "asked_only"], output_prefix="basket_"),
        ServiceEntry(f"{BASKET}@v1", ["relative"], output_prefix="again_"),
    ]
    service = FeatureService(name=SERVICE, owner=OWNER, entries=entries)
    return replace(given, on_demand_views=[basket, offer], feature_services=[*given.feature_services, service])


def service_of() -> WantedService:
    return resolve_service(InMemory(state_of(on_demand_definitions())), SERVICE)


@dataclass
class Answers:
    """What was asked, with its request data, and answered."""

    random: np.random.Generator
    users: list[int] = field(default_factory=list)
    times_us: list[int] = field(default_factory=list)
    data: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in FIELDS})
    values: dict[str, list[Any]] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)

    def add(self, client: Client) -> None:
        """Every user that there may be, and one that nobody knows, as of now."""
        users = [*range(USERS), 999]
        columns = {name: [self._value(name) for _ in users] for name in FIELDS}
        given = {name: pa.array(values, FIELDS[name]) for name, values in columns.items()}
        found = client.get_online_features(SERVICE, entities={"user_id": users}, request_data=given)
        table = found.to_arrow()
        self.users += users
        self.times_us += [found.read_time_us] * len(users)
        for name, values in columns.items():
            self.data[name] += values
        for name in found.columns:
            self.values.setdefault(name, []).extend(bits_of(table[name]))
            self.statuses.setdefault(name, []).extend(found.statuses(name).tolist())

    def _value(self, name: str) -> Any:  # of many types
        if self.random.random() < 0.15:
            return None
        number = int(self.random.integers(-3, 12))
        made: dict[str, Any] = {
            "amount": float(self.random.choice([1.5 * number, float("nan"), 0.0, -0.0, 1e300])),
            "items": number, "coupon": "ü" * (number % 3), "gift": number % 2 == 0, "tag": bytes([number % 5] * 2),
            "rate": 0.25 * number, "due": NOW_US + number * 86_400_000_000, "budget": number,
        }  # fmt: skip
        return made[name]

    def spine(self, path: Path, order: Sequence[int]) -> str:
        """The questions as entity rows with their request columns."""
        columns = {
            "user_id": pa.array(self.users, pa.int64()),
            "event_time": pa.array(self.times_us, pa.timestamp("us", "UTC")),
            **{name: pa.array(values, FIELDS[name]) for name, values in self.data.items()},
        }
        pq.write_table(pa.table(columns).take(pa.array(order)), path, row_group_size=300)
        return str(path)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts(tmp_path / "store", state=state_of(on_demand_definitions()), row_log_bytes=64 << 20)
    yield opened
    opened.close()


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    yield opened
    opened.close()


def lived(parts: Parts, catalogue: Catalogue, seed: int, rounds: int) -> Answers:
    """Some days of a shop: writes, reads and drains in turn."""
    shop, answers = Shop(seed), Answers(np.random.default_rng(seed + 1))
    parts.serve().close()
    runs = Runs(catalogue, Provenance("test"), parts.clock)
    with ShardClient(f"127.0.0.1:{parts.port}") as shards, Client(f"127.0.0.1:{parts.port}") as client:
        views = Views(lambda: all_records(state_of(on_demand_definitions())))
        drain = Drain(shards, views, catalogue, runs, parts.clock)
        for number in range(rounds):
            batch = shop.batch(parts.clock.now_us)
            client.write_features(f"{WINDOWED}@v1", batch)
            client.write_features(f"{FILTERED}@v1", batch.select(FILTERED_COLUMNS))
            parts.clock.now_us += int(shop.random.choice([0, 1, 10**6, 10**8, 3 * 10**9, 10**10]))
            answers.add(client)
            parts.clock.now_us += 1  # a write of the very time of a read would be known to it offline
            if number % 5 == 4:
                drain.cycle()
        while drain.backlog().shards:
            drain.cycle()
    return answers


def joined(
    catalogue: Catalogue, service: WantedService, entities: str, output: Path, **changes: Any
) -> HistoricalResult:
    request = HistoricalRequest((entities,), str(output), cutoff_us=NOW_US * 2, **changes)
    return run_historical(catalogue, service, request)


@pytest.mark.timeout(300)
def test_served_values_are_the_historical_ones_two_levels_deep(
    tmp_path: Path, parts: Parts, catalogue: Catalogue, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = lived(parts, catalogue, seed, rounds=24)
    order = np.random.default_rng(seed).permutation(len(answers.users)).tolist()
    entities = answers.spine(tmp_path / "entities.parquet", order)
    result = joined(catalogue, service_of(), entities, tmp_path / "out.parquet")
    count, wrong = differences(answers, str(tmp_path / "out.parquet"), order)  # type: ignore[arg-type]  # the same shape
    assert (count, wrong[:5]) == (24 * (USERS + 1) * len(answers.values), [])
    assert [name for name in pq.read_schema(tmp_path / "out.parquet").names if name.startswith("__input")] == []
    states = {state & rules.STATE_MASK for found in answers.statuses.values() for state in found}
    assert states >= {rules.PRESENT, rules.NULL, rules.EXPIRED}
    # From a manifest's copy of the definitions, and in parts on disk: the same bytes.
    monkeypatch.setattr(memory, "ROWS_MIN", 20)
    monkeypatch.setattr(memory, "FIXED_BYTES", 0)
    kept = service_from_document(service_document(service_of()))
    assert kept == service_of()
    small = joined(catalogue, kept, entities, tmp_path / "small.parquet", memory_limit_bytes=2_000_000)
    assert small.digest == result.digest
