"""JSON events in C against the twin over the json module: the same rows, the same refusals."""

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_ext.events import REASONS, JsonDecoder
from core_ext.twin.events import decode_event
from feature_server.pipeline.json_events import JsonEvents
from headrace.types import ValueType, parse_type

TYPES = {
    "flag": "bool",
    "small": "i32",
    "whole": "i64",
    "half": "f32",
    "real": "f64",
    "text": "string",
    "raw": "bytes",
    "at": "timestamp_us",
    "day": "date",
    "codes": "list<i64>",
    "words": "list<string>",
    "pair": "list<f64,2>",
    "flags": "list<bool,3>",
}
COLUMNS = {name: parse_type(text) for name, text in TYPES.items()}
BYTES_MAX = 10_000


def described(columns: dict[str, ValueType]) -> list[tuple[str, tuple[int, int, int, int]]]:
    return [
        (name, (int(kind.scalar), int(kind.shape), kind.list_size, kind.element_bytes))
        for name, kind in columns.items()
    ]


def decoded(*messages: str | bytes, **columns: str) -> tuple[list[dict[str, Any]], list[tuple[int, str, str]]]:
    """Rows and faults (message, reason, column) of messages."""
    kinds = {name: parse_type(text) for name, text in columns.items()} or COLUMNS
    events = JsonEvents(kinds)
    events._decoder = JsonDecoder(described(kinds), BYTES_MAX)
    payloads = [one.encode() if isinstance(one, str) else one for one in messages]
    found = events._decoder.decode(payloads)
    names = list(kinds)
    faults = [(place, REASONS[status], names[at] if at >= 0 else "") for place, status, at in found.faults]
    result = events.decode(payloads)
    assert result.messages.tolist() == found.messages.tolist()
    for column in result.columns.values():
        column.validate(full=True)
    rows = pa.RecordBatch.from_pydict(result.columns).to_pylist() if result.columns else []
    return rows, faults


def one(message: str, kind: str) -> Any:
    """The value of a message of one field, or the reason why it is refused."""
    rows, faults = decoded(message, value=kind)
    return faults[0][1] if faults else rows[0]["value"]


@pytest.mark.parametrize(
    ("literal", "kind", "expected"),
    [
        ("9223372036854775807", "i64", 2**63 - 1),
        ("-9223372036854775808", "i64", -(2**63)),
        ("9223372036854775808", "i64", "OUT_OF_RANGE"),
        ("-9223372036854775809", "i64", "OUT_OF_RANGE"),
        ("9007199254740993", "i64", 2**53 + 1),
        ("1.0", "i64", "WRONG_TYPE"),
        ("1e3", "i64", "WRONG_TYPE"),
        ("-0", "i64", 0),
        ("2147483648", "i32", "OUT_OF_RANGE"),
        ("9007199254740993", "f64", 9007199254740992.0),
        ("0.1", "f64", 0.1),
        ("1e400", "f64", "OUT_OF_RANGE"),
        ("1e-400", "f64", 0.0),
        ("3.5e38", "f32", "OUT_OF_RANGE"),
        ("16777217", "f32", 16777216.0),
        ("NaN", "f64", "MALFORMED_JSON"),
        ("01", "i64", "MALFORMED_JSON"),
        ("+1", "i64", "MALFORMED_JSON"),
        (".5", "f64", "MALFORMED_JSON"),
        ("1.", "f64", "MALFORMED_JSON"),
        ('"1"', "i64", "WRONG_TYPE"),
        ("true", "i64", "WRONG_TYPE"),
        ("1", "bool", "WRONG_TYPE"),
        ("tru", "bool", "MALFORMED_JSON"),
        (r'"\u00e9\ud83d\ude00\/"', "string", "é😀/"),
        (r'"\ud83d"', "string", "BAD_TEXT"),
        (r'"\ude00\ud83d"', "string", "BAD_TEXT"),
        ('"a\nb"', "string", "MALFORMED_JSON"),
        (r'"\x"', "string", "MALFORMED_JSON"),
        (r'"aGk\u003d"', "bytes", b"hi"),
        ('"aGk"', "bytes", "BAD_BASE64"),
        ('"a=Gk"', "bytes", "BAD_BASE64"),
        ('"1969-12-31"', "date", -1),
        ('"2023-02-29"', "date", "BAD_TIME"),
        ('"2024-02-29T12:00:00"', "timestamp_us", "NAIVE_TIME"),
        ('"2024-02-29T12:00:00.1234567Z"', "timestamp_us", "BAD_TIME"),
        ('"2024-02-29T12:00:60Z"', "timestamp_us", "BAD_TIME"),
        ("[1, null]", "list<i64>", "NULL_ELEMENT"),
        ("[1]", "list<f64,2>", "LIST_SIZE"),
        ("{}", "list<i64>", "WRONG_TYPE"),
        ("[[1]]", "list<i64>", "WRONG_TYPE"),
        ("[]", "list<string>", []),
        ("null", "i64", None),
    ],
)
def test_a_literal_is_this_value_or_refused_for_this_reason(literal: str, kind: str, expected: object) -> None:
    found = one(f'{{"value": {literal}}}', kind)
    if kind == "date" and not isinstance(found, str):
        found = found.toordinal() - 719_163
    assert found == expected


@pytest.mark.parametrize(
    ("text", "expected_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01 01:00:00.5+01:00", 500_000),
        ("1969-12-31t23:59:59.999999z", -1),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
        ("9999-12-31T23:59:59.999999-23:59", 253_402_387_139_999_999),
    ],
)
def test_times_are_whole_microseconds_of_utc(text: str, expected_us: int) -> None:
    found = JsonDecoder([("value", (8, 0, 0, 8))], BYTES_MAX).decode([f'{{"value": "{text}"}}'.encode()])
    assert np.frombuffer(found.columns[0].values, np.int64)[0] == expected_us  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "MALFORMED_JSON"),
        (b"[]", "NOT_AN_OBJECT"),
        (b"\xff{}", "NOT_UTF8"),
        (b'{"whole": 1} x', "MALFORMED_JSON"),
        (b'{"whole": 1,}', "MALFORMED_JSON"),
        (b'{"whole": 1, "whole": 2}', "DUPLICATE_FIELD"),
        (b'{"whole": 1, "wh\\u006fle": 2}', "DUPLICATE_FIELD"),
        (b'{"other": ' + b"[" * 31 + b"]" * 31 + b"}", ""),
        (b'{"other": ' + b"[" * 32 + b"]" * 32 + b"}", "TOO_DEEP"),
        (b'{"other": ' + b"[" * 5_000, "TOO_DEEP"),
        (b'{"text": "' + b"x" * BYTES_MAX + b'"}', "EVENT_TOO_LARGE"),
        (b'{"whole": 1\x00}', "MALFORMED_JSON"),
    ],
)
def test_a_message_that_is_no_event_is_refused_alone(message: bytes, reason: str) -> None:
    rows, faults = decoded(b'{"whole": 1}', message, b'{"whole": 3}')
    assert [fault[:2] for fault in faults] == ([(1, reason)] if reason else [])
    assert [row["whole"] for row in rows] == ([1, 3] if reason else [1, None, 3])


def test_a_refused_message_leaves_nothing_behind() -> None:
    good = '{"text": "a", "words": ["x", "y"], "pair": [1, 2], "codes": [1]}'
    bad = '{"text": "bbbb", "words": ["long", "words"], "pair": [3, 4], "codes": [5, 6, 7], "whole": "no"}'
    rows, faults = decoded(good, bad, good)
    assert faults == [(1, "WRONG_TYPE", "whole")]
    assert rows[0] == rows[1]
    assert rows[0]["words"] == ["x", "y"] and rows[0]["codes"] == [1]


def test_names_that_are_written_with_escapes_are_the_same_names() -> None:
    rows, faults = decoded(r'{"wh\u006fle": 7, "unknown\n": {"whole": [1, {"a": "\ud800"}]}}')
    assert faults == [] and rows[0]["whole"] == 7


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["aGk=", "2024-01-31", "2024-01-31T10:00:00Z", "2024-13-01", "1999-12-31T23:59:59.123456+05:30"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from([*TYPES, "other", "whole "]), VALUES, max_size=8)


@given(st.lists(st.tuples(OBJECTS, st.booleans(), st.integers(0, 2**32)), min_size=1, max_size=12))
def test_rows_and_refusals_are_those_of_the_twin(given_messages: list[tuple[dict[str, Any], bool, int]]) -> None:
    payloads = []
    for members, is_escaped, seed in given_messages:
        text = json.dumps(members, ensure_ascii=is_escaped, separators=(" ,", ": ") if is_escaped else None)
        payloads.append(mutated(text.encode("utf-8", "surrogatepass"), random.Random(seed)))
    compare(payloads)


@pytest.mark.parametrize(
    "text", ["1970-01-01T00:00:00Z", "2026-01-02T03:04:05.123456000+01:00", "2026-01-02T03:04:05.1234560000+01:00"]
)
def test_a_time_may_be_written_in_escapes_alone(text: str) -> None:
    escaped = "".join(f"\\u{ord(character):04x}" for character in text)
    for member in (text, escaped):
        compare([f'{{"at": "{member}"}}'.encode()])
    assert one(f'{{"value": "{escaped}"}}', "timestamp_us") == one(f'{{"value": "{text}"}}', "timestamp_us")


NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@given(st.lists(NUMBERS, min_size=1))
def test_numbers_are_rounded_once_as_the_twin_does(numbers: list[str]) -> None:
    compare([f'{{"real": {number}, "half": null}}'.encode() for number in numbers])
    compare([f'{{"half": {number}}}'.encode() for number in numbers])
    compare([f'{{"whole": {number}, "small": {number}}}'.encode() for number in numbers])


def mutated(payload: bytes, source: random.Random) -> bytes:
    """Half of the messages as they are, the others with a byte changed, taken away or doubled."""
    if source.random() < 0.5 or not payload:
        return payload
    at = source.randrange(len(payload))
    changes = [b"", bytes([source.randrange(256)]), payload[at : at + 1] * 2, source.choice([b"\\", b'"', b"[", b"e1"])]
    return payload[:at] + source.choice(changes) + payload[at + 1 :]


def compare(payloads: Sequence[bytes]) -> None:
    columns = described(COLUMNS)
    expected = [decode_event(payload, columns, BYTES_MAX) for payload in payloads]
    found = JsonDecoder(columns, BYTES_MAX).decode(payloads)
    kept = [place for place, event in enumerate(expected) if event.values is not None]
    assert found.messages.tolist() == kept
    for place, status, _ in found.faults:
        reasons = expected[place].reasons
        assert not reasons or REASONS[status] in reasons, payloads[place]
    events = JsonEvents(COLUMNS)
    events._decoder = JsonDecoder(columns, BYTES_MAX)
    result = events.decode(payloads)
    for at, (name, kind) in enumerate(COLUMNS.items()):
        column = result.columns[name]
        column.validate(full=True)
        values = [event.values[at] for event in expected if event.values is not None]
        assert column.equals(pa.array(values, kind.arrow)), name
