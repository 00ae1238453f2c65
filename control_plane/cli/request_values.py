"""Request data as people type it: "distance_km=12.5,30" or "distance_km=[12.5,null]"."""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from control_plane.cli.typed_columns import parse_columns, split_values
from headrace.definitions.values import value_from_document
from headrace.errors import InvalidArgument
from headrace.types import Scalar, ValueType

_TEXTS: Final = frozenset({Scalar.STRING, Scalar.BYTES, Scalar.TIMESTAMP_US, Scalar.DATE})
_FLOATS: Final = frozenset({Scalar.F32, Scalar.F64})


def parse_request_data(texts: Sequence[str], fields: Mapping[str, ValueType]) -> dict[str, list[object]]:
    """Columns in the types of the fields that the selection asks for."""

    def unknown(text: str) -> InvalidArgument:
        known = ", ".join(fields) if fields else "this selection takes none"
        return InvalidArgument(
            f"--request {text!r} is not one of the request fields to send; write each once, as FIELD=VALUE,VALUE: "
            f"{known}",
            reason="REQUEST_FIELD",
            field="--request",
            metadata={"request": text, "request_fields": ",".join(fields)},
        )

    def missing(names: list[str]) -> InvalidArgument:
        return InvalidArgument(
            f"--request {names[0]}=... is missing; this selection needs "
            f"{', '.join(f'{name} ({kind})' for name, kind in fields.items())}",
            reason="REQUEST_FIELD_MISSING",
            field="--request",
            metadata={"missing": ",".join(names)},
        )

    def convert(name: str, text: str) -> list[object]:
        try:
            values = split_values(text)
        except ValueError as error:
            raise _bad_value(name, text, "a JSON list") from error
        return [_value(name, value, fields[name]) for value in values]

    return parse_columns(texts, fields, convert, unknown=unknown, missing=missing)


def _value(name: str, value: object, kind: ValueType) -> object:
    if isinstance(value, str) and kind.scalar not in _TEXTS:
        try:
            value = json.loads(value)
        except ValueError as error:
            raise _bad_value(name, value, f"a value of {kind}") from error
    if value is None:
        return None
    if kind.scalar in _FLOATS and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    try:
        return value_from_document(value, kind, "value")
    except InvalidArgument as error:
        raise _bad_value(name, value, f"a value of {kind} ({error.message})") from error


def _bad_value(name: str, value: object, wanted: str) -> InvalidArgument:
    return InvalidArgument(
        f"--request {name} holds {value!r}, which is not {wanted}",
        reason="REQUEST_VALUE",
        field="--request",
        metadata={"field": name, "value": str(value)},
    )
