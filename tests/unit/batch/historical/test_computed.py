"""Joins of computed views against a naive evaluator: windows, latest columns, expressions, tombstones, small limits."""

from pathlib import Path
from typing import Any, Final

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from batch.historical import FeatureColumn, HistoryInput, memory
from batch.historical.computation import Computation, computation_of
from core_ext import rules
from core_ext.twin import rules as twin_rules
from core_ext.twin import windows as twin
from headrace.definitions import (
    Column,
    Entity,
    EntityKey,
    Feature,
    FeatureView,
    Source,
    derived,
    latest,
    session,
    window,
)
from headrace.definitions.plans import compile_plan
from headrace.errors import InvalidArgument, ResourceExhausted
from tests.unit.batch.historical.samples import START_US, Sample, join, sample, seen_from, view, written

ENTITY: Final = Entity("t.users.user", owner="t", join_keys=[EntityKey("user", "string"), EntityKey("shop", "i64")])
SOURCE: Final = Source(
    "t.users.events",
    owner="t",
    columns=[
        Column("user", "string"), Column("shop", "i64"), Column("event_time", "timestamp_us"), Column("amount", "f32"),
        Column("seen", "bool"), Column("pair", "list<i64,2>"), Column("text", "string"), Column("tags", "list<string>"),
    ],
)  # fmt: skip
FEATURES: Final = (
    Feature("events", "i64", window("count", over="8us", hop="2us")),
    Feature("total", "f64", window("sum", "amount", over="8us", hop="2us"), default=0.5),
    Feature("doubled", "f64", window("max", "cast(amount as f64) * 2.0", over="20us", hop="1us")),
    Feature("newest", "list<string>", window("last_n", "text", over="20us", hop="4us", item_count=3)),
    Feature("often", "list<string>", window("top_k", "text", over="8us", hop="8us", item_count=2), default=["-"]),
    Feature("marked", "bool", window("last", "seen", over="3us", hop="1us")),
    Feature("burst", "i64", session("count", gap="3us", longest="20us")),
    Feature("peak", "f64", session("max", "cast(amount as f64) * 2.0", gap="2us", longest="20us", hop="1us")),
    Feature("amount", "f32", latest("amount"), default=-1.0),
    Feature("pair", "list<i64,2>", latest("pair"), default=[7, 8]),
    Feature("tags", "list<string>", latest("tags")),
    Feature("who", "string", latest("user")),
    Feature("sum_and_amount", "f64", derived("total + cast(amount as f64)"), default=2.5),
    Feature("known", "bool", derived("amount is not null")),
)  # fmt: skip
WINDOWS: Final = FEATURES[:8]


def computation(features: tuple[Feature, ...] = FEATURES, wanted: list[str] | None = None) -> Computation:
    made = FeatureView("t.users.view", owner="t", entity=ENTITY.name, source=SOURCE.name, features=features)
    plan = compile_plan(made, ENTITY, SOURCE)
    return computation_of(plan, SOURCE, wanted or [one.name for one in features], "t.users.view", "event")


def computed(rows: Any, features: tuple[Feature, ...] = FEATURES, **changes: Any) -> HistoryInput:  # of many types
    columns = tuple(FeatureColumn(one.name, one.type, one.default) for one in features)
    return view(rows, columns=columns, computation=computation(features), **changes)


def naive(one: Sample, wanted: HistoryInput, cutoff_us: int) -> list[dict[str, Any]]:
    """The result by looking at every event for every spine row."""
    history = one.history
    for name in ("event", "written", "available"):
        history = history.set_column(history.schema.get_field_index(name), name, history[name].cast(pa.int64()))
    rows = [(_order(row), -i, row) for i, row in enumerate(history.to_pylist())]
    times = one.spine["at"].cast(pa.int64()).to_pylist()
    return [
        spine | _features(rows, (spine["user_id"], spine["shop_id"]), at, wanted, cutoff_us)
        for spine, at in zip(one.spine.to_pylist(), times, strict=True)
    ]


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("event", "written", "source", "part", "position"))


def _features(
    rows: list[tuple[tuple[Any, ...], int, dict[str, Any]]],
    key: tuple[str, int],
    at: int,
    wanted: HistoryInput,
    cutoff_us: int,
) -> dict[str, Any]:
    seen = [
        one
        for one in rows
        if (one[2]["user"], one[2]["shop"]) == key and seen_from(one[2]) <= at and one[2]["written"] <= cutoff_us
    ]
    newest = max(seen)[2] if seen else None
    status = rules.MISSING
    if newest is not None:
        status = twin_rules.status_at(newest["event"], bool(newest["gone"]), at, wanted.ttl_us, wanted.stale_us)
    erased = max((order for order, _, row in seen if row["gone"]), default=None)
    live = [row for order, _, row in seen if not row["gone"] and (erased is None or order > erased)]
    values = _values(newest if newest is not None and not newest["gone"] else None, live, at)
    out: dict[str, Any] = {}
    for column in wanted.columns:
        own = column.name not in ("amount", "pair", "tags", "who")
        held = rules.PRESENT if own and status & rules.STATE_MASK == rules.MISSING else status
        value, default = values[column.name], column.default
        has_default = default is not None
        settled, slot = twin_rules.value_status(
            held, value is None, wanted.fallback, has_default, wanted.include_expired
        )
        if isinstance(default, tuple):
            default = list(default)
        found = {rules.SLOT_VALUE: value, rules.SLOT_DEFAULT: default, rules.SLOT_EMPTY: None}[slot]
        out |= {f"v__{column.name}": found, f"v__{column.name}__status": settled}
    return out


def _values(newest: dict[str, Any] | None, live: list[dict[str, Any]], at: int) -> dict[str, Any]:
    made = computation(WINDOWS)
    assert made.windows is not None
    inputs = ("amount", "doubled", "text", "seen")
    for row in live:
        row["doubled"] = None if row["amount"] is None else 2.0 * row["amount"]
    events = [twin.Row(tuple(row[name] for name in inputs), *_order(row)) for row in live]
    found = twin.evaluate(made.windows.plan, events, at)
    values = {feature.name: value for feature, (value, _) in zip(WINDOWS, found, strict=True)}
    values |= {name: None if newest is None else newest[name] for name in ("amount", "pair", "tags")}
    values["who"] = None if newest is None else newest["user"]
    both = values["total"], values["amount"]
    values["sum_and_amount"] = None if None in both else both[0] + both[1]
    values["known"] = values["amount"] is not None
    return values


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ROWS_MIN", 20)
    monkeypatch.setattr(memory, "FIXED_BYTES", 0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0, 1, 2, 60]),
    st.sampled_from([0, 1, 2, 200]),
    st.sampled_from([0, 15, 40]),
    st.sampled_from([rules.FALLBACK_NONE, rules.FALLBACK_DEFAULT, rules.FALLBACK_EXPIRED_VALUE]),
    st.booleans(),
)
def test_the_join_equals_a_naive_evaluator(
    tmp_path: Path, seed: int, spine_rows: int, history_rows: int, cutoff: int, fallback: int, include_expired: bool
) -> None:
    one = sample(seed, spine_rows, history_rows)
    file = written(one.history, tmp_path / "history.parquet", row_group_size=70)
    wanted = computed(file, fallback=fallback, include_expired=include_expired)
    join(one.spine, [wanted], tmp_path / "out.parquet", cutoff_us=START_US + cutoff)
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == naive(one, wanted, START_US + cutoff)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("limit", [450_000, 900_000])
def test_small_limits_change_no_bit(tmp_path: Path, seed: int, limit: int) -> None:
    one = sample(seed, 400, 4_000, entities=60)
    reports = [
        join(
            one.spine, [computed(rows), view(one.history, name="w")], tmp_path / "out.parquet", memory_limit_bytes=held
        )
        for rows in (one.history, written(one.history, tmp_path / "history.parquet", 333))
        for held in (limit, 1 << 30)
    ]
    assert [report.spilled_bytes > 0 for report in reports] == [True, False] * 2
    assert len({report.digest.sha256 for report in reports}) == 1
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 400


@pytest.mark.usefixtures("small_parts")
def test_one_entity_with_too_many_events_is_refused(tmp_path: Path, seed: int) -> None:
    one = sample(seed, 10, 9_000, entities=1)
    with pytest.raises(ResourceExhausted) as caught:
        join(one.spine, [computed(one.history)], tmp_path / "out.parquet", memory_limit_bytes=400_000)
    assert caught.value.reason == "MEMORY_LIMIT_TOO_SMALL"
    assert list(tmp_path.iterdir()) == []


def test_features_are_the_same_alone_and_together(tmp_path: Path, seed: int) -> None:
    one = sample(seed, 80, 900)
    whole = join(one.spine, [computed(one.history)], tmp_path / "out.parquet").digest.columns
    for name in ("doubled", "sum_and_amount", "known", "often", "tags"):
        columns = tuple(column for column in computed(one.history).columns if column.name == name)
        wanted = view(one.history, columns=columns, computation=computation(wanted=[name]))
        report = join(one.spine, [wanted], tmp_path / "out.parquet")
        assert report.digest.columns == {f"v__{name}": whole[f"v__{name}"]}


def test_a_view_of_latest_columns_and_expressions_has_nothing_without_rows(tmp_path: Path, seed: int) -> None:
    one = sample(seed, 20, 0)
    plain = tuple(feature for feature in FEATURES if feature.name in ("amount", "known"))
    join(one.spine, [computed(one.history, plain, fallback=rules.FALLBACK_NONE)], tmp_path / "out.parquet")
    out = pq.read_table(tmp_path / "out.parquet")
    assert set(out["v__known__status"].to_pylist()) == {rules.MISSING}
    assert set(out["v__amount__status"].to_pylist()) == {rules.MISSING}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.drop_columns(["text"]), "MISSING_COLUMN"),
        (lambda table: table.set_column(9, "amount", table["amount"].cast(pa.float64())), "WRONG_TYPE"),
        (lambda table: table.set_column(2, "event", table["event"].cast(pa.timestamp("us"))), "NAIVE_TIME"),
    ],
)
def test_histories_that_do_not_fit_are_refused(tmp_path: Path, seed: int, change: Any, reason: str) -> None:
    one = sample(seed, 5, 30)
    with pytest.raises(InvalidArgument) as caught:
        join(one.spine, [computed(change(one.history))], tmp_path / "out.parquet")
    assert caught.value.reason == reason
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_its_total(tmp_path: Path, seed: int) -> None:
    one, said = sample(seed, 50, 300), []
    join(one.spine, [computed(one.history)], tmp_path / "out.parquet", progress=lambda *words: said.append(words))
    assert ("v", 900, 900) in said
    assert all(done <= total for _, done, total in said)
