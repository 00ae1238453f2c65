"""Size of a row's fixed part."""

import pytest

from headrace.definitions.layout import ROW_BYTES_MAX, check_row_size, fixed_row_bytes
from headrace.errors import InvalidArgument
from headrace.types import parse_type


@pytest.mark.parametrize(
    ("types", "size"),
    [
        ([], 64 + 4),
        (["bool"], 64 + 8 + 1 + 3 + 4),
        (["bool", "i64"], 64 + 8 + 16 + 4),
        (["f32"] * 50, 64 + 8 + 200 + 4),
        (["f32"] * 65, 64 + 16 + 260 + 4),
        (["bool", "string"], 64 + 8 + 16 + 4),
        (["list<f64,3>"], 64 + 8 + 24 + 4),
    ],
)
def test_size_follows_the_drawn_layout(types: list[str], size: int) -> None:
    assert fixed_row_bytes([parse_type(text) for text in types]) == size


def test_row_of_the_largest_size_is_accepted_and_one_more_refused() -> None:
    widest = [parse_type("list<f64,65535>"), parse_type("list<f64,65527>")]
    assert fixed_row_bytes(widest) == ROW_BYTES_MAX - 4
    check_row_size("a.b.c", widest)
    with pytest.raises(InvalidArgument) as caught:
        check_row_size("a.b.c", [*widest, parse_type("i64")])
    assert caught.value.reason == "ROW_TOO_LARGE"
    assert caught.value.metadata["row_bytes_max"] == str(ROW_BYTES_MAX)
