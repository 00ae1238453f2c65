"""On-demand features in the request core: what the twin computes, byte for byte, and the rules for their statuses."""

import random
import resource
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import core_ext
from core_ext import rules
from core_ext.expressions import Program
from core_ext.on_demand import FROM_FEATURE, FROM_PROGRAM, FROM_REQUEST, OnDemand
from core_ext.request_core import ON_DEMAND, Misses, Overlay, Plan, Refused, RequestCore
from core_ext.row_codec import Schema
from core_ext.row_table import RowTable
from core_ext.twin import request_core as twin
from core_ext.twin.requests import Refusal
from headrace.expressions import compile_expression
from headrace.types import Scalar, ValueType
from protos.feature.v1.online_feature_service_pb2 import (
    EntityColumn,
    FeatureColumn,
    GetOnlineFeaturesRequest,
    GetOnlineFeaturesResponse,
    ReadOptions,
    RequestColumn,
)
from tests.unit.core_ext.on_demand_plans import on_demand_cases
from tests.unit.core_ext.request_plans import READ_TIME_US, SHARD_COUNT, Case
from tests.unit.core_ext.request_samples import (
    BOOL,
    F64,
    I64,
    SINGLE,
    STRING,
    pack_row,
    pack_tombstone,
    request_bytes,
    scrambled_request,
    storage_key,
)

FEW_ROWS = st.sampled_from([1, 2, 3, 31, 32, 33, 64, 65, 130])
RELAXED = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def served(case: Case, request: bytes, share: float) -> bytes | tuple[str, str]:
    """The answer, or reason and field of the refusal."""
    table, overlay = case.loaded(share)
    try:
        found = RequestCore(table, SHARD_COUNT).serve(request, READ_TIME_US, case.core_plan(), overlay)
    except Refused as refused:
        return refused.reason, refused.field
    assert isinstance(found, bytes)
    return found


def expected(case: Case, request: bytes) -> bytes | tuple[str, str]:
    try:
        return twin.serve(request, case.plan, case.rows, READ_TIME_US)
    except Refusal as refused:
        return refused.reason, refused.field


@RELAXED
@given(on_demand_cases(FEW_ROWS), st.sampled_from([0.0, 0.5, 1.0]))
def test_answers_equal_the_twins(case: Case, share: float) -> None:
    request = request_bytes(case.sample)
    assert served(case, request, share) == expected(case, request)


@settings(RELAXED, max_examples=8)
@given(on_demand_cases(st.just(4_000)), st.sampled_from([0.0, 0.5, 1.0]))
def test_answers_of_reads_that_give_up_the_interpreter_equal_the_twins(case: Case, share: float) -> None:
    request = request_bytes(case.sample)
    assert served(case, request, share) == expected(case, request)


@settings(RELAXED, max_examples=40)
@given(on_demand_cases(FEW_ROWS), st.integers(0, 2**32))
def test_any_encoding_of_a_request_gets_the_same_answer(case: Case, order: int) -> None:
    request = scrambled_request(random.Random(order), case.sample)
    assert served(case, request, 0.5) == served(case, request_bytes(case.sample), 1.0)


@settings(RELAXED, max_examples=200)
@given(on_demand_cases(st.sampled_from([1, 3])), st.integers(0, 2**32))
def test_a_damaged_request_is_refused_or_answered_as_by_the_twin(case: Case, seed: int) -> None:
    rng = random.Random(seed)
    data = [bytearray(column) for column in case.sample.data]
    for column in data[:2]:
        for _ in range(rng.randint(0, 3)):
            column[rng.randrange(len(column))] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF])
    kept = [bytes(column) for column in data if rng.random() < 0.9]
    request = request_bytes(replace(case.sample, data=kept + kept[:1] * (rng.random() < 0.2)))
    assert served(case, request, 0.5) == expected(case, request)


# ---- the rules, by hand ----

SCHEMA = Schema(9, [(F64, SINGLE, 0)])
KEY = storage_key(1, [(I64, 7)], 5)
TYPES = {"stored": ValueType(Scalar.F64), "asked": ValueType(Scalar.F64)}
OLD_US = READ_TIME_US - 1_000


def program(text: str, default: float | None = None, fallback: int = rules.FALLBACK_NONE) -> tuple[object, ...]:
    compiled = compile_expression(text, TYPES)
    sources = [(FROM_FEATURE, 0) if name == "stored" else (FROM_REQUEST, 0) for name in compiled.columns]
    return Program(compiled.program), sources, None if default is None else struct.pack("<d", default), fallback


def plan_of(*programs: tuple[object, ...], ttl_us: int = 0, stale_us: int = 0, fallback: int = 1) -> Plan:
    on_demand = OnDemand([("asked", F64)], programs)  # type: ignore[arg-type]  # as `program` makes them
    groups = [(0, 5, SCHEMA, ttl_us, stale_us, fallback, None)]
    columns = [(f"c{at}", ON_DEMAND, at, None) for at in range(len(programs))]
    return Plan(bytes(32), 1, [("user", I64)], [(1, [0])], groups, columns, [(0, 0, None)], on_demand)


def request(values: Sequence[float] = (2.0,), *, include_expired: bool = False, has_times: bool = True) -> bytes:
    asked = RequestColumn(name="asked", values=struct.pack(f"<{len(values)}d", *values))
    asked.value_type.scalar_type = F64  # type: ignore[assignment]  # the number of SCALAR_TYPE_F64
    return GetOnlineFeaturesRequest(
        feature_service="a.b.c",
        entity_columns=[EntityColumn(join_key="user", int64_values=[7] * len(values))],
        request_columns=[asked],
        options=ReadOptions(include_event_times=has_times, include_expired=include_expired),
    ).SerializeToString()


def row(value: float | None, event_time_us: int = OLD_US) -> bytes:
    return pack_row(9, [(F64, SINGLE, 0)], [None if value is None else struct.pack("<d", value)], event_time_us)


def read(plan: Plan, stored: bytes | int | None, data: bytes | None = None) -> FeatureColumn:
    overlay = Overlay()
    if isinstance(stored, int):
        overlay.add_unavailable([KEY], stored)
    else:
        overlay.add([KEY], [stored])
    answer = RequestCore(RowTable(1 << 18), 8).serve(request() if data is None else data, READ_TIME_US, plan, overlay)
    assert isinstance(answer, bytes)
    return GetOnlineFeaturesResponse.FromString(answer).columns[-1]


def shown(column: FeatureColumn) -> tuple[float, int]:
    (value,) = struct.unpack("<d", column.values)
    return value, column.statuses[0]


STATES: dict[str, tuple[bytes | int | None, dict[str, int], str, tuple[float, int]]] = {
    "present": (row(3.0), {}, "stored * asked", (6.0, rules.PRESENT)),
    "null": (row(None), {}, "stored * asked", (0.0, rules.NULL)),
    "missing": (None, {}, "stored * asked", (0.0, rules.MISSING)),
    "missing is told though null is handled": (None, {}, "coalesce(stored, asked)", (2.0, rules.PRESENT)),
    "erased": (pack_tombstone(9, OLD_US), {}, "stored * asked", (0.0, rules.MISSING | rules.CAUSE_ERASED)),
    "expired": (row(3.0), {"ttl_us": 1}, "stored * asked", (0.0, rules.EXPIRED | rules.WITHHELD)),
    "expired and served": (row(3.0), {"ttl_us": 1, "fallback": 3}, "stored * asked", (6.0, rules.PRESENT)),
    "stale": (row(3.0), {"stale_us": 1}, "stored * asked", (6.0, rules.PRESENT | rules.STALE)),
    "unavailable": (
        rules.CAUSE_DEADLINE,
        {},
        "coalesce(stored, asked)",
        (0.0, rules.UNAVAILABLE | rules.CAUSE_DEADLINE),
    ),
    "not read": (rules.CAUSE_DEADLINE, {}, "asked + 1.0", (3.0, rules.PRESENT)),
    "no reason but the expression": (row(3.0), {}, "stored / (asked - 2.0)", (0.0, rules.NULL)),
}


@pytest.mark.parametrize("case", STATES)
def test_status_of_a_computed_value(case: str) -> None:
    stored, limits, text, wanted = STATES[case]
    assert shown(read(plan_of(program(text), **limits), stored)) == wanted


def test_a_default_stands_in_for_a_result_that_is_not_there() -> None:
    plan = plan_of(program("stored * asked", 9.0, rules.FALLBACK_DEFAULT))
    assert shown(read(plan, None)) == (9.0, rules.MISSING | rules.DEFAULTED)
    assert shown(read(plan, rules.CAUSE_DEADLINE)) == (9.0, rules.UNAVAILABLE | rules.CAUSE_DEADLINE | rules.DEFAULTED)
    assert shown(read(plan, row(3.0))) == (6.0, rules.PRESENT)


def test_an_expired_input_is_not_read_because_the_caller_asks_for_expired_values() -> None:
    plan = plan_of(program("stored * asked"), ttl_us=1)
    column = read(plan, row(3.0), request(include_expired=True))
    assert shown(column) == (0.0, rules.EXPIRED | rules.WITHHELD)


def test_a_program_reads_the_result_before_it_with_its_default() -> None:
    first = program("stored * asked", 9.0, rules.FALLBACK_DEFAULT)
    second = (program("stored + 1.0")[0], [(FROM_PROGRAM, 0)], None, rules.FALLBACK_NONE)
    assert shown(read(plan_of(first, second), row(3.0))) == (7.0, rules.PRESENT)
    assert shown(read(plan_of(first, second), None)) == (10.0, rules.PRESENT)


def test_event_time_is_that_of_the_newest_row() -> None:
    column = read(plan_of(program("stored * asked")), row(3.0))
    assert struct.unpack("<q", column.event_times) == (OLD_US,)
    assert struct.unpack("<q", read(plan_of(program("asked + 1.0")), row(3.0)).event_times) == (0,)


def test_rows_of_on_demand_inputs_are_fetched_before_the_answer() -> None:
    found = RequestCore(RowTable(1 << 18), 8).serve(request(), READ_TIME_US, plan_of(program("stored * asked")))
    assert isinstance(found, Misses) and found.storage_keys == [KEY]


# ---- refusals ----


def wrong(**changed: object) -> bytes:
    """The request with its data column changed."""
    parsed = GetOnlineFeaturesRequest.FromString(request())
    column = parsed.request_columns[0]
    for name, value in changed.items():
        if name == "value_type":
            column.value_type.scalar_type = value  # type: ignore[assignment]
        elif name == "null_rows":
            column.null_rows.extend(value)  # type: ignore[arg-type]
        else:
            setattr(column, name, value)
    return parsed.SerializeToString()


def twice() -> bytes:
    parsed = GetOnlineFeaturesRequest.FromString(request())
    parsed.request_columns.append(parsed.request_columns[0])
    return parsed.SerializeToString()


def without() -> bytes:
    parsed = GetOnlineFeaturesRequest.FromString(request())
    del parsed.request_columns[:]
    return parsed.SerializeToString()


def too_many() -> bytes:
    parsed = GetOnlineFeaturesRequest.FromString(request())
    parsed.request_columns.extend([parsed.request_columns[0]] * 256)
    return parsed.SerializeToString()


def texts(scalar: int, values: bytes, offsets: Sequence[int] = ()) -> bytes:
    """A request whose column is of another type than F64."""
    parsed = GetOnlineFeaturesRequest.FromString(request())
    column = parsed.request_columns[0]
    column.value_type.scalar_type = scalar  # type: ignore[assignment]
    column.values, column.offsets = values, struct.pack(f"<{len(offsets)}I", *offsets)
    return parsed.SerializeToString()


LENGTH, VALUE = "REQUEST_LENGTH_MISMATCH", "REQUEST_VALUE_INVALID"
REFUSALS = {
    "unknown": (wrong(name="other"), "MISSING_REQUEST_FIELD", "request_columns", "'asked' of type F64: add"),
    "missing": (without(), "MISSING_REQUEST_FIELD", "request_columns", "'asked' of type F64: add that request column"),
    "twice": (twice(), "DUPLICATE_REQUEST_COLUMN", "request_columns[1].name", "'asked' is sent twice"),
    "too many": (too_many(), "TOO_MANY_REQUEST_COLUMNS", "request_columns", "more than 256"),
    "another type": (wrong(value_type=I64), "WRONG_REQUEST_TYPE", "request_columns[0].value_type", "of type F64"),
    "too few": (wrong(values=b""), LENGTH, "request_columns[0].values", "one F64 for each of 1 rows"),
    "offsets": (wrong(offsets=bytes(8)), LENGTH, "request_columns[0].values", "one F64"),
    "offsets of texts": (texts(STRING, b"ab", [0, 1]), LENGTH, "request_columns[0].offsets", "send 1 + 1"),
    "offsets that run back": (texts(STRING, b"ab", [2, 0]), LENGTH, "request_columns[0].offsets", "0"),
    "no offsets": (texts(STRING, b"ab"), LENGTH, "request_columns[0].offsets", "send 1 + 1, from 0"),
    "no text": (texts(STRING, b"\xff", [0, 1]), VALUE, "request_columns[0].values", "no STRING at row 0"),
    "no bool": (texts(BOOL, b"\x02"), VALUE, "request_columns[0].values", "no BOOL at row 0"),
    "null rows": (wrong(null_rows=[1]), "BAD_NULL_ROWS", "request_columns[0].null_rows", "; 1 does not"),
}


def asking(scalar: int) -> Plan:
    """A plan whose request field is of a type."""
    types = {"stored": ValueType(Scalar.F64), "asked": ValueType(Scalar(scalar))}
    compiled = compile_expression("if(is_null(asked), 0.0, stored)", types)
    sources = [(FROM_FEATURE, 0) if name == "stored" else (FROM_REQUEST, 0) for name in compiled.columns]
    on_demand = OnDemand([("asked", scalar)], [(Program(compiled.program), sources, None, rules.FALLBACK_NONE)])
    groups = [(0, 5, SCHEMA, 0, 0, 1, None)]
    columns = [("c", ON_DEMAND, 0, None)]
    return Plan(bytes(32), 1, [("user", I64)], [(1, [0])], groups, columns, [(0, 0, None)], on_demand)


@pytest.mark.parametrize("case", REFUSALS)
def test_a_wrong_request_column_is_refused(case: str) -> None:
    data, reason, field, sentence = REFUSALS[case]
    kind = GetOnlineFeaturesRequest.FromString(data).request_columns[:1]
    scalar = kind[0].value_type.scalar_type if kind and kind[0].value_type.scalar_type in (STRING, BOOL) else F64
    with pytest.raises(Refused) as caught:
        read(asking(scalar), row(1.0), data)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert sentence in caught.value.message


def test_texts_that_outgrow_an_answer_are_refused_before_they_are_all_kept() -> None:
    text, rows = b"x" * (1 << 16), 1_025
    offsets = struct.pack(f"<{rows + 1}I", *range(0, (rows + 1) << 16, 1 << 16))
    asked = RequestColumn(name="asked", values=text * rows, offsets=offsets)
    asked.value_type.scalar_type = STRING  # type: ignore[assignment]  # the number of SCALAR_TYPE_STRING
    data = GetOnlineFeaturesRequest(
        feature_service="a.b.c",
        entity_columns=[EntityColumn(join_key="user", int64_values=[7] * rows)],
        request_columns=[asked],
    ).SerializeToString()
    compiled = compile_expression("asked", {"asked": ValueType(Scalar.STRING)})
    on_demand = OnDemand([("asked", STRING)], [(Program(compiled.program), [(FROM_REQUEST, 0)], None, 1)])
    plan = Plan(bytes(32), 1, [("user", I64)], [(1, [0])], [], [("c", ON_DEMAND, 0, None)], [], on_demand)
    with pytest.raises(Refused, match="over 67174400 bytes: at most 67108864"):
        RequestCore(RowTable(1 << 18), 8).serve(data, READ_TIME_US, plan)


@pytest.mark.parametrize(
    ("fields", "sources", "default"),
    [
        ([], [(FROM_REQUEST, 0)], None),
        ([("asked", I64)], [(FROM_REQUEST, 0)], None),
        ([("asked", 10)], [(FROM_FEATURE, 0)], None),
        ([("asked", F64)] * 2, [(FROM_FEATURE, 0)], None),
        ([], [(FROM_PROGRAM, 0)], None),
        ([], [(4, 0)], None),
        ([], [], None),
        ([], [(FROM_FEATURE, 0)], b"1234"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    fields: Sequence[tuple[str, int]], sources: Sequence[tuple[int, int]], default: bytes | None
) -> None:
    one = Program(compile_expression("stored + 1.0", TYPES).program)
    with pytest.raises(ValueError, match=r"."):
        OnDemand(fields, [(one, sources, default, rules.FALLBACK_NONE)])


@pytest.mark.parametrize("inputs", [[], [(1, 0, None)], [(0, 1, None)], [(0, 0, b"1")]])
def test_a_plan_refuses_inputs_that_are_not_its_own(inputs: Sequence[tuple[int, int, bytes | None]]) -> None:
    one = Program(compile_expression("stored + 1.0", TYPES).program)
    on_demand = OnDemand([], [(one, [(FROM_FEATURE, 0)], None, rules.FALLBACK_NONE)])
    groups = [(0, 5, SCHEMA, 0, 0, 1, None)]
    with pytest.raises(ValueError, match=r"."):
        Plan(bytes(32), 1, [("user", I64)], [(1, [0])], groups, [("c", ON_DEMAND, 0, None)], inputs, on_demand)


def test_a_result_that_is_no_program_is_refused() -> None:
    groups = [(0, 5, SCHEMA, 0, 0, 1, None)]
    with pytest.raises(ValueError, match="out of range"):
        Plan(bytes(32), 1, [("user", I64)], [(1, [0])], groups, [("c", ON_DEMAND, 0, None)])


# ---- long reads ----

ROWS_MAX = 10_000


def without_rows(program_count: int, output_count: int) -> Plan:
    """A plan that reads request data alone; outputs are of the last programs."""
    on_demand = OnDemand([("asked", F64)], [program("asked + 1.0")] * program_count)  # type: ignore[list-item]
    columns = [(f"c{at}", ON_DEMAND, program_count - 1 - at, None) for at in range(output_count)]
    return Plan(bytes(32), 1, [("user", I64)], [(1, [0])], [], columns, [], on_demand)


@pytest.mark.parametrize(("has_times", "value_bytes"), [(False, 8 + 1), (True, 8 + 1 + 8)])
def test_an_answer_that_is_too_large_whatever_its_values_are_is_refused(*, has_times: bool, value_bytes: int) -> None:
    data, outputs = request([2.0] * ROWS_MAX, has_times=has_times), 1_000
    with pytest.raises(Refused) as caught:
        RequestCore(RowTable(1 << 18), 8).serve(data, READ_TIME_US, without_rows(outputs, outputs))
    assert caught.value.reason == "RESPONSE_TOO_LARGE"
    assert f"over {value_bytes * ROWS_MAX * outputs} bytes" in caught.value.message


class Ticker:
    """A thread that runs whenever the interpreter lets it."""

    def __init__(self) -> None:
        self.count, self.pause_s, self._is_over = 0, 0.0, False
        self._thread = threading.Thread(target=self._tick)

    def __enter__(self) -> "Ticker":
        self._thread.start()
        while self.count == 0:
            time.sleep(0.001)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()

    def _tick(self) -> None:
        before_s = time.perf_counter()
        while not self._is_over:
            now_s = time.perf_counter()
            self.pause_s = max(self.pause_s, now_s - before_s)
            before_s = now_s
            self.count += 1


def test_a_long_read_lets_other_threads_run() -> None:
    core, plan, data = RequestCore(RowTable(1 << 18), 8), without_rows(400, 1), request([2.0] * ROWS_MAX)
    shares = []
    for _ in range(10):  # others may hold the processors now and then
        with Ticker() as ticker:
            first, ticker.pause_s, began_s = ticker.count, 0.0, time.perf_counter()
            assert isinstance(core.serve(data, READ_TIME_US, plan), bytes)
            spent_s, ticks = time.perf_counter() - began_s, ticker.count - first
        shares.append(ticker.pause_s / spent_s)
        if shares[-1] < 0.5 and ticks > 100:
            return
    pytest.fail(f"the other thread stood still for these shares of a read: {shares}")


# ---- memory ----

READ_UNDER_A_LIMIT = """
import resource, struct, sys
core_ext_path, root, scalar = sys.argv[1].split(":"), sys.argv[2], 6
sys.path.insert(0, root)
import core_ext
core_ext.__path__[:] = core_ext_path
from core_ext.expressions import Program
from core_ext.on_demand import FROM_REQUEST, OnDemand
from core_ext.request_core import ON_DEMAND, Plan, Refused, RequestCore
from core_ext.row_table import RowTable
from headrace.expressions import compile_expression
from headrace.types import Scalar, ValueType
from protos.feature.v1.online_feature_service_pb2 import EntityColumn, GetOnlineFeaturesRequest, RequestColumn

def request(rows, size):
    offsets = struct.pack(f"<{rows + 1}I", *range(0, (rows + 1) * size, size))
    asked = RequestColumn(name="asked", values=b"x" * size * rows, offsets=offsets)
    asked.value_type.scalar_type = scalar
    keys = EntityColumn(join_key="user", int64_values=[7] * rows)
    return GetOnlineFeaturesRequest(
        feature_service="a.b.c", entity_columns=[keys], request_columns=[asked]).SerializeToString()

def outcome(data):
    try:
        return len(core.serve(data, 1, plan))
    except Refused as refused:
        return refused.reason
    except MemoryError:
        return "the interpreter's own"

compiled = compile_expression("length(concat(asked, asked))", {"asked": ValueType(Scalar.STRING)})
on_demand = OnDemand([("asked", scalar)], [(Program(compiled.program), [(FROM_REQUEST, 0)], None, 1)])
plan = Plan(bytes(32), 1, [("user", 3)], [(1, [0])], [], [("c", ON_DEMAND, 0, None)], [], on_demand)
core, small, large = RequestCore(RowTable(1 << 18), 8), request(1, 10), request(64, 30_000)
first = outcome(small)
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
for headroom in [1 << 20, 1 << 19, 1 << 18, 1 << 17, 1 << 16, 1 << 15, 0]:
    held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + headroom, hard))
    limited = outcome(large)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    if limited == "OUT_OF_MEMORY":
        break
print(first, limited, outcome(small), outcome(small), isinstance(outcome(large), int))
"""


@pytest.mark.memory
def test_a_read_without_memory_leaves_memory_to_the_next() -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", READ_UNDER_A_LIMIT, ":".join(core_ext.__path__), str(root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"MALLOC_MMAP_THRESHOLD_": "32768", "MALLOC_TRIM_THRESHOLD_": "0"},  # what is freed goes back at once
    )
    assert done.stdout.split() == ["28", "OUT_OF_MEMORY", "28", "28", "True"], done.stderr


@pytest.mark.memory
def test_on_demand_that_is_refused_keeps_no_memory() -> None:
    names = [f"i{at}" for at in range(24)]
    compiled = compile_expression(" + ".join(names), dict.fromkeys(names, ValueType(Scalar.F64)))
    wrong = (Program(compiled.program), [(FROM_FEATURE, at) for at in range(len(names))], b"1234", rules.FALLBACK_NONE)

    def refuse(count: int) -> int:
        for _ in range(count):
            with pytest.raises(ValueError, match="a default of 4 bytes"):
                OnDemand([], [wrong])
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = refuse(1_000)
    assert refuse(40_000) - before < 4 << 20
