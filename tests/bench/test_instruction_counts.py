"""The gate of instruction_counts.py holds, and can fail."""

import platform

import pytest

from tests.bench import instruction_counts as gate
from tests.bench.instruction_cases import CASES

DUMP = """\
ob=/usr/lib/libc.so.6
fn=memcpy
10 1000
ob={root}/core_ext/request_core.so
fl=hr_answer.h
fn=hr_write_answer
20 7
21 5
cob=/usr/lib/libc.so.6
cfn=memcpy
calls=3 10
21 900
fn=hr_call_begin
0 30
ob={root}/core_ext/row_table.so
4 2
ob=/usr/lib/libpython3.so
8 90000
"""


@pytest.fixture(scope="module", autouse=True)
def comparable() -> None:
    if platform.machine() != "x86_64":
        pytest.skip(f"valgrind counts other instructions on {platform.machine()}; the counts held are of x86_64")
    if differences := gate.left_out():
        pytest.skip(f"another toolchain makes other code: {differences}")


def test_no_read_grew_without_a_note() -> None:
    found = gate.counts()
    grown = gate.growths(found, gate.baseline()["counts"])
    record = 'make it cheaper, or hold the new counts by python -m tests.bench.instruction_counts --record "why"'
    assert grown == {}, f"instructions grew by more than {gate.GROWTH_MAX:.0%} ({found}): {record}"


def test_work_that_is_done_twice_is_seen() -> None:
    grown = gate.growths(gate.counts(extra=1), gate.baseline()["counts"])
    assert set(grown) == {case.name for case in CASES}, "one request of twenty is served twice"


def test_only_costs_of_our_own_functions_count() -> None:
    assert sum(gate.own_costs(DUMP.format(root=gate.ROOT))) == 7 + 5 + 30 + 2


def test_every_entry_has_its_note_and_counts_of_every_case() -> None:
    for entry in gate.entries():
        assert len(entry["note"].split()) >= 3
        assert set(entry["counts"]) <= {case.name for case in CASES}
    assert set(gate.baseline()["counts"]) == {case.name for case in CASES}


def test_growth_within_the_limit_and_shrinking_pass() -> None:
    held = {"a": 1_000, "b": 1_000, "c": 1_000}
    assert gate.growths({"a": 1_030, "b": 1_031, "c": 10}, held) == {"b": 0.031}


def test_calls_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(SystemExit, match="callgrind saw 3 calls"):
        gate.by_case([1, 2, 3], 0)
