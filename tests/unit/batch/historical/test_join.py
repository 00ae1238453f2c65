"""The historical join against a naive evaluator and DuckDB, in memory and spilled, from files, tables and readers."""

import dataclasses
from pathlib import Path
from typing import Any

import duckdb
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from batch.historical import FeatureColumn, HistoryInput, KeyColumn, join, memory
from core_ext import rules
from headrace.types import Scalar, parse_type
from tests.unit.batch.historical.samples import FOREVER_US, START_US, UTC, naive, sample, view, written
from tests.unit.batch.historical.samples import join as join_sample
from tests.unit.core_ext.test_rules import FALLBACKS, SLOTS, TABLE, combinations


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """A memory limit under which some hundred rows are spilled and split."""
    monkeypatch.setattr(memory, "ROWS_MIN", 20)
    monkeypatch.setattr(memory, "FIXED_BYTES", 0)
    return 150_000


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 2**32),
    st.sampled_from([0, 1, 2, 60]),
    st.sampled_from([0, 1, 2, 200]),
    st.sampled_from([0, 15, 40]),
    st.sampled_from(list(FALLBACKS.values())),
    st.booleans(),
)
def test_the_join_equals_a_naive_evaluator(
    tmp_path: Path, seed: int, spine_rows: int, history_rows: int, cutoff: int, fallback: int, include_expired: bool
) -> None:
    one = sample(seed, spine_rows, history_rows)
    wanted = view(
        written(one.history, tmp_path / "history.parquet", row_group_size=70),
        fallback=fallback,
        include_expired=include_expired,
    )
    report = join_sample(one.spine, [wanted], tmp_path / "out.parquet", cutoff_us=START_US + cutoff)
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == naive(one, wanted, START_US + cutoff)
    assert (report.rows, report.spilled_bytes) == (spine_rows, 0)


@pytest.mark.parametrize("times", [30, 3_000])
def test_rows_without_ties_equal_duckdb(tmp_path: Path, seed: int, times: int) -> None:
    one = sample(seed, 500, 3_000, times=times)
    order = np.random.default_rng(seed).permutation(3_000)
    history = one.history.select(["user", "shop", "event"]).append_column("n", pa.array(order, pa.int64()))
    firsts = (
        history.group_by(["user", "shop", "event"]).aggregate([("n", "min")]).rename_columns([*history.column_names])
    )
    spine_file = written(one.spine, tmp_path / "spine.parquet")
    history_file = written(firsts, tmp_path / "history.parquet", row_group_size=400)
    wanted = HistoryInput("v", (FeatureColumn("n", parse_type("i64")),), view([]).keys, "event", history_file)
    join_sample(spine_file, [wanted], tmp_path / "out.parquet")
    expected = (
        duckdb.connect()
        .execute(
            f"SELECT h.n FROM '{spine_file}' s ASOF LEFT JOIN '{history_file}' h "
            "ON s.user_id = h.user AND s.shop_id = h.shop AND s.at >= h.event ORDER BY s.label"
        )
        .fetchall()
    )
    assert [(n,) for n in pq.read_table(tmp_path / "out.parquet")["v__n"].to_pylist()] == expected


def test_spilled_results_equal_those_in_memory_bit_for_bit(tmp_path: Path, seed: int, small_parts: int) -> None:
    one = sample(seed, 700, 4_000, entities=40)
    tables = {}
    reports = {}
    for group in (97, 4_000):
        spine_file = written(one.spine, tmp_path / "spine.parquet", row_group_size=group)
        history_file = written(one.history, tmp_path / f"history{group}.parquet", row_group_size=group)
        other = [dataclasses.replace(column, output=f"w_{column.name}") for column in view([]).columns]
        for limit in (small_parts, small_parts * 2, 1 << 30):
            sides = [view(history_file), view(history_file, name="w", columns=tuple(other), ttl_us=0)]
            path = tmp_path / f"{group}-{limit}.parquet"
            reports[group, limit] = join_sample(spine_file, sides, path, memory_limit_bytes=limit)
            tables[group, limit] = pq.read_table(path)
    assert reports[97, 1 << 30].spilled_bytes == 0
    assert min(reports[97, small_parts].spilled_bytes, reports[4_000, 2 * small_parts].spilled_bytes) > 0
    first = tables[97, 1 << 30]
    assert all(table.equals(first) for table in tables.values())
    assert len({report.digest.sha256 for report in reports.values()}) == 1
    assert len({str(report.digest.columns) for report in reports.values()}) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if "parquet" not in path.name) == []


def test_one_entity_with_more_rows_than_the_limit_is_split_by_rows(tmp_path: Path, seed: int, small_parts: int) -> None:
    one = sample(seed, 600, 500, entities=1)
    wanted = view(one.history)
    spilled = join_sample(one.spine, [wanted], tmp_path / "a.parquet", memory_limit_bytes=small_parts)
    assert spilled.spilled_bytes > 0
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == naive(one, wanted, FOREVER_US)


def test_a_reader_and_several_files_equal_a_table(tmp_path: Path, seed: int) -> None:
    one = sample(seed, 100, 900)
    files = [written(one.history.slice(at, 300), tmp_path / f"{at}.parquet", 77) for at in (0, 300, 600)]
    reader = pa.RecordBatchReader.from_batches(one.history.schema, one.history.to_batches(max_chunksize=41))
    digests = {
        join_sample(one.spine, [view(rows)], tmp_path / "out.parquet").digest.sha256
        for rows in (files, reader, one.history)
    }
    assert len(digests) == 1


def test_other_units_and_wide_types_are_taken(tmp_path: Path, seed: int) -> None:
    one = sample(seed, 50, 300)
    wanted = view(one.history)
    expected = join_sample(one.spine, [wanted], tmp_path / "out.parquet").digest
    at = one.history.schema.get_field_index
    wide = one.history.set_column(at("event"), "event", one.history["event"].cast(pa.timestamp("ns", "UTC")))
    wide = wide.set_column(at("text"), "text", wide["text"].dictionary_encode())
    wide = wide.set_column(at("user"), "user", wide["user"].cast(pa.large_string()))
    assert join_sample(one.spine, [view(wide)], tmp_path / "out.parquet").digest == expected


def test_progress_ends_at_every_total(tmp_path: Path, seed: int) -> None:
    one, said = sample(seed, 50, 300), []
    join_sample(one.spine, [view(one.history)], tmp_path / "out.parquet", progress=lambda *words: said.append(words))
    assert said[-1] == ("write", 50, 50)
    assert ("v", 600, 600) in said


def test_the_result_replaces_an_older_one(tmp_path: Path, seed: int) -> None:
    one, output = sample(seed, 5, 30), tmp_path / "out.parquet"
    output.write_bytes(b"older")
    join_sample(one.spine, [view(one.history)], output)
    assert pq.read_table(output).num_rows == 5
    assert list(tmp_path.iterdir()) == [output]


STORED = [case for case in TABLE["value_cases"] if case["row"] in {"value", "null", "tombstone", "none"}]


@pytest.mark.parametrize("case", STORED, ids=lambda case: case["name"])
def test_values_follow_the_table_of_the_rules(tmp_path: Path, case: dict[str, Any]) -> None:
    event = START_US - case.get("age_us", 0)
    history = pa.table(
        {
            "k": pa.array([1], pa.int64()),
            "event": pa.array([event], UTC),
            "gone": pa.array([case["row"] == "tombstone"]),
            "value": pa.array([42 if case["row"] == "value" else None], pa.int64()),
        }
    ).slice(0, 0 if case["row"] == "none" else 1)
    spine = pa.table({"k": pa.array([1], pa.int64()), "at": pa.array([START_US], UTC)})
    if case.get("age_us", 0) < 0:
        return  # in history a row of the future is never seen
    views = [
        HistoryInput(
            f"v{i}",
            (FeatureColumn("value", parse_type("i64"), default=-7 if default else None),),
            (KeyColumn("k", "k", Scalar.I64),),
            "event",
            history,
            tombstone="gone",
            ttl_us=case["ttl_us"],
            stale_us=case["stale_us"],
            fallback=FALLBACKS[fallback],
            include_expired=include_expired,
        )
        for i, (fallback, default, include_expired) in enumerate(combinations(case))
    ]
    join_sample(spine, views, tmp_path / "out.parquet")
    status = 0
    for name in case["status"]:
        status |= getattr(rules, name)
    held = {rules.SLOT_VALUE: 42, rules.SLOT_DEFAULT: -7, rules.SLOT_EMPTY: None}[SLOTS[case["slot"]]]
    (found,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    for i in range(len(views)):
        assert (found[f"v{i}__value"], found[f"v{i}__value__status"]) == (held, status)


def test_the_default_limit_is_stated() -> None:
    assert join.MEMORY_LIMIT_BYTES == 2 << 30
