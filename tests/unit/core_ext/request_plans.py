"""Draws plans, requests and stored rows for the request core, for both the core and its twin."""

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import hypothesis.strategies as st

from core_ext import request_core, rules
from core_ext.expressions import Program
from core_ext.on_demand import OnDemand
from core_ext.row_codec import Schema
from core_ext.row_table import RowTable
from core_ext.twin import request_core as twin
from core_ext.twin.on_demand import OnDemand as TwinOnDemand
from tests.unit.core_ext.request_samples import (
    BYTES,
    FIXED,
    I64,
    SINGLE,
    STRING,
    VARIABLE,
    WIDTHS,
    ColumnType,
    Key,
    KeyColumn,
    Sample,
    bytes_field,
    is_variable,
    number_field,
    pack_row,
    pack_tombstone,
    parts,
    slot_bytes,
    storage_key,
)

READ_TIME_US = 1_700_000_000_000_000
HANDLE = bytes(range(32))
SHARD_COUNT = 8

AGES_US = st.sampled_from([0, 1, 2, 999_999, 1_000_000, 1_000_001])


def single_or_list(scalar: int) -> st.SearchStrategy[ColumnType]:
    shapes = [st.just((scalar, SINGLE, 0)), st.just((scalar, VARIABLE, 0))]
    if scalar in WIDTHS:
        shapes.append(st.integers(1, 5).map(lambda size: (scalar, FIXED, size)))
    return st.one_of(shapes)


SCHEMAS = st.lists(st.integers(1, 9).flatmap(single_or_list), min_size=1, max_size=70)


def slot_value(rng: random.Random, column: ColumnType) -> bytes:
    """Bytes that a slot of this type may hold."""
    scalar, shape, _ = column
    if not is_variable(column):
        return rng.randbytes(slot_bytes(column))
    if shape == SINGLE:
        return rng.choice([b"", b"a", "Grüße".encode(), b"x" * 40])
    count = rng.choice([0, 1, 2, 7])
    if scalar in WIDTHS:
        return rng.randbytes(count * WIDTHS[scalar])
    return parts([rng.choice([b"", b"ab", b"\xe2\x82\xac"]) for _ in range(count)])


@dataclass(frozen=True)
class Case:
    """A plan with one request for it and the rows that storage holds."""

    plan: twin.Plan
    sample: Sample
    rows: dict[bytes, twin.Row]
    rng: random.Random

    def core_plan(self, *, tiles: bool = True) -> request_core.Plan:
        plan = self.plan
        return request_core.Plan(
            plan.handle,
            plan.revision,
            plan.join_keys,
            plan.lookups,
            [
                (group.lookup, group.view_id, Schema(group.schema_id, group.schema), *limits(group), None)
                for group in plan.groups
            ],
            [(output.name, output.group, output.index, output.default) for output in plan.outputs],
            [(output.group, output.index, output.default) for output in plan.inputs],
            None if plan.on_demand is None else core_on_demand(plan.on_demand),
            tiles=tiles,
        )

    def loaded(self, share: float) -> tuple[RowTable, request_core.Overlay]:
        """A table with about that share of the rows, and an overlay with the rest."""
        table, overlay = RowTable(64 << 20), request_core.Overlay()
        for key, row in self.rows.items():
            if isinstance(row, int):
                overlay.add_unavailable([key], row)
            elif self.rng.random() < share:
                assert table.fill([key], [row], table.ticket()) == 1
            else:
                overlay.add([key], [row])
        return table, overlay


def core_on_demand(given: TwinOnDemand) -> OnDemand:
    programs = [(Program(one.program.source), one.sources, one.default, one.fallback) for one in given.programs]
    return OnDemand(given.request_fields, programs)


def limits(group: twin.Group) -> tuple[int, int, int]:
    return group.ttl_us, group.stale_us, group.fallback


@st.composite
def plans(draw: st.DrawFn) -> twin.Plan:
    rng = random.Random(draw(st.integers(0, 2**32)))
    kinds = draw(st.lists(st.sampled_from([I64, STRING, BYTES]), min_size=1, max_size=4))
    lookup_count = draw(st.integers(1, 3))
    numbers = st.lists(st.integers(0, len(kinds) - 1), min_size=1, max_size=3, unique=True)
    # Few entity ids, so that two lookups may read the same entity by different columns of the request.
    lookups = [(draw(st.integers(1, 2)), draw(numbers)) for _ in range(lookup_count)]
    schemas = draw(st.lists(SCHEMAS, min_size=1, max_size=3))
    views = st.integers(0, len(schemas) - 1)
    groups = [
        twin.Group(
            lookup,
            view_id=1000 + (view := draw(views)),
            schema_id=10 + view,
            schema=schemas[view],
            ttl_us=draw(st.sampled_from([0, 1, 1_000_000])),
            stale_us=draw(st.sampled_from([0, 1, 1_000_000])),
            fallback=draw(st.integers(1, 3)),
        )
        for lookup in sorted(draw(st.lists(st.integers(0, lookup_count - 1), min_size=1, max_size=5)))
    ]
    outputs = [output(draw, rng, groups, number) for number in range(draw(st.integers(1, 8)))]
    names = [(f"key{number}", kind) for number, kind in enumerate(kinds)]
    revision = draw(st.sampled_from([0, 1, 2**63 - 1]))
    return twin.Plan(HANDLE, revision, names, lookups, groups, outputs)


def output(draw: st.DrawFn, rng: random.Random, groups: Sequence[twin.Group], number: int) -> twin.Output:
    group = draw(st.integers(0, len(groups) - 1))
    index = draw(st.integers(0, len(groups[group].schema) - 1))
    default = slot_value(rng, groups[group].schema[index]) if draw(st.booleans()) else None
    return twin.Output(draw(st.sampled_from(["", "fläche", f"column{number}"])), group, index, default)


@st.composite
def cases(draw: st.DrawFn, row_counts: st.SearchStrategy[int]) -> Case:
    plan = draw(plans())
    row_count = draw(row_counts)
    rng = random.Random(draw(st.integers(0, 2**32)))
    columns = [key_column(rng, name, kind, row_count) for name, kind in plan.join_keys]
    rng.shuffle(columns)
    choices: list[dict[str, object]] = [
        {"service": "team.shop.orders@v2"},
        {"handle": HANDLE},
        {"features": ["view@v1:a", "view@v1:b"]},
    ]
    selection = draw(st.sampled_from(choices))
    sample = Sample(columns, options=draw(options()), **selection)  # type: ignore[arg-type]  # one of the choices
    return Case(plan, sample, stored_rows(rng, plan, sample), rng)


def key_column(rng: random.Random, name: str, kind: int, row_count: int) -> KeyColumn:
    """Keys from a small pool, so that a batch names some entities twice."""
    pool: dict[int, list[Key]] = {
        I64: [0, -1, 7, -(2**63), 2**63 - 1],
        STRING: [b"a", "ü".encode(), b"longer than sixteen bytes", b"k" * 300],
        BYTES: [b"\x00", b"\xff\xfe", b"b" * 40],
    }
    values = [rng.choice(pool[kind]) for _ in range(row_count)]
    nulls = [row for row in range(row_count) if rng.random() < 0.1]
    for row in nulls:
        values[row] = 0 if kind == I64 else b""  # the placeholder that clients send
    return KeyColumn(name, kind, values, nulls)


@st.composite
def options(draw: st.DrawFn) -> list[bytes]:
    flags = [number_field(number, 1) for number in (1, 2, 3) if draw(st.booleans())]
    if draw(st.booleans()):
        seconds, nanos = draw(st.sampled_from([(0, 0), (0, 1), (0, 1999), (1, 0), (315_576_000_000, 999_999_999)]))
        flags.append(bytes_field(5, number_field(1, seconds) + number_field(2, nanos)))
    return flags


def stored_rows(rng: random.Random, plan: twin.Plan, sample: Sample) -> dict[bytes, twin.Row]:
    """A row, a tombstone, none, an unavailable or a foreign one for every key that the request reads."""
    by_name = {column.name: column for column in sample.columns}
    rows: dict[bytes, twin.Row] = {}
    for group in plan.groups:
        entity_id, numbers = plan.lookups[group.lookup]
        columns = [by_name[plan.join_keys[number][0]] for number in numbers]
        for row in range(len(columns[0].values)):
            if any(row in column.nulls for column in columns):
                continue
            key = storage_key(entity_id, [(column.kind, column.values[row]) for column in columns], group.view_id)
            if key not in rows:
                rows[key] = stored_row(rng, group)
    return rows


def stored_row(rng: random.Random, group: twin.Group) -> twin.Row:
    event_time_us = READ_TIME_US - rng.choice([-5, 0, 1, 2, 999_999, 1_000_000, 1_000_001, READ_TIME_US + 2**62])
    luck = rng.random()
    if luck < 0.1:
        return None
    if luck < 0.2:
        return pack_tombstone(group.schema_id, event_time_us)
    if luck < 0.3:
        return rng.choice([rules.CAUSE_DEADLINE, rules.CAUSE_QUARANTINED])
    if luck < 0.35:
        return pack_row(99, [(I64, SINGLE, 0)], [struct.pack("<q", 1)], event_time_us)
    null_share = rng.choice([0.0, 0.3])
    values = [None if rng.random() < null_share else slot_value(rng, column) for column in group.schema]
    return pack_row(group.schema_id, group.schema, values, event_time_us)
