"""What a server answered from windows, latest columns and expressions is what the offline store says of the same times.

Events go through a real server with its row log, and from there by the drain into Iceberg tables, as on a platform;
only the clock is held, so that every time is one that the test knows.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
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
from batch.jobs.services import WantedService, resolve_service
from batch.offline.catalogue import Catalogue
from batch.offline.runs import Provenance, Runs
from core_ext import rules
from headrace.client import Client
from headrace.client.shards import ShardClient
from headrace.definitions import (
    Column,
    DefinitionKind,
    DefinitionSet,
    Fallback,
    Feature,
    FeatureService,
    FeatureView,
    ServiceEntry,
    Source,
    derived,
    latest,
    session,
    window,
)
from headrace.definitions.registered import Registered, RegistryState, all_records
from headrace.definitions.transforms import AGGREGATES
from headrace.names import parse_version_ref
from headrace.types import ValueType
from tests.unit.batch.offline.parts import catalogue_of
from tests.unit.feature_server.parts import ENTITY, NOW_US, OWNER, Parts, shop_definitions, state_of

EVENTS = "shop.web.order_events"
WINDOWED, FILTERED, SERVICE = "shop.web.orders", "shop.web.paid", "shop.web.rich"
TYPES = {
    "price": "f64", "small": "f32", "quantity": "i64", "level": "i32", "shop": "string", "raw": "bytes",
    "paid": "bool", "seen": "timestamp_us", "day": "date", "codes": "list<i64>", "pair": "list<f64,2>",
}  # fmt: skip
USERS = 14
ONLY_LATE, RETURNING = 3, 4  # erased: one hears of its past alone, the other comes back


def window_features() -> list[Feature]:
    """Every aggregate over short, middle and long windows, and once over sessions, of inputs of many types."""
    spans = [("3m", "1m"), ("2h", "10m"), ("3d", "1d")]
    wanted: list[tuple[str, str, str, dict[str, Any]]] = [
        ("count", "", "i64", {}), ("count", "price", "i64", {}),
        ("sum", "price", "f64", {}), ("sum", "quantity * 3", "i64", {}), ("sum", "small", "f64", {}),
        ("avg", "price", "f64", {}), ("avg", "level", "f64", {}),
        ("min", "price", "f64", {}), ("min", "day", "date", {}), ("max", "small", "f32", {}),
        ("max", "seen", "timestamp_us", {}), ("max", "level", "i32", {}),
        ("first", "shop", "string", {}), ("first", "quantity", "i64", {}), ("last", "raw", "bytes", {}),
        ("last", "paid", "bool", {}), ("last", "price", "f64", {}),
        ("stddev", "price", "f64", {}), ("variance", "quantity", "f64", {}),
        ("approx_distinct", "shop", "i64", {}), ("approx_distinct", "price", "i64", {}),
        ("quantile", "price", "f64", {"quantile": 0.9}), ("quantile", "quantity", "f64", {"quantile": 0.25}),
        ("top_k", "shop", "list<string>", {"item_count": 3}), ("top_k", "level", "list<i32>", {"item_count": 2}),
        ("last_n", "price", "list<f64>", {"item_count": 4}), ("last_n", "shop", "list<string>", {"item_count": 2}),
        ("last_n", "paid", "list<bool>", {"item_count": 3}),
        ("ratio", "price", "f64", {"denominator": "quantity"}),
        ("decayed_sum", "price", "f64", {"half_life": "30m"}),
        ("max", "event_time", "timestamp_us", {}),
    ]  # fmt: skip
    assert {aggregate for aggregate, *_ in wanted} == set(AGGREGATES)
    defaults = {"f64": -1.5, "string": "none", "list<f64>": [1.0]}
    return [
        Feature(
            f"w{number}_{over}", kind, window(aggregate, text, over=over, hop=hop, **more),
            default=defaults.get(kind) if number % 2 else None,
        )
        for number, (aggregate, text, kind, more) in enumerate(wanted)
        for over, hop in spans
        if not (aggregate == "decayed_sum" and over == "3m")
    ] + [
        Feature(f"s_{aggregate}", kind, session(aggregate, text, gap="17m", longest="3h", **more))
        for aggregate, text, kind, more in {one[0]: one for one in wanted}.values()
    ]  # fmt: skip


DERIVED = [
    Feature("share", "f64", derived("w2_3m / w2_2h"), default=0.25),
    Feature("more", "i64", derived("w0_2h - w0_3m + cast(level as i64)")),
    Feature("named", "string", derived("concat(coalesce(shop, 'nobody'), ':', coalesce(w12_2h, '-'))")),
    Feature("cheap", "bool", derived("price < w5_3d")),
]
LATEST = [Feature(name, kind, latest(name), default={"f64": 9.5, "i64": 7}.get(kind)) for name, kind in TYPES.items()]
LATEST.append(Feature("who", "i64", latest("user_id")))


def definitions() -> DefinitionSet:
    """A view of windows with a filter, and one of a filter and expressions alone."""
    shop = shop_definitions()
    columns = [Column("user_id", "i64"), Column("event_time", "timestamp_us")]
    source = Source(name=EVENTS, owner=OWNER, columns=columns + [Column(*one) for one in TYPES.items()])
    windowed = FeatureView(
        name=WINDOWED, owner=OWNER, entity=ENTITY, source=EVENTS, filter="price is null or price < 90.0",
        features=[*window_features(), *LATEST, *DERIVED], ttl=timedelta(hours=3), fallback=Fallback.DEFAULT,
        freshness_sla=timedelta(minutes=20),
    )  # fmt: skip
    filtered = FeatureView(
        name=FILTERED, owner=OWNER, entity=ENTITY, source=EVENTS, filter="paid",
        features=[LATEST[0], LATEST[2], Feature("twice", "f64", derived("price * 2.0"), default=1.0)],
        ttl=timedelta(hours=1), fallback=Fallback.EXPIRED_VALUE,
    )  # fmt: skip
    entries = [
        ServiceEntry(f"{WINDOWED}@v1", [one.name for one in windowed.features]),
        ServiceEntry(f"{FILTERED}@v1", ["price", "quantity", "twice"], output_prefix="paid_"),
    ]
    return replace(
        shop,
        sources=[*shop.sources, source],
        feature_views=[*shop.feature_views, windowed, filtered],
        feature_services=[*shop.feature_services, FeatureService(name=SERVICE, owner=OWNER, entries=entries)],
    )


@dataclass
class InMemory:
    """A registry that answers from memory."""

    state: RegistryState

    def get(self, kind: DefinitionKind, name: str) -> Registered:
        ref = parse_version_ref(name)
        return next(
            one for one in all_records(self.state) if one.ref.name == ref.name and ref.version in (0, one.ref.version)
        )


def service_of() -> WantedService:
    return resolve_service(InMemory(state_of(definitions())), SERVICE)


class Shop:
    """Random orders: late ones, ones of the same user and time, nulls, batches of any size."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.erased_us: dict[int, int] = {}
        self._times: list[tuple[int, int]] = [(0, NOW_US - 1)]

    def batch(self, now_us: int) -> pa.RecordBatch:
        """Some events up to now."""
        places = [self._place(now_us) for _ in range(int(self.random.integers(1, 60)))]
        self._times += places
        columns = {
            "user_id": pa.array([user for user, _ in places], pa.int64()),
            "event_time": pa.array([at for _, at in places], pa.timestamp("us", "UTC")),
        }
        columns |= {name: self._column(name, kind, len(places)) for name, kind in types().items()}
        return pa.record_batch(columns)

    def _place(self, now_us: int) -> tuple[int, int]:
        if self.random.random() < 0.15:
            user, at = self._times[int(self.random.integers(len(self._times)))]
        else:
            user = int(self.random.integers(0, USERS))
            at = now_us - int(self.random.choice([0, 10, 10**7, 10**9, 10**10, 10**11]) * self.random.random())
        if user == ONLY_LATE and user in self.erased_us:
            return user, min(at, self.erased_us[user] - 1)
        # Windows of a server would count what is older than an erasure, once something newer has come.
        return user, max(at, self.erased_us.get(user, at - 1) + 1)

    def _column(self, name: str, kind: ValueType, count: int) -> pa.Array:
        made = [self._value(name) for _ in range(count)]
        given = pa.list_(pa.float64(), 2) if name == "pair" else kind.arrow  # elements beside a null may be null
        return pa.array([None if self.random.random() < 0.15 else value for value in made], given)

    def _value(self, name: str) -> Any:  # of many types
        number = int(self.random.integers(0, 20))
        match name:
            case "price":
                return float(self.random.choice([0.1 * number, -0.0, 1e17, float("nan"), float("inf"), 95.0], p=SHARES))
            case "small":
                return float(np.float32(0.3 * number))
            case "shop":
                return "é" * (number % 3) + str(number % 7)
            case "raw":
                return bytes([number] * (number % 4))
            case "paid":
                return bool(number % 3)
            case "seen":
                return NOW_US + number
            case "codes":
                return list(range(number % 4))
            case "pair":
                return [float(number), -0.5]
        return number - 5


FILTERED_COLUMNS = ["user_id", "event_time", "paid", "price", "quantity"]
SHARES = [0.8, 0.04, 0.04, 0.02, 0.02, 0.08]


def types() -> dict[str, ValueType]:
    source = next(one for one in definitions().sources if one.name == EVENTS)
    return {column.name: column.type for column in source.columns if column.name in TYPES}


@dataclass
class Answers:
    """What was asked and answered: users and times, and of each column values and statuses."""

    users: list[int] = field(default_factory=list)
    times_us: list[int] = field(default_factory=list)
    values: dict[str, list[Any]] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)

    def add(self, client: Client) -> None:
        """Every user that there may be, and one that nobody knows, as of now."""
        users = [*range(USERS), 999]
        found = client.get_online_features(SERVICE, entities={"user_id": users})
        table = found.to_arrow()
        self.users += users
        self.times_us += [found.read_time_us] * len(users)
        for name in found.columns:
            self.values.setdefault(name, []).extend(bits_of(table[name]))
            self.statuses.setdefault(name, []).extend(found.statuses(name).tolist())

    def spine(self, path: Path, order: Sequence[int]) -> str:
        """The questions as entity rows."""
        table = pa.table(
            {
                "user_id": pa.array(self.users, pa.int64()),
                "event_time": pa.array(self.times_us, pa.timestamp("us", "UTC")),
            }
        )
        pq.write_table(table.take(pa.array(order)), path, row_group_size=500)
        return str(path)


def bits_of(column: pa.Array) -> list[Any]:  # of many types
    """Values of which floats are their bits; whole seconds and days stay numbers."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = column.cast(pa.int64() if pa.types.is_timestamp(column.type) else pa.int32())
    return [_bits(value) for value in column.to_pylist()]


def _bits(value: Any) -> Any:  # as above
    if isinstance(value, list):
        return [_bits(one) for one in value]
    return struct.pack("<d", value) if isinstance(value, float) else value


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts(tmp_path / "store", state=state_of(definitions()), row_log_bytes=64 << 20)
    yield opened
    opened.close()


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    yield opened
    opened.close()


def lived(parts: Parts, catalogue: Catalogue, seed: int, rounds: int) -> Answers:
    """Some days of a shop: writes, reads, erasures and drains in turn."""
    shop, answers = Shop(seed), Answers()
    parts.serve().close()
    runs = Runs(catalogue, Provenance("test"), parts.clock)
    with ShardClient(f"127.0.0.1:{parts.port}") as shards, Client(f"127.0.0.1:{parts.port}") as client:
        drain = Drain(shards, Views(lambda: all_records(state_of(definitions()))), catalogue, runs, parts.clock)
        for number in range(rounds):
            for _ in range(int(shop.random.integers(1, 4))):
                batch = shop.batch(parts.clock.now_us)
                client.write_features(f"{WINDOWED}@v1", batch)
                client.write_features(f"{FILTERED}@v1", batch.select(FILTERED_COLUMNS))
                parts.clock.now_us += int(shop.random.choice([0, 1, 1_000, 10**8]))
            if number in (rounds // 3, rounds // 2):
                users = [ONLY_LATE, RETURNING] if number == rounds // 3 else [5, 6]
                client.delete_entity(ENTITY, {"user_id": users})
                shop.erased_us |= dict.fromkeys(users, parts.clock.now_us)
            answers.add(client)
            parts.clock.now_us += int(shop.random.choice([0, 1, 10**6, 10**8, 3 * 10**9, 10**10]))
            answers.add(client)
            parts.clock.now_us += 1  # a write of the very time of a read would be known to it offline
            if number % 5 == 4:
                drain.cycle()
        while drain.backlog().shards:
            drain.cycle()
    return answers


def differences(answers: Answers, output: str, order: Sequence[int]) -> tuple[int, list[str]]:
    """How many values were compared, and those that differ."""
    table = pq.read_table(output)
    wrong, count = [], 0
    for name, values in answers.values.items():
        found = bits_of(table[name].combine_chunks())
        statuses = table[f"{name}__status"].to_pylist()
        for row, at in enumerate(order):
            count += 1
            online = values[at], answers.statuses[name][at]
            if online != (found[row], statuses[row]):
                wrong.append(f"{name} of user {answers.users[at]} at {answers.times_us[at]}: {online} online, "
                             f"{(found[row], statuses[row])} offline")  # fmt: skip
    return count, wrong


def joined(catalogue: Catalogue, entities: str, output: Path, **changes: Any) -> HistoricalResult:  # of many types
    request = HistoricalRequest((entities,), str(output), cutoff_us=NOW_US * 2, **changes)
    return run_historical(catalogue, service_of(), request)


@pytest.mark.timeout(300)
def test_offline_values_are_those_that_were_served(
    tmp_path: Path, parts: Parts, catalogue: Catalogue, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = lived(parts, catalogue, seed, rounds=30)
    order = np.random.default_rng(seed).permutation(len(answers.users)).tolist()
    entities = answers.spine(tmp_path / "entities.parquet", order)
    result = joined(catalogue, entities, tmp_path / "out.parquet")
    count, wrong = differences(answers, str(tmp_path / "out.parquet"), order)
    assert (count, wrong[:5]) == (60 * (USERS + 1) * len(answers.values), [])
    states = {state & rules.STATE_MASK for found in answers.statuses.values() for state in found}
    assert states == {rules.PRESENT, rules.NULL, rules.MISSING, rules.EXPIRED}
    # Under a limit that holds neither the spine nor the events: in parts on disk, some read more than once.
    monkeypatch.setattr(memory, "ROWS_MIN", 20)
    monkeypatch.setattr(memory, "FIXED_BYTES", 0)
    small = joined(catalogue, entities, tmp_path / "small.parquet", memory_limit_bytes=2_000_000)
    assert small.spilled_bytes > result.spilled_bytes
    assert small.digest == result.digest


@pytest.mark.timeout(300)
def test_a_cut_off_in_the_past_gives_what_was_known_then(
    tmp_path: Path, parts: Parts, catalogue: Catalogue, seed: int
) -> None:
    answers = lived(parts, catalogue, seed, rounds=12)
    order = list(range(len(answers.users)))
    past = [at for at in order if answers.times_us[at] <= answers.times_us[len(order) // 2]]
    entities = answers.spine(tmp_path / "entities.parquet", past)
    request = HistoricalRequest((entities,), str(tmp_path / "out.parquet"), cutoff_us=answers.times_us[past[-1]])
    run_historical(catalogue, service_of(), request)
    count, wrong = differences(answers, str(tmp_path / "out.parquet"), past)
    assert (count, wrong[:5]) == (len(past) * len(answers.values), [])
