"""Draws plans with on-demand features, their requests and rows, for both the core and its twin."""

import math
import random
import struct
from dataclasses import replace

import hypothesis.strategies as st

from core_ext.twin import request_core as twin
from core_ext.twin.expressions import Program
from core_ext.twin.on_demand import FROM_FEATURE, FROM_PROGRAM, FROM_REQUEST, ON_DEMAND, OnDemand, OnDemandProgram
from headrace.expressions import compile_expression
from tests.unit.core_ext.expression_samples import COLUMNS, EXPRESSIONS
from tests.unit.core_ext.request_plans import HANDLE, Case, key_column, options, stored_row
from tests.unit.core_ext.request_samples import (
    BOOL,
    BYTES,
    DATE,
    F32,
    F64,
    I32,
    I64,
    SINGLE,
    STRING,
    TIMESTAMP_US,
    Sample,
    bytes_field,
    number_field,
    pack_row,
    storage_key,
    varint,
)

SCHEMA = [(int(kind.scalar), SINGLE, 0) for kind in COLUMNS.values()]
SCALARS = {name: int(kind.scalar) for name, kind in COLUMNS.items()}
FORMATS = {BOOL: "<?", I32: "<i", I64: "<q", F32: "<f", F64: "<d", TIMESTAMP_US: "<q", DATE: "<i"}
WHOLE = [0, 1, -1, 7, 1000]
EDGES: dict[int, list[object]] = {
    BOOL: [False, True],
    I32: [*WHOLE, 2**31 - 1, -(2**31)],
    I64: [*WHOLE, 2**63 - 1, -(2**63)],
    F32: [0.0, -0.0, 1.5, math.nan, math.inf],
    F64: [0.0, -0.0, 1.5, math.nan, -math.inf, 1e300],
    STRING: ["", "a", "Grüße", " 12", "x" * 40],
    BYTES: [b"", b"\xff\x00", b"12"],
    TIMESTAMP_US: [0, 1_383_458_400_000_000, -(2**63)],
    DATE: [0, 20_000, -1],
}


def edge(rng: random.Random, scalar: int) -> bytes:
    """Slot bytes of a value that is apt to break something."""
    value = rng.choice(EDGES[scalar])
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else struct.pack(FORMATS[scalar], value)


def request_column(rng: random.Random, name: str, scalar: int, row_count: int) -> bytes:
    values = [edge(rng, scalar) for _ in range(row_count)]
    nulls = [row for row in range(row_count) if rng.random() < 0.2]
    out = bytes_field(1, name.encode()) + bytes_field(2, number_field(1, scalar)) + bytes_field(3, b"".join(values))
    if scalar in (STRING, BYTES):
        ends = [sum(map(len, values[:count])) for count in range(row_count + 1)]
        out += bytes_field(4, struct.pack(f"<{len(ends)}I", *ends))
    return out + (bytes_field(5, b"".join(map(varint, nulls))) if nulls else b"")


@st.composite
def on_demand_cases(draw: st.DrawFn, row_counts: st.SearchStrategy[int]) -> Case:
    rng = random.Random(draw(st.integers(0, 2**32)))
    groups = [
        twin.Group(0, 5 + number, 9, SCHEMA, rng.choice([0, 1_000_000]), rng.choice([0, 1]), rng.randint(1, 3))
        for number in range(rng.randint(1, 3))
    ]
    inputs = [input_of(rng, groups) for _ in range(rng.randint(1, 12))]
    fields = [(f"field{number}", rng.choice(list(EDGES))) for number in range(rng.randint(0, 6))]
    programs: list[OnDemandProgram] = []
    for text in draw(st.lists(EXPRESSIONS, min_size=1, max_size=6)):
        programs.append(program_of(rng, text, inputs, fields, programs))
    outputs = [result_of(rng, len(programs)) for _ in range(rng.randint(1, 5))]
    outputs += [replace(one, name="plain") for one in rng.sample(inputs, rng.randint(0, min(2, len(inputs))))]
    rng.shuffle(outputs)
    on_demand = OnDemand(fields, programs)
    plan = twin.Plan(HANDLE, 1, [("key", I64)], [(1, [0])], groups, outputs, inputs, on_demand)
    row_count = draw(row_counts)
    data = [request_column(rng, name, scalar, row_count) for name, scalar in fields]
    rng.shuffle(data)
    keys = key_column(rng, "key", I64, row_count)
    sample = Sample([keys], service="team.shop.orders", options=draw(options()), data=data)
    rows = {storage_key(1, [(I64, key)], group.view_id): row_of(rng, group) for key in keys.values for group in groups}
    return Case(plan, sample, rows, rng)


def input_of(rng: random.Random, groups: list[twin.Group]) -> twin.Output:
    index = rng.randrange(len(SCHEMA))
    default = edge(rng, SCHEMA[index][0]) if rng.random() < 0.4 else None
    return twin.Output("", rng.randrange(len(groups)), index, default)


def result_of(rng: random.Random, count: int) -> twin.Output:
    return twin.Output(rng.choice(["", "speed"]), ON_DEMAND, rng.randrange(count), None)


def row_of(rng: random.Random, group: twin.Group) -> twin.Row:
    row = stored_row(rng, replace(group, schema=[(I64, SINGLE, 0)]))
    if not isinstance(row, bytes) or len(row) == 68 or row[8:12] != struct.pack("<I", 9):
        return row
    values = [None if rng.random() < 0.3 else edge(rng, scalar) for scalar, _, _ in SCHEMA]
    return pack_row(9, SCHEMA, values, int.from_bytes(row[16:24], "little", signed=True))


def program_of(
    rng: random.Random,
    text: str,
    inputs: list[twin.Output],
    fields: list[tuple[str, int]],
    before: list[OnDemandProgram],
) -> OnDemandProgram:
    """A program whose columns come from anywhere that has their type; missing types become new inputs."""
    compiled = compile_expression(text, COLUMNS)
    sources = []
    for name in compiled.columns:
        scalar = SCALARS[name]
        places = [(FROM_FEATURE, at) for at, one in enumerate(inputs) if SCHEMA[one.index][0] == scalar]
        places += [(FROM_REQUEST, at) for at, (_, kind) in enumerate(fields) if kind == scalar]
        places += [(FROM_PROGRAM, at) for at, one in enumerate(before) if one.program.result_type == scalar]
        if not places:
            inputs.append(twin.Output("", 0, [kind for kind, _, _ in SCHEMA].index(scalar), None))
            places = [(FROM_FEATURE, len(inputs) - 1)]
        sources.append(rng.choice(places))
    program = Program(compiled.program)
    default = edge(rng, program.result_type) if rng.random() < 0.4 else None
    return OnDemandProgram(program, sources, default, rng.randint(1, 2))
