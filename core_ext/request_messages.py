"""Reason, field path and sentence for every refusal of the request core, and the rare parts of a request in Python."""

import re
from collections.abc import Iterator
from typing import Final

from core_ext.wire import fields, int32_of, typed_fields, unsigned_to_signed

_TYPES: Final = dict(
    enumerate(("BOOL", "I32", "I64", "F32", "F64", "STRING", "BYTES", "TIMESTAMP_US", "DATE"), start=1)
)
_VALUES: Final = {3: "int64_values", 6: "string_values", 7: "bytes_values"}

# Limits that sentences quote, by reason; native/hr_request.h and hr_layout.h hold them.
_LIMITS: Final = {
    "TOO_MANY_FEATURES": 2000,
    "TOO_MANY_ROWS": 10_000,
    "TOO_MANY_ENTITY_COLUMNS": 64,
    "ENTITY_KEY_TOO_LONG": 1024,
    "BAD_HANDLE": 32,
    "BAD_STALENESS": 315_576_000_000,
    "TOO_MANY_MIN_OFFSETS": 1024,
    "TOO_MANY_REQUEST_COLUMNS": 256,
    "RESPONSE_TOO_LARGE": 64 << 20,
}

# By status of native/hr_request.h, from HR_E_MALFORMED = 10: reason, field, sentence. Quoted names are those of
# `refusal`'s metadata.
_REFUSALS: Final = (
    ("MALFORMED_REQUEST", "", "the bytes are no GetOnlineFeaturesRequest: encode them with the published contract"),
    ("NO_SELECTION", "feature_service", "name a feature service, a handle or features to read"),
    ("TWO_SELECTIONS", "feature_service", "set only one of feature_service, handle and features"),
    ("TOO_MANY_FEATURES", "features", "{count} features in one batch: at most {limit}; split the request"),
    ("NO_ROWS", "entity_columns[{column}]", "the batch has no rows: send at least one key in every entity column"),
    ("TOO_MANY_ROWS", "entity_columns[{column}]", "{count} rows in one batch: at most {limit}; split the request"),
    (
        "ROW_COUNT_MISMATCH",
        "entity_columns[{column}]",
        "entity column {name!r} has {count} rows and the first one {rows}: send as many in each",
    ),
    (
        "TOO_MANY_ENTITY_COLUMNS",
        "entity_columns",
        "more than {limit} entity columns: send those that the selection needs",
    ),
    ("TWO_KEY_TYPES", "entity_columns[{column}]", "set only one of int64_values, string_values and bytes_values"),
    ("EMPTY_ENTITY_KEY", "{value_path}", "key {name!r} is empty at row {row}: send the row in null_rows instead"),
    (
        "ENTITY_KEY_TOO_LONG",
        "{value_path}",
        "key {name!r} at row {row} makes an entity key of over {limit} bytes: send a hash of it",
    ),
    ("ENTITY_KEY_NOT_UTF8", "{value_path}", "key {name!r} at row {row} is not UTF-8: send it as bytes_values"),
    (
        "BAD_NULL_ROWS",
        "entity_columns[{column}].null_rows",
        "null_rows of {name!r} must ascend and name rows of the batch; {null_row} does not",
    ),
    (
        "UNKNOWN_JOIN_KEY",
        "entity_columns[{column}].join_key",
        "no selected feature is keyed by {wanted!r}: leave it out",
    ),
    ("MISSING_JOIN_KEY", "entity_columns", "the selection is keyed by {wanted!r}: add that entity column"),
    ("DUPLICATE_JOIN_KEY", "entity_columns[{column}].join_key", "entity column {name!r} is sent twice: send it once"),
    ("WRONG_KEY_TYPE", "entity_columns[{column}]", "join key {name!r} is of type {type}: send it in {values}"),
    (
        "UNKNOWN_REQUEST_COLUMN",
        "request_columns[{column}].name",
        "no selected feature takes request data {wanted!r}: leave it out",
    ),
    ("BAD_HANDLE", "handle", "a handle has {limit} bytes: send the one that PrepareFeatureSet returned"),
    ("BAD_STALENESS", "options.max_staleness_duration", "the duration must not be negative, nor over {limit} s"),
    ("BAD_PARTIAL_POLICY", "options.partial_policy", "unknown partial policy: use PARTIAL or FAIL"),
    ("TOO_MANY_MIN_OFFSETS", "options.min_offsets", "more than {limit} min_offsets: keep the highest of each shard"),
    ("RESPONSE_TOO_LARGE", "", "the answer would have over {count} bytes: at most {limit}; split the request"),
    ("STORED_ROW_CORRUPT", "", "a stored row points outside itself: the shard must be rebuilt"),
    ("OUT_OF_MEMORY", "", "no memory for this batch: split the request or try again later"),
    (
        "TOO_MANY_REQUEST_COLUMNS",
        "request_columns",
        "more than {limit} request columns: send those that the selection needs",
    ),
    (
        "MISSING_REQUEST_FIELD",
        "request_columns",
        "the selection needs request field {wanted!r} of type {type}: add that request column",
    ),
    (
        "DUPLICATE_REQUEST_COLUMN",
        "request_columns[{column}].name",
        "request column {wanted!r} is sent twice: send it once",
    ),
    (
        "WRONG_REQUEST_TYPE",
        "request_columns[{column}].value_type",
        "request field {wanted!r} is of type {type}: send it as such",
    ),
    (
        "REQUEST_LENGTH_MISMATCH",
        "request_columns[{column}].values",
        "request field {wanted!r} does not hold one {type} for each of {rows} rows: send as many as there are keys",
    ),
    (
        "REQUEST_LENGTH_MISMATCH",
        "request_columns[{column}].offsets",
        "offsets of request field {wanted!r} do not part its values: send {rows} + 1, from 0 to their length",
    ),
    (
        "BAD_NULL_ROWS",
        "request_columns[{column}].null_rows",
        "null_rows of {wanted!r} must ascend and name rows of the batch; {null_row} does not",
    ),
    (
        "REQUEST_VALUE_INVALID",
        "request_columns[{column}].values",
        "request field {wanted!r} holds no {type} at row {row}: a BOOL is 0 or 1, a STRING is UTF-8",
    ),
)
_FIRST_STATUS: Final = 10


def refusal(
    status: int, name: str, wanted: str, *, column: int, kind: int, row: int, count: int, rows: int
) -> tuple[str, str, str, dict[str, str]]:
    """Reason, field path, sentence and quoted values for a status of the core."""
    reason, field, sentence = _REFUSALS[status - _FIRST_STATUS]
    values: dict[str, object] = {
        "column": column,
        "row": row,
        "name": name,
        "wanted": wanted,
        "count": count,
        "null_row": unsigned_to_signed(count),
        "rows": rows,
        "type": _TYPES.get(count, ""),
        "values": _VALUES.get(count, ""),
        "limit": _LIMITS.get(reason, ""),
    }
    path = f"entity_columns[{column}].{_VALUES.get(kind, '')}[{row}]"
    quoted = {key: str(value) for key, value in values.items() if re.search(rf"{{{key}\b", field + sentence)}
    return reason, field.format(value_path=path, **values), sentence.format(**values), quoted


def wanted_offsets(request: bytes) -> list[tuple[int, int, int]]:
    """min_offsets of a request that the core has parsed, as (shard, epoch, offset)."""
    offsets = []
    for options in _messages(request, 6):
        for token in _messages(options, 6):
            varints = {field: value for field, kind, value in typed_fields(token) if kind == 0}
            shard, epoch, offset = (int(varints.get(field) or 0) for field in (1, 2, 3))
            offsets.append((int32_of(shard), unsigned_to_signed(epoch), unsigned_to_signed(offset)))
    return offsets


def wanted_selection(request: bytes) -> tuple[str, bytes, list[str]]:
    """feature_service, handle and features of a request that the core has parsed."""
    found: dict[int, list[bytes]] = {1: [b""], 2: [b""], 3: []}
    for field, value in fields(request):
        if field in found and isinstance(value, bytes):
            found[field].append(value)
    return found[1][-1].decode(), found[2][-1], [feature.decode() for feature in found[3]]


def _messages(data: bytes, number: int) -> Iterator[bytes]:
    return (value for field, value in fields(data) if field == number and isinstance(value, bytes))
