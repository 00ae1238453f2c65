"""The value rules as the table of tests/data/rules.json, on the core and on its twin."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from core_ext import row_codec, rules
from core_ext.twin import row_codec as twin_rows
from core_ext.twin import rules as twin
from tests.unit.core_ext.rows import I64_VALUES

TABLE = json.loads((Path(__file__).parents[2] / "data" / "rules.json").read_text())
FALLBACKS = {
    "none": rules.FALLBACK_NONE,
    "default": rules.FALLBACK_DEFAULT,
    "expired_value": rules.FALLBACK_EXPIRED_VALUE,
}
SLOTS = {"empty": rules.SLOT_EMPTY, "value": rules.SLOT_VALUE, "default": rules.SLOT_DEFAULT}
CAUSES = {"deadline": rules.CAUSE_DEADLINE, "quarantined": rules.CAUSE_QUARANTINED}
READ_TIME_US = 1_700_000_000_000_000
IMPLEMENTATIONS = pytest.mark.parametrize("implementation", [rules, twin], ids=["core", "twin"])


def row_of(tombstone: bool = False, **header: int) -> bytes:
    """Row of schema 7 without columns, or its tombstone."""
    fields = {"source_id": 0, "event_time_us": 0, "write_time_us": 0, "partition": 0, "offset": 0} | header
    if tombstone:
        return row_codec.encode_tombstone(schema_id=7, **fields)
    available = fields["write_time_us"]
    return twin_rows.encode_row(
        twin_rows.schema_of(7, []), [], twin_rows.RowHeader(0, 7, available_time_us=available, **fields)
    )


def combinations(case: dict[str, Any]) -> list[tuple[str, bool, bool]]:
    return list(itertools.product(case["fallback"], case["default"], case["include_expired"]))


@IMPLEMENTATIONS
@pytest.mark.parametrize("case", TABLE["value_cases"], ids=lambda case: case["name"])
def test_values_follow_the_table(implementation: ModuleType, case: dict[str, Any]) -> None:
    status = 0
    for name in case["status"]:
        status |= getattr(implementation, name)
    if case["row"] in CAUSES:
        of_row = implementation.UNAVAILABLE | CAUSES[case["row"]]
    else:
        event_time = READ_TIME_US - case.get("age_us", 0)
        row = None if case["row"] == "none" else row_of(case["row"] == "tombstone", event_time_us=event_time)
        of_row = implementation.row_status(row, READ_TIME_US, case["ttl_us"], case["stale_us"])
    for fallback, default, include_expired in combinations(case):
        found = implementation.value_status(
            of_row, case["row"] == "null", FALLBACKS[fallback], default, include_expired
        )
        assert found == (status, SLOTS[case["slot"]])


def test_the_table_decides_every_combination_once() -> None:
    decided: dict[tuple[Any, ...], list[Any]] = {}
    for case in TABLE["value_cases"]:
        situation = (case["row"], case.get("age_us"), case["ttl_us"], case["stale_us"])
        decided.setdefault(situation, []).extend(combinations(case))
    everything = sorted(itertools.product(FALLBACKS, [False, True], [False, True]))
    assert {situation: sorted(found) for situation, found in decided.items()} == dict.fromkeys(decided, everything)
    assert {situation[0] for situation in decided} == {"value", "null", "tombstone", "none", *CAUSES}


@IMPLEMENTATIONS
@pytest.mark.parametrize("case", TABLE["order_cases"], ids=lambda case: case["name"])
def test_rows_are_ordered_by_the_table(implementation: ModuleType, case: dict[str, Any]) -> None:
    stored, arriving = row_of(**case["stored"]), row_of(**case["arriving"])
    expected = {"arriving": 1, "stored": -1, "neither": 0}[case["winner"]]
    assert implementation.order_compare(arriving, stored) == expected
    assert implementation.order_compare(stored, arriving) == -expected


def headers() -> st.SearchStrategy[dict[str, int]]:
    """Order fields that are often equal, so that every later field decides somewhere."""
    i64 = st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1])
    return st.fixed_dictionaries(
        {
            "event_time_us": i64,
            "write_time_us": i64,
            "source_id": st.sampled_from([0, 1, 2**31, 2**32 - 1]),
            "partition": st.sampled_from([-(2**31), -1, 0, 2**31 - 1]),
            "offset": i64,
        }
    )


@given(st.lists(headers().map(lambda header: row_of(False, **header)), min_size=2, max_size=6))
def test_the_order_equals_its_twin_and_is_total(rows: list[bytes]) -> None:
    for a, b in itertools.product(rows, rows):
        assert rules.order_compare(a, b) == twin.order_compare(a, b) == -rules.order_compare(b, a)
    assert sorted(rows, key=twin.order_of)[-1] in [a for a in rows if all(rules.order_compare(a, b) >= 0 for b in rows)]


@given(I64_VALUES, I64_VALUES, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.booleans())
def test_the_row_status_equals_its_twin(event_time: int, read_time: int, ttl: int, stale: int, tombstone: bool) -> None:
    row = row_of(tombstone, event_time_us=event_time)
    assert rules.row_status(row, read_time, ttl, stale) == twin.row_status(row, read_time, ttl, stale)


@given(I64_VALUES, st.integers(-3, 3), st.integers(1, 3), st.integers(1, 3))
def test_the_row_status_equals_its_twin_near_the_limits(read_time: int, difference: int, ttl: int, stale: int) -> None:
    event_time = min(max(read_time - difference, -(2**63)), 2**63 - 1)
    row = row_of(event_time_us=event_time)
    assert rules.row_status(row, read_time, ttl, stale) == twin.row_status(row, read_time, ttl, stale)


def test_the_greatest_age_does_not_overflow() -> None:
    row = row_of(event_time_us=-(2**63))
    assert rules.row_status(row, 2**63 - 1, 2**63 - 1, 0) == rules.EXPIRED
    assert rules.row_status(row, 2**63 - 1, 0, 2**63 - 1) == rules.PRESENT


def test_every_status_byte_goes_the_way_of_the_twin() -> None:
    states = [rules.PRESENT, rules.NULL, rules.MISSING, rules.EXPIRED, rules.UNAVAILABLE]
    flags = [bits << 4 for bits in range(16)]
    for status in (state | flag for state in states for flag in flags):
        for choice in itertools.product([False, True], [1, 2, 3], [False, True], [False, True]):
            assert rules.value_status(status, *choice) == twin.value_status(status, *choice)


def test_the_constants_equal_those_of_the_twin() -> None:
    names = {name for name in vars(twin) if name.isupper() and not name.startswith("_")}
    assert {name: getattr(rules, name) for name in names} == {name: getattr(twin, name) for name in names}


@IMPLEMENTATIONS
@pytest.mark.parametrize("row", [b"", bytes(67)])
def test_a_short_row_is_refused(implementation: ModuleType, row: bytes) -> None:
    calls: list[Callable[[], object]] = [
        lambda: implementation.order_compare(row, row_of()),
        lambda: implementation.order_compare(row_of(), row),
        lambda: implementation.row_status(row, 0, 0, 0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"bytes|too short"):
            call()
