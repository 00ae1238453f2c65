"""CPU time of the request core alone: request bytes to response bytes with every row in the row table.

Claim: a read of 100 entities x 200 features (4 views of 50 f32) takes at most 60 us of CPU when the rows are cached.
Data: 1M entities of 4 views x 50 f32, keys i64; the keys of a read by Zipf 0.99 or uniform, drawn from a fixed seed.
`mixed` has 5 % nulls in half of the rows, 5 % of the entities without a row, a time to live that a tenth has passed.
`hot` repeats 16 requests, so that every row is in the processor's own cache.
Command: python -m tests.bench.bench_request_core [--rounds 9] [--entities 1000000]   (with the optimised cores)
The figure is the median of the rounds in CPU time, as the machine may be shared; the spread follows it.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core_ext import keys, request_core, row_codec
from core_ext.arrow import arrow_column
from core_ext.row_table import RowTable
from core_ext.twin import request_core as twin

SEED: Final = 7
VIEWS, COLUMNS = 4, 50
ENTITY_ID, F32, I64 = 1, 4, 3
READ_TIME_US: Final = 1_700_000_000_000_000
TTL_US: Final = 1_000_000
BLOCK: Final = 20_000  # entities filled at once
HANDLE: Final = bytes(32)
ROUND_SECONDS: Final = 0.15
ZIPF: Final = 0.99
TARGET_US: Final = 60.0
SCHEMA_COLUMNS: Final = [(F32, 0, 0)] * COLUMNS


@dataclass(frozen=True)
class Store:
    """A filled table and the core over it."""

    table: RowTable
    core: request_core.RequestCore
    entities: int


def block_rows(generator: np.random.Generator, schema: row_codec.Schema, count: int, mixed: bool) -> list[bytes]:
    columns = []
    for _ in range(COLUMNS):
        values = generator.random(count, dtype=np.float32)
        mask = (generator.random(count) < 0.05) & (np.arange(count) % 2 == 0) if mixed else None
        columns.append(arrow_column(pa.array(values, mask=mask)))
    times = np.full(count, READ_TIME_US - 1, np.int64)
    if mixed:
        times[generator.random(count) < 0.1] -= TTL_US
    return row_codec.encode_rows(schema, columns, times).stamp(np.arange(count), 0, None, 0, 0, 0)


def filled(entities: int, mixed: bool) -> Store:
    generator = np.random.default_rng(SEED)
    schema = row_codec.Schema(9, SCHEMA_COLUMNS)
    table = RowTable(int(entities * VIEWS * 400) + (64 << 20))
    for start in range(0, entities, BLOCK):
        numbers = np.arange(start, min(start + BLOCK, entities), dtype=np.int64)
        batch = keys.encode_keys([I64], [arrow_column(pa.array(numbers))])
        by_view = [batch.storage_keys(ENTITY_ID, view, np.arange(len(numbers))) for view in range(1, VIEWS + 1)]
        rows = [block_rows(generator, schema, len(numbers), mixed) for _ in range(VIEWS)]
        gone = generator.random(len(numbers)) < (0.05 if mixed else 0.0)
        ordered_keys = [key for one in zip(*by_view, strict=True) for key in one]
        ordered_rows = [
            None if gone[number] else row for number, one in enumerate(zip(*rows, strict=True)) for row in one
        ]
        table.fill(ordered_keys, ordered_rows, table.ticket())
    if table.stats()["eviction_count"] > 0:
        raise SystemExit("the table is too small for the entities: the figures would be of misses")
    core = request_core.RequestCore(table, 8)
    ttl_us = TTL_US if mixed else 0
    groups = [(0, view, schema, ttl_us, 0, 2, None) for view in range(1, VIEWS + 1)]
    names = [("", view, column, None) for view in range(VIEWS) for column in range(COLUMNS)]
    core.publish([request_core.Plan(HANDLE, 1, [("user_id", I64)], [(ENTITY_ID, [0])], groups, names)], {}, 1)
    return Store(table, core, entities)


def zipf_keys(generator: np.random.Generator, entities: int, count: int) -> NDArray[np.int64]:
    """Keys whose frequency falls with rank to the power of 0.99; ranks are spread over the key space."""
    ends = np.cumsum(1.0 / np.arange(1, entities + 1) ** ZIPF)
    ranks = np.searchsorted(ends, generator.random(count) * ends[-1])
    return np.asarray((ranks * 7_919) % entities, np.int64)


def varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def delimited(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def request(numbers: NDArray[np.int64]) -> bytes:
    return delimited(2, HANDLE) + delimited(4, delimited(1, b"user_id") + delimited(2, numbers.tobytes()))


def requests_of(store: Store, spread: str, rows: int, count: int) -> list[bytes]:
    generator = np.random.default_rng(SEED + rows)
    wanted = rows * count
    if spread == "zipf":
        numbers = zipf_keys(generator, store.entities, wanted)
    else:
        numbers = generator.integers(0, store.entities, wanted)
    return [request(chunk) for chunk in np.split(numbers, count)]


def measured_ns(store: Store, requests: list[bytes], rounds: int) -> tuple[float, float]:
    """Median CPU time of one request, and the spread of the rounds in percent."""
    serve, figures = store.core.serve, []
    for asked in requests:
        if not isinstance(serve(asked, READ_TIME_US), bytes):
            raise SystemExit("a read missed: the figures would be of misses")
    for _ in range(rounds):
        done, start = 0, time.process_time_ns()
        while (spent := time.process_time_ns() - start) < ROUND_SECONDS * 1e9:
            for asked in requests:
                serve(asked, READ_TIME_US)
            done += len(requests)
        figures.append(spent / done)
    middle = statistics.median(figures)
    return middle, (max(figures) - min(figures)) / middle * 100


def twin_ns(store: Store, asked: bytes, rows: int) -> float:
    """CPU time of the same read by the twin; also checks that both answer the same."""
    groups = [twin.Group(0, view, 9, SCHEMA_COLUMNS, 0, 0, 2) for view in range(1, VIEWS + 1)]
    outputs = [twin.Output("", view, column, None) for view in range(VIEWS) for column in range(COLUMNS)]
    plan = twin.Plan(HANDLE, 1, [("user_id", I64)], [(ENTITY_ID, [0])], groups, outputs)
    numbers = np.frombuffer(asked[-8 * rows :], "<i8")
    prefixes = [keys.entity_prefix(ENTITY_ID, keys.encode_key([I64], [int(number)])) for number in numbers]
    wanted = [prefix + view.to_bytes(4, "big") for prefix in prefixes for view in range(1, VIEWS + 1)]
    stored = {key: store.table.get(key) for key in wanted}
    start = time.process_time_ns()
    answer = twin.serve(asked, plan, stored, READ_TIME_US)
    spent = time.process_time_ns() - start
    if answer != store.core.serve(asked, READ_TIME_US):
        raise SystemExit("the core and its twin differ")
    return float(spent)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--entities", type=int, default=1_000_000)
    arguments = parser.parse_args()
    say(f"cores: {request_core.__file__}; {platform.machine()} Python {platform.python_version()}")
    result: dict[str, float | int | str] = {"entities": arguments.entities, "values": VIEWS * COLUMNS}
    for mixed in (False, True):
        store = filled(arguments.entities, mixed)
        kind = "mixed" if mixed else "plain"
        stats = store.table.stats()
        packed = stats["row_count"] * (276 + 3) // 4 * 4
        result[f"{kind}_memory_ratio"] = round(stats["used_bytes"] / packed, 3)
        for spread, rows, count in cases():
            asked = requests_of(store, spread.replace("hot", "uniform"), rows, count)
            middle, spread_percent = measured_ns(store, asked, arguments.rounds)
            name = f"{kind}_{spread}_{rows}x{VIEWS * COLUMNS}"
            result[f"{name}_ns"] = round(middle)
            per_value = middle / rows / VIEWS / COLUMNS
            say(f"{name:28} {middle:10,.0f} ns  {per_value:6.2f} ns a value  spread {spread_percent:.0f} %")
        if not mixed:
            for rows in (1, 100):
                asked = requests_of(store, "uniform", rows, 1)
                ratio = twin_ns(store, asked[0], rows) / float(result[f"plain_uniform_{rows}x{VIEWS * COLUMNS}_ns"])
                result[f"twin_ratio_{rows}x{VIEWS * COLUMNS}"] = round(ratio)
        del store
    met = float(result["plain_zipf_100x200_ns"]) <= TARGET_US * 1000
    result["core_cpu_us_100x200"] = round(float(result["plain_zipf_100x200_ns"]) / 1000, 1)
    say(f"target at plain_zipf_100x200: {TARGET_US} us {'met' if met else 'missed'}")
    say(json.dumps(result))


def cases() -> list[tuple[str, int, int]]:
    """Spread of the keys, entities in a read, and reads that are gone through by turns."""
    wide = [(spread, rows, 20_000 // rows) for spread in ("zipf", "uniform") for rows in (1, 10, 100)]
    return [*wide, ("hot", 100, 2)]


if __name__ == "__main__":
    main()
