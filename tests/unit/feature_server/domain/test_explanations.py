"""An explanation is of the very value that a read gives, and its sentences name what decided."""

import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core_ext import rules
from feature_server.domain.explanations import Explanations
from feature_server.domain.shard import ShardState
from feature_server.domain.shard_writes import Durability
from feature_server.ring.held_ring import HeldRing
from feature_server.rpc.inspection_servicer import InspectionServicer
from headrace.definitions import (
    Column,
    DefinitionSet,
    Fallback,
    Feature,
    FeatureView,
    OnDemandView,
    RequestSource,
    ServiceEntry,
    Source,
    derived,
    latest,
    window,
)
from headrace.errors import DataLoss, FailedPrecondition, HeadraceError, InvalidArgument, NotFound, PermissionDenied
from headrace.serving.principal import Principal
from protos.common.v1 import value_pb2
from protos.feature.v1 import inspection_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2 as pb_online
from tests.unit.feature_server.domain.test_reads_in_ring import ring_of, ringed
from tests.unit.feature_server.parts import ENTITY, NOW_US, OWNER, PRINCIPAL, Parts, shop_definitions, state_of

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
SOURCE = "shop.web.order_events"
COLUMNS = {"price": "f64", "quantity": "i64", "shop": "string"}
PLAIN = [Feature("price", "f64", latest("price"), default=-1.0), Feature("shop", "string", latest("shop"))]
WINDOWS = [
    Feature("orders", "i64", window("count", over="10m", hop="1m")),
    Feature("spent", "f64", window("sum", "price", over="1h", hop="10m"), default=0.5),
    Feature("dearest", "f64", window("max", "price", over="10m", hop="1m"), default=9.0),
    Feature("whole", "i64", window("sum", "quantity", over="10m", hop="1m")),
    Feature("shop", "string", latest("shop")),
    Feature("mean", "f64", derived("spent / cast(orders as f64)"), default=1.5),
]
LIMITS: Mapping[str, Any] = {"ttl": timedelta(minutes=20), "freshness_sla": timedelta(minutes=5)}
VIEWS: Mapping[str, Mapping[str, Any]] = {
    "shop.web.bare": {"features": PLAIN},
    "shop.web.kept": {"features": PLAIN, **LIMITS},
    "shop.web.filled": {"features": PLAIN, **LIMITS, "fallback": Fallback.DEFAULT},
    "shop.web.old": {"features": PLAIN, **LIMITS, "fallback": Fallback.EXPIRED_VALUE},
    "shop.web.sums": {"features": WINDOWS},
    "shop.web.sums_kept": {"features": WINDOWS, **LIMITS, "fallback": Fallback.DEFAULT},
    "shop.web.dear": {
        "features": [Feature("price", "f64", latest("price")), Feature("twice", "f64", derived("price * 2.0"))],
        "filter": "price > 2.0", **LIMITS,
    },
}  # fmt: skip
DEAL, OFFER = "shop.web.deal", "shop.web.offer"


def definitions() -> DefinitionSet:
    """Plain views of every fallback, views of windows, one of a filter, and on-demand views over them."""
    shop = shop_definitions()
    columns = [Column("user_id", "i64"), Column("event_time", "timestamp_us")]
    source = Source(name=SOURCE, owner=OWNER, columns=columns + [Column(*one) for one in COLUMNS.items()])
    views = [FeatureView(name=name, owner=OWNER, entity=ENTITY, source=SOURCE, **more) for name, more in VIEWS.items()]
    deal = OnDemandView(
        DEAL, owner=OWNER, fallback=Fallback.DEFAULT,
        sources=[ServiceEntry("shop.web.kept@v1", ["price"]), ServiceEntry("shop.web.sums@v1", ["mean"])],
        features=[Feature("gap", "f64", derived("price - mean"), default=3.0)],
    )  # fmt: skip
    offer = OnDemandView(
        OFFER, owner=OWNER,
        sources=[ServiceEntry(f"{DEAL}@v1", ["gap"], {"user_id": "buyer"}), RequestSource("trip", {"miles": "f64"})],
        features=[Feature("total", "f64", derived("gap * miles"))],
    )  # fmt: skip
    return replace(shop, sources=[*shop.sources, source], feature_views=views, on_demand_views=[deal, offer],
                   feature_services=[])  # fmt: skip


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts(tmp_path / "store", state=state_of(definitions()))
    yield opened
    opened.close()


def write(parts: Parts, view: str, *rows: tuple[int, int, float | None, int | None, str | None]) -> None:
    """Rows of user, microseconds before now, price, quantity, shop."""
    users, ages, prices, quantities, shops = zip(*rows, strict=True)
    batch = pa.RecordBatch.from_pydict({
        "user_id": pa.array(users, pa.int64()),
        "event_time": pa.array([parts.clock.now_us - age for age in ages], pa.timestamp("us", "UTC")),
        "price": pa.array(prices, pa.float64()),
        "quantity": pa.array(quantities, pa.int64()),
        "shop": pa.array(shops, pa.string()),
    })  # fmt: skip
    wanted = parts.catalogue.view(f"{view}@v1")
    names = wanted.columns if wanted.computed is None else wanted.computed.columns
    chosen = batch.select(["user_id", "event_time", *(name for name in COLUMNS if name in names)])
    parts.writes.write(f"{view}@v1", lambda target: [chosen], Durability.LOG, ("", 0), PRINCIPAL)


def erase(parts: Parts, user: int) -> None:
    parts.writes.erase(ENTITY, lambda entity: [(user,)], Durability.LOG, ("", 0), PRINCIPAL)


def miles(value: float) -> pb_online.RequestColumn:
    """Request data of one row."""
    kind = value_pb2.ValueType(scalar_type=value_pb2.SCALAR_TYPE_F64)
    return pb_online.RequestColumn(name="miles", value_type=kind, values=struct.pack("<d", value))


def answered(
    parts: Parts, feature: str, user: int | None, key: str = "user_id", data: Sequence[pb_online.RequestColumn] = ()
) -> pb_online.FeatureColumn:
    """What GetOnlineFeatures says."""
    read = pb_online.GetOnlineFeaturesRequest(
        features=[feature],
        entity_columns=[column_of(user, key)],
        request_columns=data,
        options=pb_online.ReadOptions(include_event_times=True),
    )
    raw = parts.reads.get(PRINCIPAL, read.SerializeToString(), lambda: None)
    return pb_online.GetOnlineFeaturesResponse.FromString(raw).columns[0]


def column_of(user: int | None, key: str = "user_id") -> pb_online.EntityColumn:
    return pb_online.EntityColumn(
        join_key=key, int64_values=[0 if user is None else user], null_rows=[0] if user is None else []
    )


def explained(
    parts: Parts, feature: str, user: int | None, key: str = "user_id", data: Sequence[pb_online.RequestColumn] = ()
) -> pb.ExplainedFeature:
    """What ExplainFeature says."""
    servicer = InspectionServicer(parts.explanations, parts.storage, parts.reclaim, lambda: PRINCIPAL)
    request = pb.ExplainFeatureRequest(feature=feature, entity_columns=[column_of(user, key)], request_columns=data)
    return servicer.ExplainFeature(request, None).explanation  # type: ignore[arg-type]  # it has no use for a context


def codes(feature: pb.ExplainedFeature) -> list[str]:
    return [reason.code for reason in feature.reasons]


def all_features() -> list[str]:
    return [f"{view}@v1:{one.name}" for view, more in VIEWS.items() for one in more["features"]]


def check_agrees(parts: Parts, feature: str, user: int | None, data: Sequence[pb_online.RequestColumn] = ()) -> None:
    """The explanation of a feature, and of all that it reads, is of what a read gives."""
    key = "buyer" if feature.startswith(OFFER) else "user_id"
    found = explained(parts, feature, user, key, data)
    assert unnamed(found.column) == unnamed(answered(parts, feature, user, key, data)), feature
    assert found.reasons
    assert all(reason.message for reason in found.reasons)
    below = list(found.inputs)
    while below:
        one = below.pop()
        assert unnamed(one.column) == unnamed(answered(parts, one.feature, user)), one.feature
        below += one.inputs
    if found.HasField("window"):
        assert found.window.event_count == sum(tile.event_count for tile in found.window.tiles)
        if feature.endswith(":orders") and found.column.statuses[0] & rules.STATE_MASK == rules.PRESENT:
            assert int.from_bytes(found.column.values, "little") == found.window.event_count


def unnamed(column: pb_online.FeatureColumn) -> bytes:
    """All of a column but its output name."""
    copied = pb_online.FeatureColumn.FromString(column.SerializeToString())
    copied.ClearField("name")
    return copied.SerializeToString()


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_explanations_agree_with_reads_whatever_was_written(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    choose = random.Random(seed)
    parts = Parts(tmp_path_factory.mktemp("explained") / "store", state=state_of(definitions()))
    try:
        for _ in range(choose.randrange(1, 12)):
            step(parts, choose)
        for feature in [*all_features(), f"{DEAL}@v1:gap"]:
            check_agrees(parts, feature, choose.choice([1, 2, 3, None]))
        check_agrees(parts, f"{OFFER}@v1:total", choose.choice([1, 2]), [miles(2.5)])
    finally:
        parts.close()


def step(parts: Parts, choose: random.Random) -> None:
    """One thing that happens to a store."""
    match choose.randrange(8):
        case 0:
            parts.clock.now_us += choose.choice([1, SECOND_US, 4 * MINUTE_US, 20 * MINUTE_US, 3_600 * SECOND_US])
        case 1:
            parts.table.clear()
        case 2:
            shard = parts.shards[choose.randrange(2)]
            if choose.randrange(4) == 0:
                shard.quarantine(DataLoss("a block is damaged", reason="TEST"))
        case number:
            if any(shard.state is not ShardState.SERVING for shard in parts.shards.shards):
                return
            if number == 3:
                erase(parts, choose.choice([1, 2, 3]))
            else:
                write(parts, choose.choice(list(VIEWS)), *(order(choose) for _ in range(choose.randrange(1, 4))))


def order(choose: random.Random) -> tuple[int, int, float | None, int | None, str | None]:
    age = choose.choice([0, SECOND_US, MINUTE_US, 9 * MINUTE_US, 10 * MINUTE_US, 19 * MINUTE_US, 40 * MINUTE_US])
    quantity = choose.choice([None, 1, 2**62])
    return choose.choice([1, 2, 3]), age, choose.choice([None, 1.0, 2.5]), quantity, choose.choice([None, "a"])


def test_a_stored_value_names_its_row(parts: Parts) -> None:
    write(parts, "shop.web.kept", (1, 2 * SECOND_US, 2.5, 1, "a"))
    found = explained(parts, "shop.web.kept:price", 1)
    assert found.feature == "shop.web.kept@v1:price"
    assert codes(found) == ["STORED"]
    row = found.row
    assert (row.stored, row.erased, row.drained, row.shard) == (True, False, False, parts.shard_of(1))
    assert row.event_time.ToMicroseconds() == NOW_US - 2 * SECOND_US
    assert row.write_time.ToMicroseconds() == NOW_US
    assert (row.partition, row.offset, row.source) == (parts.shard_of(1), 0, "")
    assert row.row_bytes > 68
    assert not row.cached
    answered(parts, "shop.web.kept:price", 1)
    assert explained(parts, "shop.web.kept:price", 1).row.cached


def test_an_expired_value_says_since_when(parts: Parts) -> None:
    for view in ("kept", "filled", "old"):
        write(parts, f"shop.web.{view}", (1, 30 * MINUTE_US, 2.5, 1, "a"))
    found = explained(parts, "shop.web.kept:price", 1)
    assert codes(found) == ["EXPIRED", "WITHHELD", "DEFAULT_UNUSED", "STALE"]
    assert "+ time to live 20m = " in found.reasons[0].message
    assert found.reasons[0].message.endswith("it expired 10m ago")
    assert "over the freshness limit of 5m" in found.reasons[-1].message
    assert codes(explained(parts, "shop.web.filled:price", 1)) == ["EXPIRED", "DEFAULTED", "STALE"]
    assert codes(explained(parts, "shop.web.old:price", 1)) == ["EXPIRED", "EXPIRED_VALUE", "STALE"]


def test_a_missing_value_says_whether_the_entity_is_known(parts: Parts) -> None:
    write(parts, "shop.web.bare", (1, 0, 2.5, 1, "a"))
    known, unknown = (explained(parts, "shop.web.filled:price", user) for user in (1, 7))
    assert codes(known) == ["NO_ROW", "OTHER_ROWS", "DEFAULTED"]
    assert "shop.web.bare@v1" in known.reasons[1].message
    assert codes(unknown) == ["NO_ROW", "UNKNOWN_ENTITY", "DEFAULTED"]
    assert not unknown.row.stored
    assert codes(explained(parts, "shop.web.bare:price", None)) == ["NULL_KEY", "DEFAULT_UNUSED"]


def test_an_erased_value_names_its_tombstone(parts: Parts) -> None:
    write(parts, "shop.web.bare", (1, 0, 2.5, 1, "a"))
    erase(parts, 1)
    found = explained(parts, "shop.web.bare:shop", 1)
    assert codes(found) == ["ERASED"]
    assert found.row.erased
    assert codes(explained(parts, "shop.web.sums:orders", 1)) == ["ERASED", "WINDOW_EMPTY"]


def test_a_null_says_that_the_row_holds_none(parts: Parts) -> None:
    write(parts, "shop.web.bare", (1, 0, None, 1, None))
    assert codes(explained(parts, "shop.web.bare:shop", 1)) == ["NULL_STORED"]


def test_a_window_shows_its_edges_and_tiles(parts: Parts) -> None:
    write(
        parts,
        "shop.web.sums",
        (1, 0, 2.5, 2**62, "a"),
        (1, MINUTE_US, None, 2**62, "a"),
        (1, 50 * MINUTE_US, 1.0, 1, "b"),
    )
    found = explained(parts, "shop.web.sums:orders", 1)
    assert codes(found) == ["WINDOW_FOLDED"]
    assert found.window.event_count == 2
    assert found.window.end_time.ToMicroseconds() == NOW_US
    assert found.window.newest_event_time.ToMicroseconds() == NOW_US
    assert found.window.window_duration.ToTimedelta() == timedelta(minutes=10)
    assert {tile.covered_offset for tile in found.window.tiles} == {2}
    lost = explained(parts, "shop.web.sums:whole", 1)
    assert codes(lost) == ["WINDOW_LOST"]
    assert "does not fit 64 bits" in lost.reasons[0].message
    parts.clock.now_us += 30 * MINUTE_US
    assert codes(explained(parts, "shop.web.sums:orders", 1)) == ["WINDOW_EMPTY"]
    assert codes(explained(parts, "shop.web.sums:dearest", 1)) == ["WINDOW_EMPTY", "DEFAULT_UNUSED"]


def test_a_derived_value_shows_what_it_was_computed_from(parts: Parts) -> None:
    write(parts, "shop.web.sums", (1, 0, 5.0, 1, "a"), (1, 0, 2.0, 1, "a"))
    found = explained(parts, "shop.web.sums:mean", 1)
    assert codes(found) == ["COMPUTED"]
    assert [one.feature for one in found.inputs] == ["shop.web.sums@v1:orders", "shop.web.sums@v1:spent"]
    assert [codes(one) for one in found.inputs] == [["WINDOW_FOLDED"], ["WINDOW_FOLDED"]]
    assert codes(explained(parts, "shop.web.sums:mean", 9))[0] == "COMPUTED_NULL"


def test_an_on_demand_value_wants_request_data_or_uses_it(parts: Parts) -> None:
    write(parts, "shop.web.kept", (1, 0, 5.0, 1, "a"))
    write(parts, "shop.web.sums", (1, 0, 5.0, 1, "a"))
    asked = explained(parts, f"{OFFER}:total", 1, "buyer")
    assert codes(asked) == ["REQUEST_DATA_NEEDED"]
    assert not asked.HasField("column")
    assert [field.name for field in asked.request_fields] == ["miles"]
    assert [one.feature for one in asked.inputs] == [f"{DEAL}@v1:gap"]
    assert [codes(one) for one in asked.inputs[0].inputs] == [["COMPUTED"], ["STORED"]]
    given_ = explained(parts, f"{OFFER}:total", 1, "buyer", [miles(2.0)])
    assert codes(given_) == ["COMPUTED"]
    assert codes(explained(parts, f"{OFFER}:total", 2, "buyer", [miles(2.0)])) == ["COMPUTED"]


def test_a_quarantined_shard_is_named(parts: Parts) -> None:
    parts.shards[parts.shard_of(1)].quarantine(DataLoss("a block is damaged", reason="TEST"))
    found = explained(parts, "shop.web.kept:price", 1)
    assert codes(found) == ["SHARD_UNAVAILABLE", "DEFAULT_UNUSED"]
    assert f"shard {parts.shard_of(1)} is quarantined: a block is damaged" in found.reasons[0].message


def test_a_shard_of_other_servers_is_refused_with_their_names(parts: Parts) -> None:
    write(parts, "shop.web.kept", (1, 0, 5.0, 1, "a"))
    owners = [["a", "b"] if shard == parts.shard_of(1) else ["me"] for shard in range(2)]
    held = HeldRing("me", lambda ring: None, ring_of(3, ["me"], ["me"]))
    reads = ringed(parts, parts, held)
    parts.explanations = Explanations(parts.table, parts.shards, parts.catalogue, reads, parts.clock)
    assert codes(explained(parts, "shop.web.kept:price", 1)) == ["STORED"]
    held.accept(ring_of(4, *owners))
    with pytest.raises(FailedPrecondition) as caught:
        explained(parts, "shop.web.kept:price", 1)
    assert caught.value.reason == "SHARD_ELSEWHERE"
    assert caught.value.metadata["servers"] == "a:1,b:1"


def test_a_shard_that_moves_while_it_is_explained_is_refused(parts: Parts) -> None:
    write(parts, "shop.web.kept", (1, 0, 5.0, 1, "a"))
    held = HeldRing("me", lambda ring: None, ring_of(3, ["me"], ["me"]))
    reads = ringed(parts, parts, held)
    parts.explanations = Explanations(parts.table, parts.shards, parts.catalogue, reads, parts.clock)

    def move(keys: Sequence[bytes]) -> None:
        held.accept(ring_of(4, ["a"], ["a"]))

    parts.faults[parts.shard_of(1)].after_read = move
    with pytest.raises(FailedPrecondition) as caught:
        explained(parts, "shop.web.kept:price", 1)
    assert caught.value.reason == "SHARD_ELSEWHERE"


def test_nothing_of_it_reaches_the_row_table(parts: Parts) -> None:
    write(parts, "shop.web.kept", (1, 0, 5.0, 1, "a"))
    before = parts.table.stats()
    explained(parts, "shop.web.kept:price", 1)
    explained(parts, "shop.web.kept:price", 2)
    assert parts.table.stats() == before


WRONG: Mapping[str, tuple[str, list[pb_online.EntityColumn], type[HeadraceError], str]] = {
    "view": ("shop.web.kepd:price", [column_of(1)], NotFound, "UNKNOWN_FEATURE_VIEW"),
    "feature": ("shop.web.kept:prize", [column_of(1)], NotFound, "UNKNOWN_FEATURE"),
    "no key": ("shop.web.kept:price", [], InvalidArgument, "MISSING_JOIN_KEY"),
    "another key": ("shop.web.kept:price", [column_of(1), column_of(1, "x")], InvalidArgument, "UNKNOWN_JOIN_KEY"),
    "two": ("shop.web.kept:price", [pb_online.EntityColumn(join_key="user_id", int64_values=[1, 2])], InvalidArgument,
            "ONE_ENTITY"),
    "type": ("shop.web.kept:price", [pb_online.EntityColumn(join_key="user_id", string_values=["1"])], InvalidArgument,
             "WRONG_KEY_TYPE"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused(parts: Parts, case: str) -> None:
    feature, columns, kind, reason = WRONG[case]
    servicer = InspectionServicer(parts.explanations, parts.storage, parts.reclaim, lambda: PRINCIPAL)
    with pytest.raises(kind) as caught:
        servicer.ExplainFeature(pb.ExplainFeatureRequest(feature=feature, entity_columns=columns), None)  # type: ignore[arg-type]
    assert caught.value.reason == reason


def test_a_caller_without_the_permission_is_refused(parts: Parts) -> None:
    servicer = InspectionServicer(
        parts.explanations, parts.storage, parts.reclaim, lambda: Principal("nobody", frozenset())
    )
    with pytest.raises(PermissionDenied):
        servicer.ExplainFeature(pb.ExplainFeatureRequest(feature="shop.web.kept:price"), None)  # type: ignore[arg-type]
