"""Messages that are one Avro record each, bare or in single-object encoding, by the schema that their source names."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from feature_server.pipeline.record_events import RecordFault, bad_schema
from headrace.types import Scalar, Shape, ValueType

SINGLE_OBJECT: Final = b"\xc3\x01"  # the CRC-64-AVRO of the schema follows, then the record
_SCALARS: Final = {
    "boolean": Scalar.BOOL,
    "int": Scalar.I32,
    "long": Scalar.I64,
    "float": Scalar.F32,
    "double": Scalar.F64,
    "string": Scalar.STRING,
    "enum": Scalar.STRING,
    "bytes": Scalar.BYTES,
}
_TIMES: Final = {"timestamp-micros": 1, "timestamp-millis": 1_000}
_ERRORS: Final = (ValueError, TypeError, LookupError, EOFError, OverflowError, AssertionError, RecursionError)

Schema = Any  # JSON of the Avro specification


def avro_reader(
    data: bytes, columns: Mapping[str, ValueType], source: str, name: str
) -> Callable[[bytes], Sequence[Any]]:
    """Reads the columns out of records. Raises InvalidArgument where the schema is none, or lacks a column."""
    try:
        declared = json.loads(data)
        parsed = fastavro.parse_schema(_plain(declared))
        mark = SINGLE_OBJECT + bytes.fromhex(fingerprint(to_parsing_canonical_form(declared), "CRC-64-AVRO"))
    except _ERRORS as error:
        raise bad_schema(source, name, f"it is no Avro schema: {error}") from error
    if not isinstance(declared, dict) or declared.get("type") != "record":
        raise bad_schema(source, name, "it is no record")
    if _has_empty_items(declared):
        raise bad_schema(source, name, "it has an array or map of nothing, of which a few bytes could hold billions")
    fields = {field["name"]: field["type"] for field in declared["fields"]}
    factors = {}
    for column, kind in columns.items():
        if column not in fields:
            raise bad_schema(source, name, f"it has no field {column!r}; give it one, or drop the column")
        factors[column] = _factor(fields[column], kind)
        if factors[column] is None:
            raise bad_schema(source, name, f"field {column!r} is {json.dumps(fields[column])}, no {kind}")

    def read(payload: bytes) -> Sequence[Any]:
        body = io.BytesIO(payload)
        if payload.startswith(mark):
            body.seek(len(mark))
        try:
            record = fastavro.schemaless_reader(body, parsed, None)
        except _ERRORS as error:
            raise RecordFault("MALFORMED_AVRO", f"no record of {name}: {error!r}") from error
        if body.read(1):
            raise RecordFault("MALFORMED_AVRO", f"bytes follow the record of {name}")
        assert isinstance(record, dict), "the schema is a record"
        return [_scaled(record[column], factor) for column, factor in factors.items()]

    return read


def _scaled(value: Any, factor: int | None) -> Any:  # of the type of the column
    if factor == 1 or value is None:
        return value
    return [one * factor for one in value] if isinstance(value, list) else value * factor


def _factor(declared: Schema, kind: ValueType) -> int | None:
    """What a value is multiplied with to be one of the column; None where it is of another type."""
    if isinstance(declared, list):
        rest = [one for one in declared if one != "null"]
        return _factor(rest[0], kind) if len(rest) == 1 else None
    if isinstance(declared, dict) and declared["type"] == "array":
        is_list = kind.shape is not Shape.SINGLE
        return _scalar_factor(declared["items"], kind.scalar) if is_list else None
    return _scalar_factor(declared, kind.scalar) if kind.shape is Shape.SINGLE else None


def _scalar_factor(declared: Schema, scalar: Scalar) -> int | None:
    logical = declared.get("logicalType") if isinstance(declared, dict) else None
    base = declared["type"] if isinstance(declared, dict) else declared
    if scalar is Scalar.TIMESTAMP_US:
        return _TIMES.get(logical or "") if base == "long" else None
    if scalar is Scalar.DATE:
        return 1 if base == "int" and logical == "date" else None
    return 1 if logical is None and isinstance(base, str) and _SCALARS.get(base) is scalar else None


def _plain(declared: Schema) -> Schema:
    """Without logical types: their numbers are what columns hold."""
    if isinstance(declared, dict):
        return {name: _plain(value) for name, value in declared.items() if name != "logicalType"}
    return [_plain(one) for one in declared] if isinstance(declared, list) else declared


def _has_empty_items(declared: Schema) -> bool:
    if isinstance(declared, list):
        return any(map(_has_empty_items, declared))
    if not isinstance(declared, dict):
        return False
    inner = [declared.get("items"), declared.get("values")]
    if any(one is not None and _is_empty(one) for one in inner):
        return True
    return any(
        _has_empty_items(one) for one in (*inner, declared.get("type"), *map(_type_of, declared.get("fields", ())))
    )


def _type_of(field: Schema) -> Schema:
    return field["type"]


def _is_empty(declared: Schema) -> bool:
    if declared == "null" or not isinstance(declared, dict):
        return bool(declared == "null")
    kind = declared["type"]
    if kind == "record":
        return all(_is_empty(field["type"]) for field in declared["fields"])
    return bool(kind == "null" or (kind == "fixed" and declared["size"] == 0))
