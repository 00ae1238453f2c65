"""The one text of an expression: what its identity is made of."""

import re
from datetime import date, datetime
from typing import Final

from headrace.expressions.nodes import Call, Case, Cast, ColumnName, Literal, Node, Operation

RESERVED: Final = frozenset(
    {"or", "and", "not", "in", "is", "null", "true", "false", "cast", "as", "case", "when", "then", "else", "end"}
)
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ESCAPED: Final = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def canonical_text(node: Node) -> str:
    """Text that parses to the same tree: operators in parentheses, one space around them, constants in one form."""
    if isinstance(node, Literal):
        return _constant(node)
    if isinstance(node, ColumnName):
        return column_text(node.name)
    if isinstance(node, Cast):
        return f"cast({canonical_text(node.part)} as {node.type_name})"
    if isinstance(node, Case):
        parts = [f"when {canonical_text(test)} then {canonical_text(value)}" for test, value in node.branches]
        parts += [] if node.otherwise is None else [f"else {canonical_text(node.otherwise)}"]
        return f"case {' '.join(parts)} end"
    parts = [canonical_text(part) for part in node.children]
    if isinstance(node, Operation):
        if node.operator in ("neg", "not"):
            return f"({'-' if node.operator == 'neg' else 'not '}{parts[0]})"
        return f"({parts[0]} {node.operator} {parts[1]})"
    assert isinstance(node, Call)
    if node.function == "in":
        return f"({parts[0]} in ({', '.join(parts[1:])}))"
    return f"{node.function}({', '.join(parts)})"


def column_text(name: str) -> str:
    """A column as an expression names it, in double quotes where it is no plain word."""
    if _PLAIN.match(name) and name not in RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def _constant(node: Literal) -> str:
    value = node.value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return "'" + "".join(_ESCAPED.get(character, character) for character in value) + "'"
    if isinstance(value, datetime):
        return f"timestamp '{value.isoformat().replace('+00:00', 'Z')}'"
    if isinstance(value, date):
        return f"date '{value.isoformat()}'"
    return repr(value)
