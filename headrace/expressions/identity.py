"""What an expression is made of, without the types of its columns."""

from functools import lru_cache
from typing import NamedTuple

from headrace.expressions.calls import TIME_PARTS
from headrace.expressions.canonical import canonical_text
from headrace.expressions.nodes import Call, ColumnName, walk
from headrace.expressions.parsing import parse


class ExpressionIdentity(NamedTuple):
    """Canonical text, the columns named in their order, and whether the result depends on time-zone data."""

    canonical: str
    columns: tuple[str, ...]
    uses_time_zones: bool


@lru_cache(maxsize=8_192)  # a registry is read whole, again and again, with the same few thousand texts
def expression_identity(text: str) -> ExpressionIdentity:
    """Identity of a text. Raises InvalidArgument where it is no expression."""
    node = parse(text)
    parts = list(walk(node))
    columns = tuple(sorted({part.name for part in parts if isinstance(part, ColumnName)}))
    zoned = any(isinstance(part, Call) and part.function in TIME_PARTS and len(part.parts) > 1 for part in parts)
    return ExpressionIdentity(canonical_text(node), columns, zoned)
