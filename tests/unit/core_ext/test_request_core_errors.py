"""Every refusal of the request core: its reason, field path, sentence and quoted values."""

import dataclasses
import re
import struct

import pytest

from core_ext.request_core import Overlay, Plan, Refused, RequestCore
from core_ext.request_messages import _REFUSALS, refusal
from core_ext.row_codec import Schema
from core_ext.row_table import RowTable
from core_ext.twin import request_core as twin
from core_ext.twin.requests import Refusal
from tests.unit.core_ext.request_samples import (
    BYTES,
    F32,
    FIXED,
    I64,
    SINGLE,
    STRING,
    Key,
    KeyColumn,
    Sample,
    bytes_field,
    column_bytes,
    number_field,
    pack_row,
    request_bytes,
    sealed,
    storage_key,
)
from tests.unit.core_ext.test_request_core_on_demand import REFUSALS

READ_TIME_US = 1_700_000_000_000_000
JOIN_KEYS = [("user", I64), ("city", STRING), ("blob", BYTES)]
LOOKUPS = [(1, [0]), (2, [0, 1, 2])]
SCHEMA = [(F32, FIXED, 60_000), (STRING, SINGLE, 0)]
PLAN = Plan(
    bytes(32),
    1,
    JOIN_KEYS,
    LOOKUPS,
    [(0, 5, Schema(9, SCHEMA), 0, 0, 1, None), (1, 6, Schema(9, SCHEMA), 0, 0, 1, None)],
    [("vector", 0, 0, None), ("vector2", 1, 0, None), ("text", 0, 1, None)],
)
TWIN_PLAN = twin.Plan(
    bytes(32),
    1,
    JOIN_KEYS,
    LOOKUPS,
    [twin.Group(0, 5, 9, SCHEMA, 0, 0, 1), twin.Group(1, 6, 9, SCHEMA, 0, 0, 1)],
    [twin.Output("vector", 0, 0, None), twin.Output("vector2", 1, 0, None), twin.Output("text", 0, 1, None)],
)
USER = KeyColumn("user", I64, [1, 2])
CITY = KeyColumn("city", STRING, [b"a", b"b"])
BLOB = KeyColumn("blob", BYTES, [b"c", b"d"])
SERVICE = bytes_field(1, b"s")
KEYS = b"".join(bytes_field(4, column_bytes(column)) for column in (USER, CITY, BLOB))


def keyed(*columns: KeyColumn) -> bytes:
    return request_bytes(Sample(columns, service="s"))


def many_rows(row_count: int, nulls: bool = False) -> bytes:
    null_rows = range(row_count) if nulls else ()
    values: dict[str, Key] = {"user": 1, "city": b"a", "blob": b"b"}
    return keyed(*(KeyColumn(name, kind, [values[name]] * row_count, null_rows) for name, kind in JOIN_KEYS))


def options(*parts: bytes) -> bytes:
    return SERVICE + KEYS + bytes_field(6, b"".join(parts))


def staleness(seconds: int, nanos: int) -> bytes:
    return options(bytes_field(5, number_field(1, seconds) + number_field(2, nanos)))


@dataclasses.dataclass(frozen=True)
class Wrong:
    """A wrong request and what the core must say about it."""

    request: bytes
    reason: str
    field: str
    message: str
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)


LIMIT_KEY = "makes an entity key of over 1024 bytes: send a hash of it"
STALENESS = "the duration must not be negative, nor over 315576000000 s"
STALENESS_FIELD = "options.max_staleness_duration"
POLICY = "unknown partial policy: use PARTIAL or FAIL"
NULLS = "must ascend and name rows of the batch;"
SELECTIONS = "set only one of feature_service, handle and features"

WRONG = {
    "malformed": Wrong(
        SERVICE + b"\xff",
        "MALFORMED_REQUEST",
        "",
        "the bytes are no GetOnlineFeaturesRequest: encode them with the published contract",
    ),
    "no selection": Wrong(
        KEYS, "NO_SELECTION", "feature_service", "name a feature service, a handle or features to read"
    ),
    "service and handle": Wrong(SERVICE + bytes_field(2, bytes(32)), "TWO_SELECTIONS", "feature_service", SELECTIONS),
    "service and features": Wrong(SERVICE + bytes_field(3, b"a"), "TWO_SELECTIONS", "feature_service", SELECTIONS),
    "2001 features": Wrong(
        bytes_field(3, b"a") * 2001 + KEYS,
        "TOO_MANY_FEATURES",
        "features",
        "2001 features in one batch: at most 2000; split the request",
        {"count": "2001", "limit": "2000"},
    ),
    "no columns": Wrong(
        SERVICE,
        "NO_ROWS",
        "entity_columns[0]",
        "the batch has no rows: send at least one key in every entity column",
        {"column": "0"},
    ),
    "empty column": Wrong(
        keyed(USER, KeyColumn("city", STRING, [])),
        "NO_ROWS",
        "entity_columns[1]",
        "the batch has no rows: send at least one key in every entity column",
        {"column": "1"},
    ),
    "10001 rows": Wrong(
        many_rows(10_001),
        "TOO_MANY_ROWS",
        "entity_columns[0]",
        "10001 rows in one batch: at most 10000; split the request",
        {"column": "0", "count": "10001", "limit": "10000"},
    ),
    "row counts": Wrong(
        keyed(USER, CITY, KeyColumn("blob", BYTES, [b"c"] * 3)),
        "ROW_COUNT_MISMATCH",
        "entity_columns[2]",
        "entity column 'blob' has 3 rows and the first one 2: send as many in each",
        {"column": "2", "name": "blob", "count": "3", "rows": "2"},
    ),
    "65 columns": Wrong(
        keyed(*[USER] * 65),
        "TOO_MANY_ENTITY_COLUMNS",
        "entity_columns",
        "more than 64 entity columns: send those that the selection needs",
        {"limit": "64"},
    ),
    "two key types": Wrong(
        SERVICE + bytes_field(4, column_bytes(USER) + bytes_field(3, b"a")),
        "TWO_KEY_TYPES",
        "entity_columns[0]",
        "set only one of int64_values, string_values and bytes_values",
        {"column": "0"},
    ),
    "empty string key": Wrong(
        keyed(USER, KeyColumn("city", STRING, [b"a", b""]), BLOB),
        "EMPTY_ENTITY_KEY",
        "entity_columns[1].string_values[1]",
        "key 'city' is empty at row 1: send the row in null_rows instead",
        {"name": "city", "row": "1"},
    ),
    "empty bytes key": Wrong(
        keyed(KeyColumn("blob", BYTES, [b"", b"a"]), CITY, USER),
        "EMPTY_ENTITY_KEY",
        "entity_columns[0].bytes_values[0]",
        "key 'blob' is empty at row 0: send the row in null_rows instead",
        {"name": "blob", "row": "0"},
    ),
    "long part": Wrong(
        keyed(USER, KeyColumn("city", STRING, [b"a", b"x" * 1025]), BLOB),
        "ENTITY_KEY_TOO_LONG",
        "entity_columns[1].string_values[1]",
        f"key 'city' at row 1 {LIMIT_KEY}",
        {"name": "city", "row": "1", "limit": "1024"},
    ),
    "long key": Wrong(  # 9 + (3 + 500) + (3 + 510) = 1025
        keyed(USER, KeyColumn("city", STRING, [b"a", b"x" * 500]), KeyColumn("blob", BYTES, [b"a", b"y" * 510])),
        "ENTITY_KEY_TOO_LONG",
        "entity_columns[2].bytes_values[1]",
        f"key 'blob' at row 1 {LIMIT_KEY}",
        {"name": "blob", "row": "1", "limit": "1024"},
    ),
    "not UTF-8": Wrong(
        keyed(USER, KeyColumn("city", STRING, [b"a", b"\xff"]), BLOB),
        "ENTITY_KEY_NOT_UTF8",
        "entity_columns[1].string_values[1]",
        "key 'city' at row 1 is not UTF-8: send it as bytes_values",
        {"name": "city", "row": "1"},
    ),
    "null row beyond": Wrong(
        keyed(KeyColumn("user", I64, [1, 2], [2])),
        "BAD_NULL_ROWS",
        "entity_columns[0].null_rows",
        f"null_rows of 'user' {NULLS} 2 does not",
        {"column": "0", "name": "user", "null_row": "2"},
    ),
    "null row negative": Wrong(
        keyed(KeyColumn("user", I64, [1, 2], [-1])),
        "BAD_NULL_ROWS",
        "entity_columns[0].null_rows",
        f"null_rows of 'user' {NULLS} -1 does not",
        {"column": "0", "name": "user", "null_row": "-1"},
    ),
    "null row twice": Wrong(
        keyed(USER, KeyColumn("city", STRING, [b"a", b"b"], [1, 1])),
        "BAD_NULL_ROWS",
        "entity_columns[1].null_rows",
        f"null_rows of 'city' {NULLS} 1 does not",
        {"column": "1", "name": "city", "null_row": "1"},
    ),
    "unknown join key": Wrong(
        keyed(USER, KeyColumn("town", I64, [1, 2]), CITY, BLOB),
        "UNKNOWN_JOIN_KEY",
        "entity_columns[1].join_key",
        "no selected feature is keyed by 'town': leave it out",
        {"column": "1", "wanted": "town"},
    ),
    "missing join key": Wrong(
        keyed(USER, BLOB),
        "MISSING_JOIN_KEY",
        "entity_columns",
        "the selection is keyed by 'city': add that entity column",
        {"wanted": "city"},
    ),
    "duplicate join key": Wrong(
        keyed(USER, CITY, USER, BLOB),
        "DUPLICATE_JOIN_KEY",
        "entity_columns[2].join_key",
        "entity column 'user' is sent twice: send it once",
        {"column": "2", "name": "user"},
    ),
    "key type i64": Wrong(
        keyed(BLOB, KeyColumn("user", STRING, [b"1", b"2"]), CITY),
        "WRONG_KEY_TYPE",
        "entity_columns[1]",
        "join key 'user' is of type I64: send it in int64_values",
        {"column": "1", "name": "user", "type": "I64", "values": "int64_values"},
    ),
    "key type bytes": Wrong(
        keyed(KeyColumn("blob", STRING, [b"1", b"2"]), USER, CITY),
        "WRONG_KEY_TYPE",
        "entity_columns[0]",
        "join key 'blob' is of type BYTES: send it in bytes_values",
        {"column": "0", "name": "blob", "type": "BYTES", "values": "bytes_values"},
    ),
    "request column": Wrong(
        SERVICE + KEYS + bytes_field(5, b""),
        "UNKNOWN_REQUEST_COLUMN",
        "request_columns[0].name",
        "no selected feature takes request data '': leave it out",
        {"column": "0", "wanted": ""},
    ),
    "handle of 31 bytes": Wrong(
        bytes_field(2, bytes(31)) + KEYS,
        "BAD_HANDLE",
        "handle",
        "a handle has 32 bytes: send the one that PrepareFeatureSet returned",
        {"limit": "32"},
    ),
    "staleness below 0": Wrong(
        staleness(-1, 0), "BAD_STALENESS", STALENESS_FIELD, STALENESS, {"limit": "315576000000"}
    ),
    "staleness nanos": Wrong(
        staleness(0, 1_000_000_000), "BAD_STALENESS", STALENESS_FIELD, STALENESS, {"limit": "315576000000"}
    ),
    "staleness nanos below 0": Wrong(
        staleness(0, -1), "BAD_STALENESS", STALENESS_FIELD, STALENESS, {"limit": "315576000000"}
    ),
    "staleness above": Wrong(
        staleness(315_576_000_001, 0), "BAD_STALENESS", STALENESS_FIELD, STALENESS, {"limit": "315576000000"}
    ),
    "policy 3": Wrong(options(number_field(4, 3)), "BAD_PARTIAL_POLICY", "options.partial_policy", POLICY),
    "policy -1": Wrong(options(number_field(4, -1)), "BAD_PARTIAL_POLICY", "options.partial_policy", POLICY),
    "1025 offsets": Wrong(
        options(*[bytes_field(6, b"")] * 1025),
        "TOO_MANY_MIN_OFFSETS",
        "options.min_offsets",
        "more than 1024 min_offsets: keep the highest of each shard",
        {"limit": "1024"},
    ),
    "answer over 64 MiB": Wrong(  # the second column of 48,000,000 bytes
        many_rows(200, nulls=True),
        "RESPONSE_TOO_LARGE",
        "",
        "the answer would have over 96000463 bytes: at most 67108864; split the request",
        {"count": "96000463", "limit": "67108864"},
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_gets_its_refusal(case: str) -> None:
    wrong = WRONG[case]
    with pytest.raises(Refused) as caught:
        RequestCore(RowTable(1 << 18), 8).serve(wrong.request, READ_TIME_US, PLAN)
    refused = caught.value
    assert (refused.reason, refused.field) == (wrong.reason, wrong.field)
    assert str(refused) == refused.message == wrong.message
    assert refused.metadata == wrong.metadata


@pytest.mark.parametrize("case", WRONG)
def test_the_twin_refuses_the_same(case: str) -> None:
    wrong = WRONG[case]
    with pytest.raises(Refusal) as caught:
        twin.serve(wrong.request, TWIN_PLAN, {}, READ_TIME_US)
    assert (caught.value.reason, caught.value.field) == (wrong.reason, wrong.field)


@pytest.mark.parametrize("case", WRONG)
def test_metadata_holds_every_value_that_the_message_quotes(case: str) -> None:
    wrong = WRONG[case]
    quoted = re.findall(r"'([^']*)'|(?<![\w-])(-?\d+)(?![\w-])", wrong.message)
    assert {name or number for name, number in quoted} <= set(wrong.metadata.values())


def test_every_reason_is_reached() -> None:
    reasons = {reason for reason, _, _ in _REFUSALS}
    reached = {wrong.reason for wrong in WRONG.values()} | {reason for _, reason, _, _ in REFUSALS.values()}
    assert reasons - reached == {"STORED_ROW_CORRUPT", "OUT_OF_MEMORY"}


def test_memory_that_runs_out_has_a_sentence() -> None:
    status = 10 + [reason for reason, _, _ in _REFUSALS].index("OUT_OF_MEMORY")
    assert refusal(status, "", "", column=0, kind=0, row=0, count=0, rows=0)[0] == "OUT_OF_MEMORY"


def test_a_row_that_points_outside_itself_is_refused_not_followed() -> None:
    row = bytearray(pack_row(9, SCHEMA, [bytes(240_000), b"text"], 0)[:-4])
    slot = 64 + 8 + 240_000
    for start, length in ((0, 2**32 - 1), (2**32 - 1, 1), (0, 9), (2**31, 2**31)):
        row[slot : slot + 8] = struct.pack("<II", start, length)
        overlay = Overlay()
        overlay.add([storage_key(1, [(I64, 1)], 5)], [sealed(bytes(row))])
        plan = Plan(
            bytes(32), 1, [("user", I64)], [(1, [0])], [(0, 5, Schema(9, SCHEMA), 0, 0, 1, None)], [("t", 0, 1, None)]
        )
        with pytest.raises(Refused) as caught:
            RequestCore(RowTable(1 << 18), 8).serve(keyed(KeyColumn("user", I64, [1])), READ_TIME_US, plan, overlay)
        assert caught.value.reason == "STORED_ROW_CORRUPT"


def test_a_null_row_is_not_judged_by_its_placeholder() -> None:
    """A key of 1,024 bytes beside a null part is no key at all."""
    columns = [
        KeyColumn("user", I64, [1]),
        KeyColumn("city", STRING, [b"x" * 1021]),
        KeyColumn("blob", BYTES, [b""], [0]),
    ]
    overlay = Overlay()
    overlay.add([storage_key(1, [(I64, 1)], 5)], [None])
    answer = RequestCore(RowTable(1 << 18), 8).serve(keyed(*columns), READ_TIME_US, PLAN, overlay)
    assert isinstance(answer, bytes)


def test_the_longest_key_is_taken() -> None:
    columns = [
        KeyColumn("user", I64, [1]),
        KeyColumn("city", STRING, [b"x" * 500]),
        KeyColumn("blob", BYTES, [b"y" * 509]),
    ]
    found = RequestCore(RowTable(1 << 18), 8).serve(keyed(*columns), READ_TIME_US, PLAN)
    assert [len(key) for key in found.storage_keys] == [4 + 9 + 4, 4 + 1024 + 4]  # type: ignore[union-attr]
