"""CPU time of on-demand features in the request core alone: request bytes to response bytes, rows in the row table.

Claim: a read of 1 entity x 50 on-demand features takes at most 20 us of CPU, so that a server stays within 60 us with
HTTP/2 and framing (about 15 us). Each feature reads two stored f32, one request f64 and holds three operators.
Data: 10,000 entities, one view of 50 f32, keys i64, drawn from a fixed seed; two request fields.
`plain` reads the same 50 stored features without any on-demand one, so that the difference is what computing costs.
Command: python -m tests.bench.bench_on_demand [--rounds 9]   (with the optimised cores)
The figure is the median of the rounds in CPU time, as the machine may be shared; the spread follows it.
"""

import argparse
import json
import platform
from typing import Final

import numpy as np
import pyarrow as pa

from core_ext import keys, request_core, row_codec
from core_ext.arrow import arrow_column
from core_ext.expressions import Program
from core_ext.on_demand import FROM_FEATURE, FROM_REQUEST, OnDemand
from core_ext.row_table import RowTable
from headrace.expressions import compile_expression
from headrace.types import Scalar, ValueType
from protos.feature.v1.online_feature_service_pb2 import GetOnlineFeaturesRequest
from tests.bench.bench_request_core import ENTITY_ID, HANDLE, I64, READ_TIME_US, SEED, Store, measured_ns, say

ENTITIES: Final = 10_000
FEATURES: Final = 50
F64: Final = 5
CLAIM_US: Final = 20.0
SCHEMA_COLUMNS: Final = [(4, 0, 0)] * FEATURES
EXPRESSION: Final = "(first + second) * asked / 2.0"
TYPES: Final = {"first": ValueType(Scalar.F32), "second": ValueType(Scalar.F32), "asked": ValueType(Scalar.F64)}


def filled(on_demand: bool) -> Store:
    """The table, and a core whose plan answers on-demand features or the stored ones."""
    generator = np.random.default_rng(SEED)
    schema = row_codec.Schema(9, SCHEMA_COLUMNS)
    numbers = np.arange(ENTITIES, dtype=np.int64)
    columns = [arrow_column(pa.array(generator.random(ENTITIES, dtype=np.float32))) for _ in range(FEATURES)]
    times = np.full(ENTITIES, READ_TIME_US - 1, np.int64)
    rows = row_codec.encode_rows(schema, columns, times).stamp(numbers, 0, None, 0, 0, 0)
    batch = keys.encode_keys([I64], [arrow_column(pa.array(numbers))])
    table = RowTable(64 << 20)
    table.fill(batch.storage_keys(ENTITY_ID, 1, numbers), rows, table.ticket())
    core = request_core.RequestCore(table, 8)
    core.publish([plan_of(schema, on_demand)], {}, 1)
    return Store(table, core, ENTITIES)


def plan_of(schema: row_codec.Schema, on_demand: bool) -> request_core.Plan:
    """One view read by one key."""
    keyed = ([("user_id", I64)], [(ENTITY_ID, [0])], [(0, 1, schema, 0, 0, 2, None)])
    if not on_demand:
        return request_core.Plan(HANDLE, 1, *keyed, [("", 0, column, None) for column in range(FEATURES)])
    compiled = compile_expression(EXPRESSION, TYPES)
    programs = []
    for number in range(FEATURES):
        places = {"first": (FROM_FEATURE, number), "second": (FROM_FEATURE, (number + 7) % FEATURES)}
        places["asked"] = (FROM_REQUEST, number % 2)
        sources = [places[name] for name in compiled.columns]
        programs.append((Program(compiled.program), sources, None, 2))
    computed = OnDemand([("distance", F64), ("price", F64)], programs)
    inputs = [(0, column, None) for column in range(FEATURES)]
    outputs = [("", request_core.ON_DEMAND, number, None) for number in range(FEATURES)]
    return request_core.Plan(HANDLE, 1, *keyed, outputs, inputs, computed)


def requests_of(rows: int, on_demand: bool, count: int = 64) -> list[bytes]:
    """Reads by handle of keys drawn evenly."""
    generator = np.random.default_rng(SEED + rows)
    made = []
    for _ in range(count):
        message = GetOnlineFeaturesRequest(handle=HANDLE)
        message.entity_columns.add(join_key="user_id", int64_values=generator.integers(0, ENTITIES, rows))
        for name in ("distance", "price") if on_demand else ():
            column = message.request_columns.add(name=name, values=generator.random(rows).tobytes())
            column.value_type.scalar_type = F64  # type: ignore[assignment]  # the number of SCALAR_TYPE_F64
        made.append(message.SerializeToString())
    return made


def main() -> None:
    """Prints a line per case, and one of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    say(f"cores: {request_core.__file__}; {platform.machine()} Python {platform.python_version()}")
    result: dict[str, float | int] = {"entities": ENTITIES, "features": FEATURES}
    for on_demand in (False, True):
        store = filled(on_demand)
        for rows in (1, 10, 100):
            name = f"{'on_demand' if on_demand else 'plain'}_{rows}x{FEATURES}"
            middle, spread_percent = measured_ns(store, requests_of(rows, on_demand), rounds)
            result[f"{name}_ns"] = round(middle)
            per_value = middle / rows / FEATURES
            say(f"{name:20} {middle:10,.0f} ns  {per_value:6.2f} ns a value  spread {spread_percent:.0f} %")
    spent_us = result[f"on_demand_1x{FEATURES}_ns"] / 1000
    say(f"claim at on_demand_1x{FEATURES}: {CLAIM_US} us {'met' if spent_us <= CLAIM_US else 'missed'}")
    result["core_cpu_us_1x50_on_demand"] = round(spent_us, 1)
    say(json.dumps(result))


if __name__ == "__main__":
    main()
