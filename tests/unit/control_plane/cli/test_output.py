"""Tables, documents and errors as they are printed."""

import io
import json
from datetime import UTC, date, datetime

import pytest
import yaml

from control_plane.cli.output import Format, plain, print_document, print_error, print_table
from headrace.errors import InvalidArgument, NotFound


def test_table_aligns_columns_and_leaves_no_trailing_blanks() -> None:
    out = io.StringIO()
    print_table(("name", "state"), [("a", "active"), ("long name", None)], out)
    assert out.getvalue() == "NAME       STATE\na          active\nlong name\n"


def test_table_without_rows_is_its_header() -> None:
    out = io.StringIO()
    print_table(("name",), [], out)
    assert out.getvalue() == "NAME\n"


def test_cell_stays_on_its_line() -> None:
    out = io.StringIO()
    print_table(("text",), [("two\nlines",)], out)
    assert out.getvalue() == "TEXT\ntwo lines\n"


@pytest.mark.parametrize(("form", "read"), [(Format.JSON, json.loads), (Format.YAML, yaml.safe_load)])
def test_documents_read_back(form: Format, read: "object") -> None:
    assert callable(read)
    out = io.StringIO()
    document = {"b": [1, None, 0.5], "a": {"text": "ß"}}
    print_document(document, form, out)
    assert read(out.getvalue()) == document
    assert list(read(out.getvalue())) == ["b", "a"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\x00\xff", "AP8="),
        (datetime(2026, 1, 2, 3, 4, 5, 6, UTC), "2026-01-02T03:04:05.000006Z"),
        (date(2026, 1, 2), "2026-01-02"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (-0.0, -0.0),
        ((1, {2: b""}), [1, {"2": ""}]),
    ],
)
def test_plain_forms_are_those_of_protobuf_json(value: object, expected: object) -> None:
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


def test_error_is_one_line_with_its_reason_and_field() -> None:
    err = io.StringIO()
    print_error(InvalidArgument("wrong\nkey", reason="KEY", field="entities[0]"), Format.TABLE, err)
    assert err.getvalue() == "error: wrong key (field entities[0]) [KEY]\n"


def test_error_for_programs_is_one_object() -> None:
    err = io.StringIO()
    print_error(NotFound("no view", reason="GONE", metadata={"name": "a.b.c"}), Format.JSON, err)
    assert json.loads(err.getvalue()) == {
        "error": {
            "code": "NOT_FOUND",
            "reason": "GONE",
            "field": "",
            "message": "no view",
            "metadata": {"name": "a.b.c"},
        }
    }
