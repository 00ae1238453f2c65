"""Measures the window kernel: events taken in, folds of tile maps, and histories beside a DuckDB window query.

Command: python -m loadtest.peers.windows [--quick] [--seed N]. The last line printed is one JSON object. Both engines
have two threads; updates and folds are counted in CPU time of one.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core_ext.arrow import arrow_column
from core_ext.computed import FROM_WINDOW, ComputedView
from core_ext.keys import encode_key, storage_key
from core_ext.request_core import Plan, RequestCore
from core_ext.row_codec import encode_rows
from core_ext.row_table import RowTable
from core_ext.window_plan import WindowPlan, plan_windows
from core_ext.windows import Windows
from headrace.definitions.transforms import AGGREGATES
from headrace.types import Scalar
from loadtest.peers.processes import ROOT
from loadtest.peers.result import ROUNDS_MIN, Figure, Report, commit, machine, ratios, rounded
from loadtest.peers.rounds import Measure, alternate
from protos.feature.v1 import online_feature_service_pb2 as pb

RESULT: Final = ROOT / "loadtest" / "results" / "windows.json"
SEED: Final = 2013
THREADS: Final = 2
MINUTE_US: Final = 60_000_000
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
START_US: Final = 1_700_000_000_000_000
SPANS: Final = ((HOUR_US, 5 * MINUTE_US), (6 * HOUR_US, 15 * MINUTE_US), (DAY_US, HOUR_US), (7 * DAY_US, 6 * HOUR_US))
NAMES: Final = ("count", "sum", "avg", "min", "max")
FOLD_COLUMNS: Final = 10  # five aggregates over four windows of ten columns are 200 values
FOLD_ENTITIES: Final = 100
FOLD_EVENTS: Final = 300  # of an entity in a week
TABLE_BYTES: Final = 256 << 20
WIDE_CALLS: Final = 20
DIFFERENCE_MAX: Final = 1e-9  # share by which a sum of DuckDB may be off: it is not exact


class Scale(NamedTuple):
    """Events of one run; the entities are those of the stream and of the history."""

    name: str
    events: int
    stream_entities: int
    history_entities: int


QUICK: Final = Scale("quick", 200_000, 20_000, 2_000)
FULL: Final = Scale("full", 1_000_000, 100_000, 10_000)


class Events(NamedTuple):
    """Columns of events in the order of arrival."""

    groups: NDArray[np.int64]
    times_us: NDArray[np.int64]
    values: NDArray[np.float32]


def plan(columns: int = 1) -> WindowPlan:
    """Every aggregate over every window of each column."""
    features = [(AGGREGATES[name], at, -1, *span, 0) for at in range(columns) for name in NAMES for span in SPANS]
    return plan_windows(features, [Scalar.F32] * columns)


def events(random: np.random.Generator, count: int, entities: int, over_us: int) -> Events:
    """Uniform events of `entities` in a span of time."""
    times = START_US + random.integers(0, over_us, count)
    return Events(random.integers(0, entities, count), times, random.normal(10, 30, count).astype(np.float32))


def stream_side(scale: Scale, random: np.random.Generator) -> Measure:
    """Events of a minute become deltas."""
    given = events(random, scale.events, scale.stream_entities, MINUTE_US)
    windows, columns = Windows(plan()), [arrow_column(pa.array(given.values))]

    def measure(_: int) -> dict[str, float]:
        start = time.process_time()
        windows.update(columns, given.times_us, given.groups, scale.stream_entities)
        return {"events_per_s": scale.events / (time.process_time() - start)}

    return measure


def fold_maps(random: np.random.Generator, windows: Windows) -> tuple[list[bytes], int]:
    """Tile maps of a week, and the time at its end."""
    given = events(random, FOLD_ENTITIES * FOLD_EVENTS, FOLD_ENTITIES, 7 * DAY_US)
    columns = [arrow_column(pa.array(random.permutation(given.values))) for _ in range(FOLD_COLUMNS)]
    deltas = windows.update(columns, given.times_us, given.groups, FOLD_ENTITIES).maps
    return [windows.apply(None, delta, 0).map for delta in deltas if delta is not None], START_US + 7 * DAY_US


def fold_side(random: np.random.Generator) -> Measure:
    """200 values each of 100 maps."""
    windows = Windows(plan(FOLD_COLUMNS))
    maps, read_us = fold_maps(random, windows)
    reads = np.full(len(maps), read_us)

    def measure(_: int) -> dict[str, float]:
        start = time.process_time()
        windows.fold_many(maps, reads)
        return {"fold_us": (time.process_time() - start) * 1e6 * FOLD_ENTITIES / len(maps)}

    return measure


def core_side(random: np.random.Generator) -> Measure:
    """The same values as the request core answers them, of all entities and of one, from request to response bytes."""
    windows = Windows(plan(FOLD_COLUMNS))
    maps, read_us = fold_maps(random, windows)
    columns = [_column(one.aggregate) for one in windows.plan.features]
    view = ComputedView(1, columns, [(FROM_WINDOW, place) for place in range(len(columns))], windows, [])
    bare = encode_rows(view.stored, [], np.full(len(maps), read_us)).stamp(np.arange(len(maps)), read_us, None, 0, 0, 0)
    keys = [storage_key(1, encode_key([Scalar.I64], [number]), 1) for number in range(len(maps))]
    table = RowTable(TABLE_BYTES)
    table.fill(keys, [view.with_tiles(row, tiles) for row, tiles in zip(bare, maps, strict=True)], table.ticket())
    outputs = [(f"f{place}", 0, place, None) for place in range(len(columns))]
    core, handle = RequestCore(table, 1), bytes(32)
    join_keys, groups = [("user_id", int(Scalar.I64))], [(0, 1, view.answered, 0, 0, 1, view)]
    core.publish([Plan(handle, 1, join_keys, [(1, [0])], groups, outputs)], {}, 1)
    wide, narrow = (request_of(handle, range(count)) for count in (len(maps), 1))

    def measure(_: int) -> dict[str, float]:
        return {
            "core_us": _cpu_us(lambda: core.serve(wide, read_us), WIDE_CALLS),
            "core_1_us": _cpu_us(lambda: core.serve(narrow, read_us), WIDE_CALLS * len(maps)),
        }

    return measure


def request_of(handle: bytes, users: range) -> bytes:
    """Request for some entities."""
    keys = pb.EntityColumn(join_key="user_id", int64_values=users)
    return pb.GetOnlineFeaturesRequest(handle=handle, entity_columns=[keys]).SerializeToString()


def _column(aggregate: int) -> tuple[int, int, int]:
    kinds = {AGGREGATES["count"]: Scalar.I64, AGGREGATES["min"]: Scalar.F32, AGGREGATES["max"]: Scalar.F32}
    return int(kinds.get(aggregate, Scalar.F64)), 0, 0


def _cpu_us(call: Callable[[], object], count: int) -> float:
    if not isinstance(call(), bytes):
        raise ArithmeticError("the core did not answer from its table")
    start = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - start) / count * 1e6


def history_sides(scale: Scale, random: np.random.Generator) -> dict[str, Measure]:
    """Values at every event, by us and by DuckDB; the first round compares them."""
    given = events(random, scale.events, scale.history_entities, 30 * DAY_US)
    windows, columns = Windows(plan()), [arrow_column(pa.array(given.values))]
    table = pa.table(
        {"entity": given.groups, "time_us": given.times_us, "value": given.values, "row": np.arange(scale.events)}
    )
    session = duckdb.connect()
    session.execute(f"set threads={THREADS}")
    session.register("events", table)
    found: dict[str, Any] = {}  # columns of the last round of each engine

    def ours(_: int) -> dict[str, float]:
        start = time.perf_counter()
        groups, times = given.groups, given.times_us
        history = windows.history(columns, times, groups, times, groups, scale.history_entities, threads=THREADS)
        seconds = time.perf_counter() - start
        found["ours"] = history.columns
        return {"history_s": seconds}

    def theirs(_: int) -> dict[str, float]:
        start = time.perf_counter()
        found["theirs"] = session.sql(query()).to_arrow_table()
        seconds = time.perf_counter() - start
        if "ours" in found:
            compare(found["ours"], found["theirs"])
        return {"duckdb_s": seconds}

    return {"history": ours, "duckdb": theirs}


def query() -> str:
    """The same values in SQL: a window starts at a whole hop, itself excluded."""
    values = []
    for name in NAMES:
        for window_us, hop_us in SPANS:
            reach = f"time_us - (time_us - {window_us}) // {hop_us} * {hop_us} - 1"
            over = f"over (partition by entity order by time_us range between {reach} preceding and current row)"
            values.append(f"{name}(value::double) {over} as {name}_{window_us}")
    return f"select row, {', '.join(values)} from events"  # noqa: S608 - made of the constants above


def compare(ours: Sequence[Any], theirs: pa.Table) -> None:
    """Raises ArithmeticError where a value differs by more than the rounding of DuckDB's sums."""
    order = np.argsort(theirs["row"].to_numpy())
    for at, column in enumerate(ours):
        name = NAMES[at // len(SPANS)]
        kind = {"count": np.int64, "min": np.float32, "max": np.float32}.get(name, np.float64)
        mine = np.frombuffer(column.values, kind).astype(np.float64)
        other = theirs[at + 1].to_numpy()[order]
        size = np.maximum(np.abs(other), 1.0)
        if (np.abs(mine - other) > DIFFERENCE_MAX * size).any():
            raise ArithmeticError(f"{name} over {SPANS[at % len(SPANS)][0]} us differs from DuckDB's")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints progress and the JSON line; 0 where every target is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the events; keeps no file")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args(arguments)
    scale = QUICK if chosen.quick else FULL
    random = np.random.default_rng(chosen.seed)
    sides = {
        "stream": stream_side(scale, random),
        "fold": fold_side(random),
        "core": core_side(random),
        **history_sides(scale, random),
    }
    rounds = alternate(sides, ROUNDS_MIN)
    for name, values in rounds.items():
        _say(f"windows: {name}: {', '.join(str(rounded(value)) for value in values)}")
    report = Report("windows", {**scale._asdict(), "seed": chosen.seed}, figures(rounds), commit(ROOT), machine())
    if not chosen.quick:
        RESULT.write_text(report.to_json() + "\n")
    _say(report.to_json())
    return 0 if report.ok else 1


def figures(rounds: dict[str, list[float]]) -> tuple[Figure, ...]:
    """The figures with their targets."""
    stream, fold = tuple(rounds["events_per_s"]), tuple(rounds["fold_us"])
    note = "5 aggregates over 4 windows, CPU time of one core"
    against = "DuckDB 2 window functions, 2 threads, the same starts of windows"
    return (
        Figure("window_events_per_s", stream, "higher", "events/s", "none: a bound", 1e6, note),
        Figure("window_history_vs_duckdb", ratios(rounds["duckdb_s"], rounds["history_s"]), "higher", "x", against, 5),
        Figure("fold_us_100x200", fold, "lower", "us", "none: a bound", 2_000, "CPU time of one core"),
        Figure(
            "core_cpu_us_100x200_windowed",
            tuple(rounds["core_us"]),
            "lower",
            "us",
            "none: a bound",
            2_000,
            "request bytes to response bytes, rows in the table",
        ),
        Figure(
            "core_cpu_us_1x200_windowed",
            tuple(rounds["core_1_us"]),
            "lower",
            "us",
            "none: a bound",
            60,
            "the same of one entity",
        ),
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
