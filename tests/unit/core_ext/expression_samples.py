"""Random well-typed expressions, and columns that hold what breaks arithmetic."""

import math
from typing import Any

import hypothesis.strategies as st

from headrace.types import Scalar, ValueType

I64_EDGES = [0, 1, -1, 2, 7, -(2**63), 2**63 - 1, 2**62, 10**15, -1_000_000_007]
FLOAT_EDGES = [0.0, -0.0, 1.0, -1.5, 2.5, math.nan, math.inf, -math.inf, 1e300, 5e-324, 2.0**53, 0.1, -3.0]
TEXT_EDGES = ["", "a", "Ab ", " 12", "12", "-7.5e2", "ß€𝄞", "x" * 9, "true", "İa"]
TIME_EDGES = [0, -1, 1_362_898_800_000_000, 1_383_458_400_000_000, 7_258_118_400_000_000, 2**63 - 1, -(2**63)]

COLUMNS = {
    "flag": ValueType(Scalar.BOOL),
    "small": ValueType(Scalar.I32),
    "whole": ValueType(Scalar.I64),
    "single": ValueType(Scalar.F32),
    "number": ValueType(Scalar.F64),
    "text": ValueType(Scalar.STRING),
    "raw": ValueType(Scalar.BYTES),
    "time": ValueType(Scalar.TIMESTAMP_US),
    "day": ValueType(Scalar.DATE),
}
F32 = st.floats(width=32) | st.sampled_from([value for value in FLOAT_EDGES if value not in (1e300, 5e-324, 0.1)])
I64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(I64_EDGES)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "flag": st.booleans(),
    "small": st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 3),
    "whole": I64,
    "single": F32,
    "number": st.floats() | st.sampled_from(FLOAT_EDGES),
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(TEXT_EDGES),
    "raw": st.binary(max_size=5),
    "time": st.integers(-(10**16), 10**16) | st.sampled_from(TIME_EDGES),
    "day": st.integers(-(2**31), 2**31 - 1) | st.integers(-40_000, 40_000),
}
ZONES = ["America/New_York", "Europe/Berlin", "UTC", "Africa/Casablanca", "Asia/Kathmandu"]

ROWS = st.lists(st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()}), max_size=40)


def _grow(leaf: dict[str, st.SearchStrategy[str]]) -> dict[str, st.SearchStrategy[str]]:
    """One more level over expressions by type: i (i64), f (f64), b, s, t (timestamp), d (date)."""
    i, f, b, s, t, d = (leaf[kind] for kind in "ifbstd")

    def join(pattern: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.tuples(*parts).map(lambda values: pattern.format(*values))

    zone = st.sampled_from(ZONES)
    zoned = st.sampled_from(["year", "month", "day", "hour", "minute", "second", "day_of_week"])
    of_date = st.sampled_from(["year", "month", "day", "day_of_week"])
    compare = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
    any_type = [i, f, s, t, d]

    def choices(part: st.SearchStrategy[str]) -> list[st.SearchStrategy[str]]:
        return [
            join("if({}, {}, {})", b, part, part),
            join("coalesce({}, {}, {})", part, part, part),
            join("null_if({}, {})", part, part),
            join("case when {} then {} when {} then {} end", b, part, b, part),
        ]

    return {
        "i": st.one_of(
            i,
            *choices(i),
            join("({} {} {})", i, st.sampled_from(["+", "-", "*", "//", "%"]), i),
            join("(-{})", i),
            join("abs({})", i),
            join("least({}, {})", i, i),
            join("clamp({}, {}, {})", i, i, i),
            join("length({})", s),
            join("cast({} as i64)", st.one_of(f, b, s, t, d)),
            join("cast({} as i32)", st.one_of(i, f, s)),
            join("{}({}, '{}')", zoned, t, zone),
            join("{}({})", of_date, d),
            join("({} - {})", t, t),
            join("epoch_us({})", t),
        ),
        "f": st.one_of(
            f,
            *choices(f),
            join("({} {} {})", f, st.sampled_from(["+", "-", "*", "/", "%"]), f),
            join("{}({})", st.sampled_from(["abs", "floor", "ceil", "round", "sqrt", "exp", "log", "-"]), f),
            join("pow({}, {})", f, f),
            join("greatest({}, {})", f, f),
            join("cast({} as {})", st.one_of(i, s), st.sampled_from(["f64", "f32"])),
            join("cast({} as f32)", f),
        ),
        "b": st.one_of(
            b,
            *choices(b),
            join("({} {} {})", b, st.sampled_from(["and", "or", "=", "!="]), b),
            join("(not {})", b),
            *(join("({} {} {})", part, compare, part) for part in any_type),
            *(join("({} in ({}, {}))", part, part, part) for part in any_type),
            *(join("is_null({})", part) for part in any_type),
            join("{}({}, {})", st.sampled_from(["starts_with", "ends_with", "contains"]), s, s),
        ),
        "s": st.one_of(
            s,
            *choices(s),
            join("{}({})", st.sampled_from(["lower", "upper", "trim"]), s),
            join("concat({}, {})", s, s),
            join("substring({}, {}, {})", s, i, i),
            join("replace({}, {}, {})", s, s, s),
            join("cast({} as string)", st.one_of(i, b, st.just("raw"))),
        ),
        "t": st.one_of(t, *choices(t), join("cast({} as timestamp_us)", i)),
        "d": st.one_of(d, *choices(d), join("date({}, '{}')", t, zone), join("cast({} as date)", i)),
    }


def _expressions() -> st.SearchStrategy[str]:
    texts = st.sampled_from(["'a'", "''", "'12'", "'ß'", "' x\\n'", "'it''s'"])
    kinds: dict[str, st.SearchStrategy[str]] = {
        "i": st.sampled_from(["whole", "small", "0", "3", "-1", "9223372036854775807", "cast(null as i64)"]),
        "f": st.sampled_from(["number", "single", "0.5", "1e308", "-0.0", "cast(null as f64)"]),
        "b": st.sampled_from(["flag", "true", "false", "cast(null as bool)"]),
        "s": st.sampled_from(["text", "text"]) | texts,
        "t": st.sampled_from(["time", "timestamp '2013-03-10T01:59:59-05:00'"]),
        "d": st.sampled_from(["day", "date '2012-02-29'"]),
    }
    for _ in range(3):
        kinds = _grow(kinds)
    return st.one_of(*kinds.values(), st.just("raw"), st.just("raw = cast(text as bytes)"))


EXPRESSIONS = _expressions()
