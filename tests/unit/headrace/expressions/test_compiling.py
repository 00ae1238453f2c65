"""Types, canonical texts and errors of expressions."""

import pytest

from headrace.errors import InvalidArgument
from headrace.expressions import column_text, compile_expression
from headrace.expressions.parsing import DEPTH_MAX, TEXT_LENGTH_MAX
from headrace.types import Scalar, ValueType, parse_type

COLUMNS = {
    "a": parse_type("i64"),
    "small": parse_type("i32"),
    "x": parse_type("f64"),
    "y": parse_type("f32"),
    "s": parse_type("string"),
    "raw": parse_type("bytes"),
    "t": parse_type("timestamp_us"),
    "d": parse_type("date"),
    "p": parse_type("bool"),
    "many": parse_type("list<f32>"),
    "odd name": parse_type("i64"),
}

# Text, offset of the character at fault, reason, a part of the message.
PROBLEMS = [
    ("", 0, "SYNTAX", "ends too early"),
    ("a +", 3, "SYNTAX", "ends too early"),
    ("a ? 2", 2, "SYNTAX", "'?' begins nothing"),
    ("(a", 2, "SYNTAX", "ends too early"),
    ("a)", 1, "SYNTAX", "')' cannot stand here"),
    ("a = 1 = 2", 6, "SYNTAX", "'=' cannot stand here"),
    ("s = 'abc", 4, "SYNTAX", "not closed"),
    ('"abc', 0, "SYNTAX", "not closed"),
    ("s = 'a\\qb'", 6, "SYNTAX", "unknown escape"),
    ("x + +y", 4, "SYNTAX", "leave it out"),
    ("1e999 + x", 0, "OUT_OF_RANGE", "beyond f64"),
    ("when", 0, "SYNTAX", "'when' cannot stand here"),
    ("aa + 1", 0, "UNKNOWN_COLUMN", "did you mean 'a'"),
    ("1 + (a *\n  missing)", 11, "UNKNOWN_COLUMN", "'missing' is unknown"),
    ("many", 0, "TYPE_MISMATCH", "expressions take single values"),
    ("lowr(s)", 0, "UNKNOWN_FUNCTION", "did you mean 'lower'"),
    ("lower(s, s)", 0, "WRONG_ARGUMENTS", "takes 1 argument, not 2"),
    ("concat(s)", 0, "WRONG_ARGUMENTS", "takes 2 or more arguments"),
    ("lower(a)", 6, "TYPE_MISMATCH", "takes string, not i64"),
    ("a + x", 2, "TYPE_MISMATCH", "cast(… as f64)"),
    ("a + 0.5", 2, "TYPE_MISMATCH", "mixes f64 and i64"),
    ("a / 2", 2, "TYPE_MISMATCH", "write // for whole numbers"),
    ("x // 2", 2, "TYPE_MISMATCH", "write floor(a / b)"),
    ("s + s", 2, "TYPE_MISMATCH", "takes numbers, not string"),
    ("t + t", 2, "TYPE_MISMATCH", "takes numbers, not timestamp_us"),
    ("-p", 0, "TYPE_MISMATCH", "takes numbers, not bool"),
    ("p < p", 2, "TYPE_MISMATCH", "does not order bool"),
    ("a and p", 0, "TYPE_MISMATCH", "'and' takes bool, not i64"),
    ("if(a, 1, 2)", 3, "TYPE_MISMATCH", "a condition takes bool"),
    ("if(p, 1, 'b')", 6, "TYPE_MISMATCH", "string is needed here, not a number"),
    ("if(p, x, 'b')", 0, "TYPE_MISMATCH", "the choice mixes f64 and string"),
    ("t = d", 2, "TYPE_MISMATCH", "mixes date and timestamp_us"),
    ("s in ('a', 1)", 11, "TYPE_MISMATCH", "string is needed here, not a number"),
    ("least(s, s)", 0, "TYPE_MISMATCH", "takes numbers, times or dates"),
    ("null", 0, "TYPE_MISMATCH", "cast(null as f64)"),
    ("if(p, null, null)", 0, "TYPE_MISMATCH", "type of null is not known"),
    ("cast(a as f46)", 10, "UNKNOWN_TYPE", "'f46' is no type"),
    ("cast(x as string)", 0, "TYPE_MISMATCH", "f64 does not cast to string; it casts to f32, i32, i64"),
    ("cast(t as i32)", 0, "TYPE_MISMATCH", "does not cast to i32"),
    ("hour(t)", 0, "WRONG_ARGUMENTS", "needs its time zone"),
    ("hour(t, s)", 8, "WRONG_ARGUMENTS", "must be a text literal"),
    ("hour(t, 'Mars/Base')", 8, "UNKNOWN_ZONE", "'Mars/Base' is unknown"),
    ("hour(t, 'America/NewYork')", 8, "UNKNOWN_ZONE", "did you mean 'America/New_York'"),
    ("year(d, 'UTC')", 8, "WRONG_ARGUMENTS", "a date has no time zone"),
    ("hour(d)", 5, "TYPE_MISMATCH", "takes timestamp_us, not date"),
    ("timestamp '2013-01-01T00:00:00'", 10, "NAIVE_TIME", "needs its offset"),
    ("timestamp 'soon'", 10, "SYNTAX", "no timestamp in ISO 8601"),
    ("time 'soon'", 0, "SYNTAX", "no kind of literal"),
    ("a + 9223372036854775808", 4, "OUT_OF_RANGE", "beyond i64"),
    ("y + 9007199254740993", 4, "OUT_OF_RANGE", "not exact as f64"),
]


@pytest.mark.parametrize(("text", "position", "reason", "message"), PROBLEMS, ids=[case[0] for case in PROBLEMS])
def test_an_error_points_at_its_character(text: str, position: int, reason: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        compile_expression(text, COLUMNS)
    error = caught.value
    assert (error.reason, error.metadata["position"]) == (reason, str(position))
    assert message in error.message
    sentence, line, caret = error.message.splitlines()
    assert sentence.endswith(f"at character {position + 1}")
    before = text[:position].split("\n")
    assert error.metadata["line"] == str(len(before))
    assert error.metadata["column"] == str(len(before[-1]) + 1)
    assert line == "  " + text.split("\n")[len(before) - 1]
    assert caret == " " * (2 + len(before[-1])) + "^"


TYPES = [
    ("a + small", "i64"),
    ("small", "i32"),
    ("-small", "i64"),
    ("x * 2 + y", "f64"),
    ("y", "f32"),
    ("if(p, y, 0)", "f32"),
    ("if(p, small, 1)", "i32"),
    ("if(p, small, 3000000000)", "i64"),
    ("coalesce(small, a)", "i64"),
    ("t - t", "i64"),
    ("date(t, 'UTC')", "date"),
    ("cast(epoch_us(t) + 1 as timestamp_us)", "timestamp_us"),
    ("not (a = 1 or s in ('x'))", "bool"),
    ("cast(s as bytes)", "bytes"),
    ("cast(null as i32)", "i32"),
    ("7", "i64"),
    ('"odd name" + 1', "i64"),
]


@pytest.mark.parametrize(("text", "expected"), TYPES)
def test_the_type_follows_the_rules(text: str, expected: str) -> None:
    assert compile_expression(text, COLUMNS).type == parse_type(expected)


CANONICAL = [
    ("a+1*2", "(a + (1 * 2))"),
    ("((a)) == 1", "(a = 1)"),
    ("a <> 1 # note\n", "(a != 1)"),
    ("a not in(1 ,2)", "(not (a in (1, 2)))"),
    ("s is not null", "(not is_null(s))"),
    ("- 5", "-5"),
    ("x > 1.50e0", "(x > 1.5)"),
    ("s = 'it''s'", "(s = 'it\\'s')"),
    ("t > timestamp '2013-01-01T01:00:00+01:00'", "(t > timestamp '2013-01-01T00:00:00Z')"),
    ("case when p then 1 else 2 end", "case when p then 1 else 2 end"),
]


@pytest.mark.parametrize(("text", "expected"), CANONICAL)
def test_the_canonical_text_forgets_how_it_was_written(text: str, expected: str) -> None:
    compiled = compile_expression(text, COLUMNS)
    assert compiled.canonical == expected
    assert compile_expression(compiled.canonical, COLUMNS) == compiled


def test_columns_are_those_used_in_their_order_and_zones_are_told() -> None:
    compiled = compile_expression("x + y * x", COLUMNS)
    assert (compiled.columns, compiled.uses_time_zones) == (("x", "y"), False)
    assert compile_expression("year(t, 'UTC')", COLUMNS).uses_time_zones
    assert column_text("end") == '"end"'


def test_bounds_are_errors_and_not_crashes() -> None:
    with pytest.raises(InvalidArgument, match=f"at most {TEXT_LENGTH_MAX}"):
        compile_expression("a" * (TEXT_LENGTH_MAX + 1), COLUMNS)
    for text in (f"{'-' * 5000}a", "+".join("a" * 5000), f"{'abs(' * 2000}a{')' * 2000}"):
        with pytest.raises(InvalidArgument, match=f"at most {DEPTH_MAX} are allowed"):
            compile_expression(text, COLUMNS)
    compile_expression("(" * 5000 + "a" + ")" * 5000, COLUMNS)
    compile_expression("+".join("a" * DEPTH_MAX), COLUMNS)
    with pytest.raises(InvalidArgument, match="over 1024 instructions"):
        compile_expression(f"a in ({','.join(map(str, range(1000)))})", COLUMNS)
    with pytest.raises(InvalidArgument, match="makes text 40 times"):
        compile_expression(f"concat({','.join(f'substring(s, {i})' for i in range(41))})", COLUMNS)
    wide = {f"c{i}": ValueType(Scalar.I64) for i in range(300)}
    with pytest.raises(InvalidArgument, match="at most 256"):
        compile_expression(f"least({','.join(wide)})", wide)


def test_text_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="surrogate"):
        compile_expression("'\ud800'", COLUMNS)
    with pytest.raises(InvalidArgument, match="an expression is text, not int"):
        compile_expression(3, COLUMNS)  # type: ignore[arg-type]
