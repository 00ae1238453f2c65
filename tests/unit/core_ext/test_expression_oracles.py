"""Expressions against oracles of others: DuckDB for the common language, decimal arithmetic for exp, log and pow."""

import math
from decimal import Decimal, localcontext

import duckdb
import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from core_ext.arrow import arrow_column
from core_ext.expressions import Program
from core_ext.twin import expression_math
from headrace.expressions import compile_expression
from headrace.types import parse_type
from tests.unit.core_ext.test_expressions import array_of

COLUMNS = {name: parse_type(kind) for name, kind in (("a", "i64"), ("b", "i64"), ("x", "f64"), ("s", "string"))}
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "a": st.none() | st.integers(-1000, 1000),
            "b": st.none() | st.integers(-5, 5),
            "x": st.none() | st.floats(-1e6, 1e6) | st.just(math.nan),
            "s": st.none() | st.text("abAB ß", max_size=6),
        }
    ),
    min_size=1,
    max_size=30,
)

# Ours, and theirs where it is written otherwise.
PAIRS = [
    ("a + b * 2 - 7", None),
    ("x * x - 0.5", None),
    ("a < b", None),
    ("x >= 0.0", None),
    ("a = b or x != x", None),
    ("a > 0 and not (b = 1)", None),
    ("a in (1, 2, b)", None),
    ("s is null", None),
    ("coalesce(a, b, 3)", None),
    ("case when a > b then a when b is null then 0 end", None),
    ("if(a > 0, 'yes', s)", "case when a > 0 then 'yes' else s end"),
    ("null_if(a, b)", "nullif(a, b)"),
    ("abs(a)", None),
    ("floor(x) + ceil(x)", None),
    ("round(x)", "round_even(x, 0)"),
    ("length(s)", None),
    ("substring(s, 2, 3)", None),
    ("concat(s, '!', s)", "s || '!' || s"),
    ("starts_with(s, 'a')", None),
    ("ends_with(s, 'b')", "suffix(s, 'b')"),
    ("contains(s, 'ab')", None),
    ("replace(s, 'a', 'xy')", None),
    ("cast(a as f64) / 4.0", "cast(a as double) / 4.0::double"),
    ("if(b = 0, null, cast(floor(cast(a as f64) / cast(b as f64)) as i64))",
     "case when b = 0 then null else cast(floor(a::double / b::double) as bigint) end"),
]  # fmt: skip


@settings(max_examples=30)
@given(ROWS)
def test_the_common_language_agrees_with_duckdb(rows: list[dict[str, object]]) -> None:
    table = pa.table({name: pa.array([row[name] for row in rows], kind.arrow) for name, kind in COLUMNS.items()})
    theirs = duckdb.connect()
    theirs.register("rows", table)
    sql = ", ".join(f"{other or ours} as c{index}" for index, (ours, other) in enumerate(PAIRS))
    expected = theirs.sql(f"select {sql} from rows").to_arrow_table()
    theirs.close()
    for index, (ours, _) in enumerate(PAIRS):
        compiled = compile_expression(ours, COLUMNS)
        program = Program(compiled.program)
        columns = [arrow_column(table[name].combine_chunks()) for name in compiled.columns]
        found = array_of(program.evaluate(columns, len(rows)), program.result_type)
        assert list(map(repr, found)) == list(map(repr, expected[f"c{index}"].to_pylist())), ours


@given(st.floats(-708, 709), st.floats(1e-300, 1e300), st.floats(-20, 20), st.floats(1e-9, 1e9))
def test_exp_log_and_pow_are_the_nearest_double(x: float, y: float, power: float, base: float) -> None:
    with localcontext() as context:
        context.prec = 60
        assert expression_math.exp(x) == float(Decimal(x).exp())
        assert expression_math.log(y) == float(Decimal(y).ln())
        assert expression_math.power(base, power) == float(Decimal(base) ** Decimal(power))


@pytest.mark.parametrize("x", [0.0, -0.0, 1.0, -1.0, 2.0, -3.0, 0.5, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("y", [0.0, 1.0, -1.0, 2.0, 3.0, 0.5, 1e301, -1e301, math.inf, -math.inf, math.nan])
def test_pow_has_the_special_values_of_ieee_754(x: float, y: float) -> None:
    if expression_math.pow_fails(x, y):
        assert (x == 0 and y < 0) or not y.is_integer()  # a division by zero, or no real number
        return
    try:
        expected = math.pow(x, y)
    except OverflowError:
        expected = math.inf
    assert repr(expression_math.power(x, y)) == repr(expected)
