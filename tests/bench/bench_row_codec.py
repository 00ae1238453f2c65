"""Time per row of the row and key codecs, beside their plain Python twins.

Claim: encoding and stamping a row of 50 f32 takes under 250 ns, encoding an i64 key with its slot under 20 ns.
Data: 10,000 rows of 50 random f32 columns and one random i64 key, drawn from a fixed seed; the mixed rows have 10
columns of every shape with 5 % nulls. The twins do 500 of the same rows.
Command: python -m tests.bench.bench_row_codec [--rounds 9] [--rows 10000]   (with the optimised cores: make build)
The figure is the median of the rounds in CPU time, as the machine may be shared; the spread follows it.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core_ext import keys, row_codec
from core_ext.arrow import ArrowColumn, arrow_column
from core_ext.twin import keys as twin_keys
from core_ext.twin import row_codec as twin
from headrace.types import Scalar, parse_type

TWIN_ROWS = 500
FLOATS = ["f32"] * 50
MIXED = ["f64", "i64", "bool", "string", "i32", "list<f32,8>", "list<i64>", "list<string>", "timestamp_us", "bytes"]
NULL_SHARE = 0.05
TARGETS_NS = {"encode_and_stamp_50_f32": 250.0, "encode_key_i64": 20.0}


def random_value(generator: np.random.Generator, text: str) -> Any:
    """One value of a type, of typical size."""
    if text.startswith("list"):
        element = text[5:].rstrip(">").split(",")[0]
        return [random_value(generator, element) for _ in range(8 if "," in text else generator.integers(0, 6))]
    if text in {"string", "bytes"}:
        size = int(generator.integers(1, 20))
        return "x" * size if text == "string" else b"x" * size
    if text in {"f32", "f64"}:
        return float(np.float32(generator.random()))
    return bool(generator.integers(0, 2)) if text == "bool" else int(generator.integers(0, 1 << 30))


def values_of(generator: np.random.Generator, text: str, row_count: int, null_share: float) -> list[Any]:
    """Values of one column."""
    nulls = generator.random(row_count) < null_share
    return [None if null else random_value(generator, text) for null in nulls]


class RowCase:
    """Rows of some types as Arrow columns and as Python values."""

    def __init__(self, name: str, types: Sequence[str], row_count: int, null_share: float) -> None:
        generator = np.random.default_rng(7)
        parsed = [parse_type(text) for text in types]
        columns = [(int(kind.scalar), int(kind.shape), kind.list_size) for kind in parsed]
        values = [values_of(generator, text, row_count, null_share) for text in types]
        self.name = name
        self.schema = row_codec.Schema(1, columns)
        self.twin_schema = twin.schema_of(1, columns)
        pairs = zip(values, parsed, strict=True)
        self.columns: list[ArrowColumn] = [arrow_column(pa.array(column, kind.arrow)) for column, kind in pairs]
        self.rows = list(zip(*values, strict=True))
        self.event_times_us = np.arange(row_count)
        self.batch = self.encode()
        self.stored = self.stamp()

    def encode(self) -> row_codec.RowBatch:
        return row_codec.encode_rows(self.schema, self.columns, self.event_times_us)

    def stamp(self) -> list[bytes]:
        return self.batch.stamp(self.event_times_us, 1, None, 0, 0, 0)

    def check(self) -> None:
        for row in self.stored:
            row_codec.check_row(row, self.schema)

    def encode_by_twin(self) -> None:
        for row in self.rows[:TWIN_ROWS]:
            twin.encode_row(self.twin_schema, row, twin.RowHeader(0, 1, 0, 0, 1, 1, 0, 0))


def rounds_ns(run: Callable[[], object], row_count: int, rounds: int) -> list[float]:
    """CPU nanoseconds per row of each round, after one to warm up."""
    run()
    found = []
    for _ in range(rounds):
        start = time.process_time_ns()
        run()
        found.append((time.process_time_ns() - start) / row_count)
    return found


def measure(row_count: int, rounds: int) -> dict[str, list[float]]:
    """Rounds of every step, in nanoseconds per row."""
    found: dict[str, list[float]] = {}
    for case in (RowCase("50_f32", FLOATS, row_count, 0.0), RowCase("mixed", MIXED, row_count, NULL_SHARE)):
        encoding = rounds_ns(case.encode, row_count, rounds)
        stamping = rounds_ns(case.stamp, row_count, rounds)
        found[f"encode_{case.name}"] = encoding
        found[f"stamp_{case.name}"] = stamping
        found[f"encode_and_stamp_{case.name}"] = [sum(pair) for pair in zip(encoding, stamping, strict=True)]
        found[f"check_{case.name}"] = rounds_ns(case.check, row_count, rounds)
        found[f"twin_{case.name}"] = rounds_ns(case.encode_by_twin, min(TWIN_ROWS, row_count), min(rounds, 3))
    values = np.random.default_rng(7).integers(0, 1 << 40, row_count)
    column = [arrow_column(pa.array(values))]
    batch = keys.encode_keys([Scalar.I64], column)
    indexes = np.arange(row_count)
    found["encode_key_i64"] = rounds_ns(lambda: keys.encode_keys([Scalar.I64], column), row_count, rounds)
    found["storage_keys_i64"] = rounds_ns(lambda: batch.storage_keys(1, 2, indexes), row_count, rounds)
    sample = values[:TWIN_ROWS].tolist()
    found["twin_key_i64"] = rounds_ns(
        lambda: [twin_keys.slot_of_key(twin_keys.encode_key([Scalar.I64], [value])) for value in sample],
        len(sample),
        min(rounds, 3),
    )
    return found


def report(found: dict[str, list[float]], row_count: int) -> dict[str, Any]:
    """The result as the one JSON line at the end."""
    medians = {name: statistics.median(rounds) for name, rounds in found.items()}
    figures: list[dict[str, Any]] = [
        {"id": name, "value": round(value, 1), "unit": "ns/row", "better": "lower", "target": TARGETS_NS.get(name)}
        | {"rounds": [round(value, 1) for value in found[name]]}
        for name, value in medians.items()
    ]
    for name, core in (("50_f32", "encode_and_stamp_50_f32"), ("mixed", "encode_and_stamp_mixed")):
        figures.append({"id": f"twin_vs_core_{name}", "value": round(medians[f"twin_{name}"] / medians[core], 1)})
    figures.append({"id": "twin_vs_core_key", "value": round(medians["twin_key_i64"] / medians["encode_key_i64"], 1)})
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "area": "row_codec",
        "commit": commit,
        "machine": f"{platform.machine()} {cpu_name()}",
        "scale": {"rows": row_count},
        "figures": figures,
        "ok": all(medians[name] <= target for name, target in TARGETS_NS.items()),
    }


def cpu_name() -> str:
    """Name of the processor, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> None:
    """Prints one line per step, then the JSON."""
    parser = argparse.ArgumentParser(description="Time per row of the row and key codecs.")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    found = measure(options.rows, options.rounds)
    for name, rounds in found.items():
        spread = f"{min(rounds):.1f} to {max(rounds):.1f}"
        sys.stdout.write(f"{name:28} {statistics.median(rounds):10.1f} ns/row   {spread}\n")
    sys.stdout.write(json.dumps(report(found, options.rows)) + "\n")


if __name__ == "__main__":
    main()
