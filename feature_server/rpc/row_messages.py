"""Converts rows and key columns of messages into Arrow batches and key rows."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa

from feature_server.domain.layouts import EntityLayout, ViewLayout
from headrace.convert.values import timestamp_from_pb, value_from_pb
from headrace.definitions.entities import EVENT_TIME
from headrace.errors import InvalidArgument
from headrace.types import Scalar, ValueType
from protos.feature.v1 import online_feature_service_pb2 as pb

ROW_COUNT_MAX: Final = 10_000

_KEY_FIELDS: Final = {
    Scalar.I64: "int64_values",
    Scalar.STRING: "string_values",
    Scalar.BYTES: "bytes_values",
}
_EVENT_TIME_TYPE: Final = pa.timestamp("us", tz="UTC")


def batch_of_rows(rows: Sequence[pb.FeatureRow], target: ViewLayout) -> pa.RecordBatch:
    """Rows by hand as one batch; a feature left out is null, an unknown name is refused."""
    if len(rows) > ROW_COUNT_MAX:
        raise _invalid(
            f"{len(rows)} rows by hand; at most {ROW_COUNT_MAX}: send arrow_ipc, or split", "TOO_MANY_ROWS", "rows"
        )
    entity = target.entity
    for index, row in enumerate(rows):
        _check_row(row, index, target)
    types = dict(zip(target.feature_names, target.value_types, strict=True))
    arrays, names = [], []
    for part, (name, scalar) in enumerate(zip(entity.key_names, entity.key_scalars, strict=True)):
        kind = ValueType(scalar)
        values = [
            value_from_pb(row.entity_keys[part], kind, _at(at, f"entity_keys[{part}]")) for at, row in enumerate(rows)
        ]
        arrays.append(pa.array(values, kind.arrow))
        names.append(name)
    times = [timestamp_from_pb(row.event_time, _at(at, "event_time")) for at, row in enumerate(rows)]
    arrays.append(pa.array(times, _EVENT_TIME_TYPE))
    names.append(EVENT_TIME)
    for name, kind in types.items():
        values = [_feature(row, name, kind, at) for at, row in enumerate(rows)]
        arrays.append(pa.array(values, kind.arrow))
        names.append(name)
    return pa.RecordBatch.from_arrays(arrays, names)


def key_rows(columns: Sequence[pb.EntityColumn]) -> Callable[[EntityLayout], list[tuple[int | str | bytes, ...]]]:
    """Key rows of an erasure, made once the entity is known."""

    def rows(entity: EntityLayout) -> list[tuple[int | str | bytes, ...]]:
        by_name = {column.join_key: column for column in columns}
        unknown = sorted(set(by_name) - set(entity.key_names))
        if unknown or len(by_name) < len(columns):
            name = unknown[0] if unknown else "one"
            raise _invalid(
                f"{name!r} is no join key of {entity.name}, or stands twice", "UNKNOWN_JOIN_KEY", "entity_columns"
            )
        pairs = zip(entity.key_names, entity.key_scalars, strict=True)
        lists = [_key_values(by_name, name, scalar) for name, scalar in pairs]
        counts = {len(values) for values in lists}
        if len(counts) != 1 or not 1 <= len(lists[0]) <= ROW_COUNT_MAX:
            raise _invalid(
                f"key columns have {sorted(counts)} rows; send the same number in each, 1 to {ROW_COUNT_MAX}",
                "ROW_COUNT_MISMATCH" if len(counts) != 1 else "TOO_MANY_ROWS" if lists[0] else "NO_ROWS",
                "entity_columns",
            )
        return list(zip(*lists, strict=True))

    return rows


def _key_values(columns: dict[str, pb.EntityColumn], name: str, scalar: Scalar) -> list[Any]:  # Any: keys by their type
    column = columns.get(name)
    if column is None:
        raise _invalid(f"join key {name!r} is missing; add its column", "MISSING_JOIN_KEY", "entity_columns")
    wanted = _KEY_FIELDS[scalar]
    if any(len(getattr(column, field)) for field in _KEY_FIELDS.values() if field != wanted):
        raise _invalid(f"join key {name!r} is {scalar.name}: send it in {wanted}", "WRONG_KEY_TYPE", "entity_columns")
    if column.null_rows:
        raise _invalid(f"join key {name!r} has null rows; leave those rows out", "NULL_ENTITY_KEY", "entity_columns")
    return list(getattr(column, wanted))


def _check_row(row: pb.FeatureRow, index: int, target: ViewLayout) -> None:
    keys = target.entity.key_names
    if len(row.entity_keys) != len(keys):
        raise _invalid(
            f"{_at(index, 'entity_keys')} has {len(row.entity_keys)} values; {target.entity.name} is keyed by "
            f"{', '.join(keys)} in this order",
            "WRONG_KEY_COUNT",
            _at(index, "entity_keys"),
        )
    if not row.HasField("event_time"):
        raise _invalid(
            f"{_at(index, 'event_time')} is missing; every row needs it",
            "EVENT_TIME_REQUIRED",
            _at(index, "event_time"),
        )
    unknown = sorted(set(row.values) - set(target.columns))
    if unknown:
        raise _invalid(
            f"{target.ref} has no feature {unknown[0]!r}; it has {', '.join(target.feature_names[:20])}",
            "UNKNOWN_COLUMN",
            _at(index, f"values[{unknown[0]}]"),
        )


def _feature(row: pb.FeatureRow, name: str, kind: ValueType, index: int) -> Any:  # Any: a plain value of the type
    if name not in row.values:
        return None
    return value_from_pb(row.values[name], kind, _at(index, f"values[{name}]"))


def _at(index: int, field: str) -> str:
    return f"rows[{index}].{field}"


def _invalid(message: str, reason: str, field: str) -> InvalidArgument:
    return InvalidArgument(message, reason=reason, field=field)
