"""Columns as people type them: "NAME=VALUE,VALUE" or "NAME=[JSON, ...]", once for each name that is asked for."""

import json
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from headrace.errors import InvalidArgument

T = TypeVar("T")


def parse_columns(
    texts: Sequence[str],
    names: Collection[str],
    convert: Callable[[str, str], list[T]],
    *,
    unknown: Callable[[str], InvalidArgument],
    missing: Callable[[list[str]], InvalidArgument],
) -> dict[str, list[T]]:
    """Columns of these names, each there once; `convert` is given a name and its values as they were typed.

    Raises what `unknown` makes of a text that is none of them, and `missing` of the names that are left.
    """
    columns: dict[str, list[T]] = {}
    for text in texts:
        name, separator, values = text.partition("=")
        if not separator or name not in names or name in columns:
            raise unknown(text)
        columns[name] = convert(name, values)
    left = [name for name in names if name not in columns]
    if left:
        raise missing(left)
    return columns


def split_values(text: str) -> Sequence[object]:
    """Values between commas, or those of a JSON list. Raises ValueError."""
    if not text.startswith("["):
        return text.split(",")
    values = json.loads(text)
    assert isinstance(values, list), "a JSON text that starts with a bracket is a list"
    return values
