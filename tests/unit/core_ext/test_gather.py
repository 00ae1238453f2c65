"""Rows into columns, in tiles of vector instructions and without them: both answer what the twin answers."""

import random
import struct
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from core_ext.request_core import Overlay, Plan, RequestCore
from core_ext.row_codec import Schema
from core_ext.row_table import RowTable
from core_ext.twin import request_core as twin
from tests.unit.core_ext.request_plans import HANDLE, READ_TIME_US, SHARD_COUNT, Case, options, slot_value, stored_row
from tests.unit.core_ext.request_samples import (
    BOOL,
    DATE,
    F32,
    F64,
    FIXED,
    I64,
    SINGLE,
    STRING,
    ColumnType,
    KeyColumn,
    Sample,
    pack_row,
    request_bytes,
    storage_key,
)

RELAXED = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
ROW_COUNTS = st.sampled_from([1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 72, 130])
ALONE: list[ColumnType] = [(BOOL, SINGLE, 0), (STRING, SINGLE, 0), (F32, FIXED, 3)]


@st.composite
def schemas(draw: st.DrawFn) -> list[ColumnType]:
    """Columns of one width side by side, as tiles want them, with others between."""
    columns: list[ColumnType] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from([F32, DATE, F64, I64]))
        columns += [(kind, SINGLE, 0)] * draw(st.sampled_from([1, 3, 4, 5, 7, 8, 9, 16, 21]))
        columns += draw(st.lists(st.sampled_from(ALONE), max_size=2))
    return columns


@st.composite
def wide_cases(draw: st.DrawFn) -> Case:
    """One entity column; of each row some are not plain."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    row_count, odd_share = draw(ROW_COUNTS), draw(st.sampled_from([0.0, 0.03, 0.3]))
    groups = [
        twin.Group(
            0,
            view_id=number + 1,
            schema_id=10 + number,
            schema=draw(schemas()),
            ttl_us=draw(st.sampled_from([0, 1_000_000])),
            stale_us=0,
            fallback=draw(st.integers(1, 3)),
        )
        for number in range(draw(st.integers(1, 2)))
    ]
    outputs = [
        twin.Output(f"c{number}_{index}", number, index, slot_value(rng, column) if rng.random() < 0.3 else None)
        for number, group in enumerate(groups)
        for index, column in enumerate(group.schema)
        if draw(st.integers(0, 19)) > 0  # a column that is not asked for breaks a run
    ] or [twin.Output("first", 0, 0, None)]
    keys = [rng.randrange(2 * row_count) for _ in range(row_count)]
    plan = twin.Plan(HANDLE, 1, [("key", I64)], [(1, [0])], groups, outputs)
    rows: dict[bytes, twin.Row] = {}
    for group in groups:
        for key in keys:
            values = [slot_value(rng, column) for column in group.schema]
            plain = pack_row(group.schema_id, group.schema, values, READ_TIME_US)
            odd = rng.random() < odd_share
            rows[storage_key(1, [(I64, key)], group.view_id)] = stored_row(rng, group) if odd else plain
    return Case(plan, Sample([KeyColumn("key", I64, keys)], handle=HANDLE, options=draw(options())), rows, rng)


@pytest.mark.parametrize("tiles", [True, False])
def test_answers_equal_the_twins(tiles: bool) -> None:
    @RELAXED
    @given(wide_cases())
    def holds(case: Case) -> None:
        request = request_bytes(case.sample)
        table, overlay = case.loaded(0.7)
        answer = RequestCore(table, SHARD_COUNT).serve(request, READ_TIME_US, case.core_plan(tiles=tiles), overlay)
        assert answer == twin.serve(request, case.plan, case.rows, READ_TIME_US)

    holds()


def test_tiles_are_taken_where_the_machine_has_them() -> None:
    def plan(*, tiles: bool) -> Plan:
        schema = Schema(9, [(F32, SINGLE, 0)])
        groups = [(0, 1, schema, 0, 0, 1, None)]
        return Plan(HANDLE, 1, [("key", I64)], [(1, [0])], groups, [("", 0, 0, None)], tiles=tiles)

    assert plan(tiles=True).has_tiles == ("avx2" in Path("/proc/cpuinfo").read_text(encoding="ascii").split())
    assert not plan(tiles=False).has_tiles


def test_columns_asked_for_twice_and_backwards_are_each_filled() -> None:
    columns: list[ColumnType] = [(F32, SINGLE, 0)] * 12
    schema = Schema(9, columns)
    order = [*reversed(range(12)), *range(12), *range(4, 12)]
    plan = Plan(
        HANDLE, 1, [("key", I64)], [(1, [0])], [(0, 1, schema, 0, 0, 1, None)], [("", 0, at, None) for at in order]
    )
    overlay = Overlay()
    rows = {
        storage_key(1, [(I64, key)], 1): pack_row(
            9, columns, [struct.pack("<f", 100 * key + at) for at in range(12)], READ_TIME_US
        )
        for key in range(20)
    }
    overlay.add(list(rows), list(rows.values()))
    request = request_bytes(Sample([KeyColumn("key", I64, list(range(20)))], handle=HANDLE))
    answer = RequestCore(RowTable(1 << 20), SHARD_COUNT).serve(request, READ_TIME_US, plan, overlay)
    assert isinstance(answer, bytes)
    found = twin.serve(
        request,
        twin.Plan(
            HANDLE, 1, [("key", I64)], [(1, [0])], [twin.Group(0, 1, 9, columns, 0, 0, 1)],
            [twin.Output("", 0, at, None) for at in order],
        ),
        dict(rows),
        READ_TIME_US,
    )  # fmt: skip
    assert answer == found
