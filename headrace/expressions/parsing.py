"""Text of an expression to its syntax tree."""

from datetime import UTC, date, datetime
from importlib.resources import files
from typing import Any, Final

from lark import Lark, Token, Transformer, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from headrace.errors import InvalidArgument
from headrace.expressions.nodes import Call, Case, Cast, ColumnName, Literal, Node, Operation, depth_of
from headrace.expressions.problems import problem

TEXT_LENGTH_MAX: Final = 16_384  # characters; longer ones are better split into derived features
DEPTH_MAX: Final = 128  # levels; keeps recursion over the tree far below the interpreter's limit
INTEGER_DIGITS_MAX: Final = 400  # as texts that cast to numbers

_GRAMMAR: Final = files("headrace.expressions").joinpath("grammar.lark").read_text(encoding="ascii")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", "0": "\0"}
_WORDS: Final = {"LPAR": "'('", "RPAR": "')'", "COMMA": "','", "$END": "the end"}


class _Mistake(Exception):
    """A mistake inside a token that the grammar takes."""

    def __init__(self, position: int, message: str, reason: str) -> None:
        super().__init__(message)
        self.position, self.message, self.reason = position, message, reason


def parse(text: str) -> Node:
    """Syntax tree of a text. Raises InvalidArgument that points at the character."""
    if not isinstance(text, str):
        raise InvalidArgument(f"an expression is text, not {type(text).__name__}", reason="WRONG_TYPE")
    if len(text) > TEXT_LENGTH_MAX:
        message = f"the expression has {len(text)} characters; at most {TEXT_LENGTH_MAX} are allowed"
        raise InvalidArgument(message + ": split it", reason="TOO_LONG", metadata={"position": str(TEXT_LENGTH_MAX)})
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidArgument("the expression holds half of a surrogate pair, which is not text", reason="INVALID_TEXT")
    try:
        node: Any = _PARSER.parse(text)  # the transformer makes nodes of the tree
    except UnexpectedInput as error:
        raise _syntax_problem(text, error) from None
    except VisitError as error:
        raise _of_mistake(text, error.orig_exc) from None
    except _Mistake as error:
        raise _of_mistake(text, error) from None
    if depth_of(node) > DEPTH_MAX:
        message = f"the expression is nested {depth_of(node)} levels deep; at most {DEPTH_MAX} are allowed"
        raise problem(text, node.position, f"{message}: split it", "TOO_DEEP")
    assert isinstance(node, Node)
    return node


def _of_mistake(text: str, error: BaseException) -> Exception:
    if isinstance(error, _Mistake):
        return problem(text, error.position, error.message, error.reason)
    raise error


def _syntax_problem(text: str, error: UnexpectedInput) -> InvalidArgument:
    if isinstance(error, UnexpectedCharacters):
        position = error.pos_in_stream or 0
        character = text[position]
        message = f"{character!r} begins nothing that an expression may hold"
        if character == "'":
            message = "this text is not closed: end it with '"
        elif character == '"':
            message = 'this column name is not closed: end it with "'
        return problem(text, position, message, "SYNTAX")
    assert isinstance(error, UnexpectedToken)
    token = error.token
    if token.type == "$END":
        return problem(text, len(text), "the expression ends too early: a value or ')' is missing", "SYNTAX")
    expected = {_WORDS.get(name, name.lower()) for name in error.expected if name in _WORDS}
    hint = f"; {' or '.join(sorted(expected))} may stand here" if expected else "; a value must stand here"
    return problem(text, token.start_pos or 0, f"{str(token)!r} cannot stand here{hint}", "SYNTAX")


def _unquoted(token: Token) -> str:
    body, start = str(token)[1:-1], token.start_pos or 0
    out, i = [], 0
    while i < len(body):
        if body[i] == "\\":
            if body[i + 1] not in _ESCAPES:
                raise _Mistake(start + 1 + i, f"unknown escape \\{body[i + 1]}; write \\\\ for a backslash", "SYNTAX")
            out.append(_ESCAPES[body[i + 1]])
        else:
            out.append(body[i])
        i += 2 if body[i] == "\\" or body[i : i + 2] == "''" else 1
    return "".join(out)


def _moment(name: Token, quoted: Token) -> Literal:
    position, text = quoted.start_pos or 0, _unquoted(quoted)
    if name not in ("timestamp", "date"):
        raise _Mistake(name.start_pos or 0, f"{str(name)!r} is no kind of literal; write timestamp or date", "SYNTAX")
    try:
        if name == "date":
            return Literal(name.start_pos or 0, date.fromisoformat(text))
        found = datetime.fromisoformat(text)
        if found.utcoffset() is None:
            message = "a timestamp needs its offset from UTC: write it like '2013-01-01T00:00:00Z'"
            raise _Mistake(position, message, "NAIVE_TIME")
        return Literal(name.start_pos or 0, found.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise _Mistake(position, f"{text[:40]!r} is no {name} in ISO 8601", "SYNTAX") from error


class _Builder(Transformer[Token, Node]):
    """Nodes bottom up, while the text is parsed."""

    def either(self, parts: list[Any]) -> Node:
        return Operation(parts[0].position, "or", tuple(parts))

    def both(self, parts: list[Any]) -> Node:
        return Operation(parts[0].position, "and", tuple(parts))

    def invert(self, parts: list[Any]) -> Node:
        return Operation(parts[0].start_pos, "not", (parts[1],))

    def compare(self, parts: list[Any]) -> Node:
        operator = {"==": "=", "<>": "!="}.get(str(parts[1]), str(parts[1]))
        return Operation(parts[1].start_pos, operator, (parts[0], parts[2]))

    def member(self, parts: list[Any]) -> Node:
        return Call(parts[0].position, "in", (parts[0], *parts[1].children))

    def not_member(self, parts: list[Any]) -> Node:
        return Operation(parts[0].position, "not", (self.member(parts),))

    def is_null(self, parts: list[Any]) -> Node:
        return Call(parts[0].position, "is_null", (parts[0],))

    def is_not_null(self, parts: list[Any]) -> Node:
        return Operation(parts[0].position, "not", (self.is_null(parts),))

    def binary(self, parts: list[Any]) -> Node:
        return Operation(parts[1].start_pos, str(parts[1]), (parts[0], parts[2]))

    def signed(self, parts: list[Any]) -> Node:
        sign, part = parts
        if isinstance(part, Literal) and isinstance(part.value, int | float) and not isinstance(part.value, bool):
            return Literal(sign.start_pos, -part.value if sign == "-" else part.value)
        if sign == "+":
            raise _Mistake(sign.start_pos, "'+' before a value does nothing; leave it out", "SYNTAX")
        return Operation(sign.start_pos, "neg", (part,))

    def integer(self, parts: list[Any]) -> Node:
        if len(parts[0]) > INTEGER_DIGITS_MAX:
            raise _Mistake(parts[0].start_pos, f"this number has over {INTEGER_DIGITS_MAX} digits", "OUT_OF_RANGE")
        return Literal(parts[0].start_pos, int(parts[0]))

    def float(self, parts: list[Any]) -> Node:
        value = float(parts[0])
        if value == float("inf"):
            raise _Mistake(parts[0].start_pos, f"{parts[0]} is beyond f64", "OUT_OF_RANGE")
        return Literal(parts[0].start_pos, value)

    def string(self, parts: list[Any]) -> Node:
        return Literal(parts[0].start_pos, _unquoted(parts[0]))

    def true(self, parts: list[Any]) -> Node:
        return Literal(parts[0].start_pos, True)

    def false(self, parts: list[Any]) -> Node:
        return Literal(parts[0].start_pos, False)

    def null(self, parts: list[Any]) -> Node:
        return Literal(parts[0].start_pos, None)

    def column(self, parts: list[Any]) -> Node:
        return ColumnName(parts[0].start_pos, str(parts[0]))

    def quoted_column(self, parts: list[Any]) -> Node:
        return ColumnName(parts[0].start_pos, str(parts[0])[1:-1].replace('""', '"'))

    def typed(self, parts: list[Any]) -> Node:
        return _moment(parts[0], parts[1])

    def call(self, parts: list[Any]) -> Node:
        arguments = () if parts[1] is None else tuple(parts[1].children)
        return Call(parts[0].start_pos, str(parts[0]), arguments)

    def cast(self, parts: list[Any]) -> Node:
        return Cast(parts[0].start_pos, parts[1], str(parts[2]), parts[2].start_pos)

    def case(self, parts: list[Any]) -> Node:
        branches: list[Any] = [tuple(part.children) for part in parts if isinstance(part, Tree)]
        return Case(parts[0].start_pos, tuple(branches), parts[-1])

    def group(self, parts: list[Any]) -> Node:
        return parts[0]  # type: ignore[no-any-return]


# Any above: lark hands tokens, nodes and trees in one list, by the rule.
_PARSER: Final = Lark(_GRAMMAR, parser="lalr", lexer="basic", transformer=_Builder(), maybe_placeholders=True)
