"""Request data as people type it."""

from typing import Any

import pytest

from control_plane.cli.request_values import parse_request_data
from headrace.errors import InvalidArgument
from headrace.types import Scalar, ValueType

FIELDS = {name: ValueType(scalar) for name, scalar in (("km", Scalar.F64), ("n", Scalar.I32), ("text", Scalar.STRING))}
FIELDS["gift"] = ValueType(Scalar.BOOL)


def parsed(text: str) -> list[Any]:
    name = text.partition("=")[0]
    return parse_request_data([text], {name: FIELDS[name]})[name]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("km=12.5,30", [12.5, 30.0]),
        ("km=[1, null]", [1.0, None]),
        ("n=7,null", [7, None]),
        ("text=a,1", ["a", "1"]),
        ('text=["a,b", null]', ["a,b", None]),
        ("gift=true,false", [True, False]),
    ],
)
def test_values_are_read_in_the_type_of_the_field(text: str, expected: list[Any]) -> None:
    found = parsed(text)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


@pytest.mark.parametrize("text", ["km=a", "km=[1", "n=1.5", "n=3000000000", "gift=1", "text=[1]"])
def test_values_of_another_type_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--request") as caught:
        parsed(text)
    assert caught.value.reason == "REQUEST_VALUE"


@pytest.mark.parametrize("texts", [["other=1"], ["km"], ["km=1", "km=2"]])
def test_unknown_and_doubled_fields_are_refused_with_the_known_ones(texts: list[str]) -> None:
    with pytest.raises(InvalidArgument, match=r"km$") as caught:
        parse_request_data(texts, {"km": FIELDS["km"]})
    assert caught.value.reason == "REQUEST_FIELD"


def test_a_missing_field_is_named_with_its_type() -> None:
    with pytest.raises(InvalidArgument, match=r"--request n=\.\.\. is missing; .*km \(f64\), n \(i32\)"):
        parse_request_data(["km=1"], {"km": FIELDS["km"], "n": FIELDS["n"]})
