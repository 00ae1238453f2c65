"""Damaged programs under a right checksum: refused as by the twin, or run with the twin's results."""

from typing import Any

import pytest

from core_ext import expressions
from core_ext.twin import expressions as twin
from core_ext.twin.hashing import with_checksum
from headrace.expressions import compile_expression
from tests.fuzz.mutations import mutations
from tests.unit.core_ext.expression_samples import COLUMNS

TEXTS = [
    "whole * 2 + small",
    "if(whole > 3, number / 0.5, cast(text as f64))",
    "concat(upper(text), replace(text, 'a', 'bcd'), cast(whole as string))",
    "hour(time, 'America/New_York') + day(day)",
    "case when flag then least(number, 1.0) when raw = cast(text as bytes) then log(number) end",
    "substring(trim(text), small, 2) in ('a', 'b')",
]
CORPUS = [compile_expression(text, COLUMNS).program for text in TEXTS]
VALUES = {1: True, 2: -7, 3: 2**62, 4: 0.5, 5: -2.25, 6: " aßb", 7: b"\xff", 8: 10**15, 9: 15_000}
PASSED_MIN = 0.005  # share of inputs that must run, else the fuzz stops at the door


def outcome(module: Any, source: bytes) -> tuple[str, str | None]:
    try:
        program = module.Program(source)
    except module.CorruptProgramError:
        return "corrupt", None
    value, faults = program.evaluate_row([VALUES[kind] for kind in program.input_types])
    return repr(value), repr(tuple(faults))


@pytest.mark.parametrize("count", [15_000, pytest.param(500_000, marks=pytest.mark.slow)])
def test_core_and_twin_agree_on_damaged_programs(seed: int, count: int) -> None:
    passed = 0
    for index, data in mutations([source[:-4] for source in CORPUS], seed, count):
        body = bytearray(data.ljust(24, b"\0"))
        if len(data) % 5:
            body[:8] = CORPUS[index][:8]
            body[8:12] = (len(body) + 4).to_bytes(4, "little")
        source = with_checksum(bytes(body))
        found = outcome(expressions, source)
        assert found == outcome(twin, source), source.hex()
        passed += found[1] is not None
    assert passed > PASSED_MIN * count
