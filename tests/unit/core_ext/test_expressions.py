"""Compiled expressions: core against twin, by columns, chunks and rows."""

import math
import struct
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings

from core_ext.arrow import arrow_column
from core_ext.expressions import CorruptProgramError, Evaluation, Faults, Program
from core_ext.twin import expressions as twin
from headrace.expressions import CompiledExpression, compile_expression
from headrace.types import Scalar
from tests.unit.core_ext.expression_samples import COLUMNS, EXPRESSIONS, ROWS

NO_FAULTS = (0, 0, 0, 0, 0, 0)
INF, NAN = math.inf, math.nan


def bits(value: Any) -> Any:
    """The value with its type and exact bits."""
    return struct.pack("<d", value) if isinstance(value, float) else (type(value).__name__, value)


def column(name: str, rows: Sequence[dict[str, Any]]) -> pa.Array:
    kind = COLUMNS[name]
    plain = {Scalar.TIMESTAMP_US: pa.int64(), Scalar.DATE: pa.int32()}.get(kind.scalar, kind.arrow)
    return (
        pa.array([row[name] for row in rows], plain).cast(kind.arrow)
        if plain != kind.arrow
        else pa.array([row[name] for row in rows], plain)
    )


def array_of(evaluation: Evaluation, scalar: int) -> list[Any]:
    """Plain values of a result column; times in microseconds, dates in days."""
    found = evaluation.column
    plain = {Scalar.TIMESTAMP_US: pa.int64(), Scalar.DATE: pa.int32()}
    kind = plain.get(Scalar(scalar)) or next(type_.arrow for type_ in COLUMNS.values() if type_.scalar == scalar)
    buffers = [found.validity, found.values] if found.offsets is None else [found.validity, found.offsets, found.values]
    held = [None if buffer is None else pa.py_buffer(buffer) for buffer in buffers]
    array = pa.Array.from_buffers(kind, found.length, held, evaluation.null_count)
    array.validate(full=True)
    return list(array.to_pylist())


def evaluate(compiled: CompiledExpression, rows: Sequence[dict[str, Any]]) -> tuple[list[Any], tuple[int, ...]]:
    program = Program(compiled.program)
    columns = [arrow_column(column(name, rows)) for name in compiled.columns]
    evaluation = program.evaluate(columns, len(rows))
    return array_of(evaluation, program.result_type), tuple(evaluation.faults)


@settings(max_examples=400)
@given(EXPRESSIONS, ROWS)
def test_core_and_twin_agree_by_columns_chunks_and_rows(text: str, rows: list[dict[str, Any]]) -> None:
    compiled = compile_expression(text, COLUMNS)
    plain, program = twin.Program(compiled.program), Program(compiled.program)
    inputs = [[row[name] for name in compiled.columns] for row in rows]
    expected = [plain.evaluate_row(values) for values in inputs]
    values, faults = evaluate(compiled, rows)
    assert list(map(bits, values)) == [bits(value) for value, _ in expected]
    assert faults == tuple(map(sum, zip(NO_FAULTS, *(found for _, found in expected), strict=True)))
    assert [(bits(value), tuple(found)) for value, found in map(program.evaluate_row, inputs)] == [
        (bits(value), found) for value, found in expected
    ]
    chunked = [evaluate(compiled, rows[start : start + 7]) for start in range(0, len(rows), 7)]
    assert list(map(bits, values)) == [bits(value) for part, _ in chunked for value in part]


@given(EXPRESSIONS)
def test_the_canonical_text_is_a_fixed_point_with_an_equal_program(text: str) -> None:
    compiled = compile_expression(text, COLUMNS)
    again = compile_expression(compiled.canonical, COLUMNS)
    assert again == compiled
    spaced = compile_expression(f"# first\n(\t({text})) # last", COLUMNS)
    assert spaced == compiled


def test_a_nan_of_any_form_leaves_as_the_one_nan() -> None:
    other = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
    for text in ("number", "if(flag, number, number)", "coalesce(number, 1.0)"):
        compiled = compile_expression(text, COLUMNS)
        rows = [{"flag": None, "number": other}]
        inputs = [rows[0][name] for name in compiled.columns]
        found = [*evaluate(compiled, rows)[0], Program(compiled.program).evaluate_row(inputs)[0]]
        found.append(twin.Program(compiled.program).evaluate_row(inputs)[0])
        assert list(map(bits, found)) == [bits(NAN)] * 3


def test_blocks_and_slices_do_not_show() -> None:
    rows = [{"whole": i if i % 7 else None, "text": "ab" * (i % 5)} for i in range(3000)]
    for text in ("whole * 3 - 1", "concat(text, cast(whole as string))", "text = 'abab'"):
        compiled = compile_expression(text, COLUMNS)
        program = Program(compiled.program)
        arrays = [column(name, rows) for name in compiled.columns]
        whole = array_of(program.evaluate(list(map(arrow_column, arrays)), 3000), program.result_type)
        sliced = [arrow_column(array.slice(1001, 999)) for array in arrays]
        assert array_of(program.evaluate(sliced, 999), program.result_type) == whole[1001:2000]


CASES: list[tuple[str, dict[str, Any], Any, dict[str, int]]] = [
    ("whole + 1", {"whole": 2**63 - 1}, None, {"overflow": 1}),
    ("abs(whole)", {"whole": -(2**63)}, None, {"overflow": 1}),
    ("whole // 2", {"whole": -7}, -4, {}),
    ("whole % 3", {"whole": -7}, 2, {}),
    ("whole // 0", {"whole": 1}, None, {"zero_division": 1}),
    ("whole // -1", {"whole": -(2**63)}, None, {"overflow": 1}),
    ("number / 0.0", {"number": 1.0}, None, {"zero_division": 1}),
    ("if(whole = 0, 0, 10 // whole)", {"whole": 0}, 0, {}),
    ("coalesce(whole, 1 // 0)", {"whole": 5}, 5, {}),
    ("coalesce(whole, 1 // 0)", {"whole": None}, None, {"zero_division": 1}),
    ("case when whole = 1 then 1 when whole = 2 then 1 // 0 else 3 // 0 end", {"whole": 2}, None, {"zero_division": 1}),
    ("is_null(1 // 0)", {}, True, {"zero_division": 1}),
    ("number = cast('nan' as f64)", {"number": NAN}, None, {"cast": 1}),
    ("number = number", {"number": NAN}, True, {}),
    ("number > 1e308", {"number": NAN}, True, {}),
    ("least(number, 1.0)", {"number": NAN}, 1.0, {}),
    ("greatest(number, single)", {"number": NAN, "single": INF}, NAN, {}),
    ("least(0.0, number)", {"number": -0.0}, 0.0, {}),
    ("null and flag", {"flag": False}, False, {}),
    ("null or flag", {"flag": False}, None, {}),
    ("whole in (1, null, 3)", {"whole": 3}, True, {}),
    ("whole not in (1, null)", {"whole": 3}, None, {}),
    ("round(number)", {"number": 2.5}, 2.0, {}),
    ("round(number)", {"number": -0.4}, -0.0, {}),
    ("sqrt(number)", {"number": -1.0}, None, {"domain": 1}),
    ("log(number)", {"number": 0.0}, None, {"domain": 1}),
    ("pow(number, 0.5)", {"number": -8.0}, None, {"domain": 1}),
    ("pow(2, 10)", {}, 1024.0, {}),
    ("exp(number)", {"number": 1000.0}, INF, {}),
    ("cast(number as i64)", {"number": -2.9}, -2, {}),
    ("cast(number as i64)", {"number": NAN}, None, {"cast": 1}),
    ("cast(number as i64)", {"number": -(2.0**63)}, -(2**63), {}),
    ("cast(number as i64)", {"number": 2.0**63}, None, {"cast": 1}),
    ("cast(number as f32)", {"number": 1e39}, None, {"cast": 1}),
    ("cast(whole as i32)", {"whole": 2**31}, None, {"cast": 1}),
    ("cast(text as i64)", {"text": "9223372036854775808"}, None, {"cast": 1}),
    ("cast(text as f64)", {"text": "1e999"}, None, {"cast": 1}),
    ("cast(text as f64)", {"text": "0.1"}, 0.1, {}),
    ("cast(raw as string)", {"raw": b"\xff"}, None, {"cast": 1}),
    ("lower(text)", {"text": "ÄB"}, "Äb", {}),
    ("length(text)", {"text": "ß€𝄞"}, 3, {}),
    ("substring(text, 2)", {"text": "ß€𝄞"}, "€𝄞", {}),
    ("substring(text, 0, 2)", {"text": "abc"}, "a", {}),
    ("replace(text, 'aa', 'b')", {"text": "aaa"}, "ba", {}),
    ("hour(time, 'America/New_York')", {"time": 1_362_898_799_999_999}, 1, {}),
    ("hour(time, 'America/New_York')", {"time": 1_362_898_800_000_000}, 3, {}),
    ("day_of_week(day)", {"day": 0}, 4, {}),
    ("year(time, 'Europe/Berlin')", {"time": 7_258_118_400_000_000}, None, {"time": 1}),
    ("year(day)", {"day": -(2**31)}, None, {"time": 1}),
    ("date(time, 'Asia/Tokyo')", {"time": 0}, 0, {}),
    ("number is not null", {"number": None}, False, {}),
]


@pytest.mark.parametrize(("text", "row", "value", "faults"), CASES, ids=[f"{case[0]}:{case[1]}" for case in CASES])
def test_values_follow_the_table(text: str, row: dict[str, Any], value: Any, faults: dict[str, int]) -> None:
    compiled = compile_expression(text, COLUMNS)
    found, counted = evaluate(compiled, [row])
    assert list(map(bits, found)) == [bits(value)]
    assert counted == tuple(Faults(*NO_FAULTS)._replace(**faults))


def test_a_text_longer_than_the_bound_becomes_null() -> None:
    rows = [{"text": "x" * 32_768}, {"text": "x" * 32_769}]
    values, faults = evaluate(compile_expression("length(concat(text, text))", COLUMNS), rows)
    assert values == [65_536, None]
    assert faults == (0, 0, 0, 0, 0, 1)


def test_columns_of_another_length_or_broken_are_refused() -> None:
    program = Program(compile_expression("whole + 1", COLUMNS).program)
    good = arrow_column(pa.array([1, 2, 3]))
    with pytest.raises(ValueError, match="column 0: holds another number of values"):
        program.evaluate([good], 2)
    with pytest.raises(ValueError, match="column 0: has a values buffer that is too short"):
        program.evaluate([good._replace(values=b"1234")], 3)
    with pytest.raises(ValueError, match="0 columns are given for the 1 inputs"):
        program.evaluate([], 3)
    with pytest.raises(ValueError, match="row count -1"):
        program.evaluate([good], -1)
    with pytest.raises(OverflowError):
        program.evaluate_row([2**64])
    with pytest.raises(TypeError):
        program.evaluate_row(["1"])


def test_a_damaged_program_is_refused() -> None:
    program = compile_expression("whole + 1", COLUMNS).program
    for index in range(len(program)):
        with pytest.raises(CorruptProgramError):
            Program(program[:index] + bytes([program[index] ^ 1]) + program[index + 1 :])
    with pytest.raises(CorruptProgramError, match="too short"):
        Program(b"")
