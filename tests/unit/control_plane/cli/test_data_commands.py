"""Keys as people type them."""

import io
from typing import Any

import pytest

from control_plane.cli.data_commands import parse_entities, progress
from control_plane.cli.session import Session
from headrace.errors import InvalidArgument
from headrace.types import Scalar


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        return True


KEYS = {"user_id": Scalar.I64, "country": Scalar.STRING, "session": Scalar.BYTES}


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("user_id", "user_id=1,-2", [1, -2]),
        ("user_id", "user_id=[1, null]", [1, None]),
        ("country", "country=DE,FR", ["DE", "FR"]),
        ("country", 'country=["a,b", null, ""]', ["a,b", None, ""]),
        ("country", "country=1", ["1"]),
        ("session", "session=00ff", [b"\x00\xff"]),
    ],
)
def test_keys_are_read_in_the_type_of_the_selection(key: str, text: str, expected: list[Any]) -> None:
    assert parse_entities([text], {key: KEYS[key]}) == {key: expected}


@pytest.mark.parametrize(
    "text", ["user_id=a", "user_id=1.5", "user_id=", "user_id=[true]", "user_id=[1", "user_id=[1.5]"]
)
def test_values_of_another_type_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--entity user_id holds") as caught:
        parse_entities([text], {"user_id": Scalar.I64})
    assert caught.value.reason == "ENTITY_KEY_TYPE"


@pytest.mark.parametrize("texts", [["colour=1"], ["user_id"], ["user_id=1", "user_id=2"]])
def test_unknown_and_doubled_keys_are_refused_with_the_known_ones(texts: list[str]) -> None:
    with pytest.raises(InvalidArgument, match=r"user_id$"):
        parse_entities(texts, {"user_id": Scalar.I64})


def test_missing_key_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"country=[.]{3} is missing"):
        parse_entities(["user_id=1"], {"user_id": Scalar.I64, "country": Scalar.STRING})


def test_bytes_that_are_no_hexadecimal_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="hexadecimal"):
        parse_entities(["session=xyz"], {"session": Scalar.BYTES})


@pytest.mark.parametrize("total", [200, None])
def test_person_sees_a_bar_and_a_pipe_sees_nothing(total: int | None) -> None:
    for err, is_shown in ((Terminal(), True), (io.StringIO(), False)):
        with progress(Session({}, err=err), "writing rows", total) as advance:
            advance(100)
        assert ("writing rows" in err.getvalue()) is is_shown
