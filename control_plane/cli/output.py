"""What commands print: tables for people, JSON and YAML for programs."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final, TextIO

from headrace.errors import HeadraceError

Document = Any  # what JSON can hold, after `plain`
_COLUMN_GAP: Final = "  "


class Format(StrEnum):
    """How a command prints its result."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def print_document(document: Document, form: Format, out: TextIO) -> None:
    """One JSON or YAML document."""
    if form is Format.JSON:
        out.write(json.dumps(plain(document), indent=2, ensure_ascii=False) + "\n")
    else:
        import yaml  # lazy: tables, the common case, start without it

        out.write(yaml.safe_dump(plain(document), sort_keys=False, allow_unicode=True, width=120))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]], out: TextIO) -> None:
    """Aligned columns under an upper-case header; a pipe reads it as well as a person."""
    cells = [[name.upper() for name in header], *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        line = _COLUMN_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.write(line.rstrip() + "\n")


def print_error(error: HeadraceError, form: Format, err: TextIO) -> None:
    """One line for people, one JSON object for programs."""
    if form is Format.JSON:
        fields = {"code": error.code, "reason": error.reason, "field": error.field, "message": error.message}
        err.write(json.dumps({"error": {**fields, "metadata": error.metadata}}, ensure_ascii=False) + "\n")
        return
    where = f" (field {error.field})" if error.field and error.field not in error.message else ""
    err.write(f"error: {' '.join(error.message.split())}{where} [{error.reason}]\n")


def plain(value: Any) -> Any:  # Any: values of every feature type in, JSON types out
    """JSON form as protobuf's: bytes as base64, times as RFC 3339, numbers that are not finite as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _cell(value: object) -> str:
    text = "" if value is None else str(plain(value))
    return " ".join(text.split())
