"""Damaged JSON events: the same rows and refusals as the twin's, whatever the bytes."""

import json

import pytest

from core_ext.events import REASONS, JsonDecoder
from core_ext.twin.events import decode_event
from headrace.types import parse_type
from tests.fuzz.mutations import mutations

TYPES = ["bool", "i32", "i64", "f32", "f64", "string", "bytes", "timestamp_us", "date", "list<i64>", "list<string>"]
COLUMNS = [
    (f"c{at}", (int(kind.scalar), int(kind.shape), kind.list_size, kind.element_bytes))
    for at, kind in enumerate(map(parse_type, [*TYPES, "list<bool,2>"]))
]
CORPUS = [
    json.dumps(one).encode()
    for one in (
        {"c0": True, "c1": -7, "c2": 2**62, "c3": 0.5, "c4": -1.5e-7},
        {"c5": "ä\n\U0001f600", "c6": "aGk=", "c7": "2026-11-27T23:59:59.5+01:00", "c8": "2024-02-29"},
        {"c9": [1, 2, 3], "c10": ["a", "\\", ""], "c11": [True, False], "other": {"a": [None, {"b": 1e5}]}},
        {"c7": 1_760_000_000_000_000, "c8": 20_000, "c4": 123456789.123456789, "c2": -1, "c5": None},
    )
]
BYTES_MAX = 2_000
BATCH = 50
PASSED_MIN = 0.02  # share of inputs that must be events, else the fuzz stops at the door


@pytest.mark.parametrize("count", [15_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_core_and_twin_agree_on_damaged_events(seed: int, count: int) -> None:
    decoder = JsonDecoder(COLUMNS, BYTES_MAX)
    payloads = [data for _, data in mutations(CORPUS, seed, count)]
    passed = 0
    for start in range(0, count, BATCH):
        batch = payloads[start : start + BATCH]
        expected = [decode_event(one, COLUMNS, BYTES_MAX) for one in batch]
        found = decoder.decode(batch)
        assert found.messages.tolist() == [at for at, one in enumerate(expected) if one.values is not None]
        for at, status, _ in found.faults:
            assert not expected[at].reasons or REASONS[status] in expected[at].reasons, batch[at]
        passed += len(found.messages)
        whole = [one.values[2] or 0 for one in expected if one.values is not None]
        assert memoryview(found.columns[2].values).cast("q")[: len(whole)].tolist() == whole  # type: ignore[arg-type]
    assert passed > PASSED_MIN * count
