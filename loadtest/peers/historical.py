"""Compares the as-of join with DuckDB ASOF and Polars join_asof; the last line printed is one JSON object."""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq

from loadtest.peers import plot
from loadtest.peers.historical_data import FEATURES, VIEWS, job
from loadtest.peers.online import explained, line_of
from loadtest.peers.processes import ROOT
from loadtest.peers.result import ROUNDS_MIN, Better, Figure, Missing, Report, commit, machine, ratios
from loadtest.peers.rounds import Measure, alternate
from loadtest.peers.stage import CACHE

RESULTS: Final = ROOT / "loadtest" / "results"
FOLDER: Final = CACHE / "historical"
JOIN_S: Final = 600.0  # the slowest join seen is DuckDB's with 3 x 30M rows on a busy machine
ENGINES: Final = ("headrace", "duckdb", "polars")
Rounds = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Scale:
    """Rows of one run; `flat_rows` are the history rows between which the cost of a row must not grow."""

    name: str
    spine_rows: int
    history_rows: int
    entities: int
    rounds: int
    limit_bytes: int
    spill_limit_bytes: int  # so small that the spine is split on disk
    flat_rows: tuple[int, ...]


QUICK: Final = Scale("quick", 100_000, 1_000_000, 10_000, ROUNDS_MIN, 192 << 20, 112 << 20, ())
FULL: Final = Scale("full", 1_000_000, 10_000_000, 100_000, ROUNDS_MIN, 1 << 30, 256 << 20, (1_000_000, 30_000_000))


@dataclass(frozen=True, slots=True)
class Aim:
    """One figure that must be reported."""

    target: float
    better: Better
    peer: str


AIMS: Final = {
    "asof_rows_vs_duckdb": Aim(3, "higher", "DuckDB 2 ASOF LEFT JOIN, 2 threads, insertion order not kept, snappy"),
    "asof_rows_vs_polars": Aim(3, "higher", "Polars 2 lazy join_asof, sorted input marked, streamed in snappy"),
    "asof_peak_memory_vs_duckdb": Aim(1 / 3, "lower", "DuckDB 2 ASOF LEFT JOIN, peak resident size"),
    "asof_peak_memory_vs_limit": Aim(1, "lower", "none: the memory limit, with the same digest as without it"),
    "asof_flat_cost": Aim(1.3, "lower", "none: cost of a row with 30M history rows a view over that with 1M"),
}


def figure(name: str, rounds: Sequence[float], **extra: Any) -> Figure:  # fields of a figure
    """A measured figure of the list above."""
    aim = AIMS[name]
    return Figure(name, tuple(rounds), aim.better, "x", aim.peer, aim.target, **extra)


def run_engine(engine: str, work: dict[str, Any]) -> dict[str, Any]:
    """Seconds, CPU seconds and peak bytes of one join in a process of its own."""
    path = FOLDER / f"{engine}.json"
    path.write_text(json.dumps(work | {"output": output_of(engine)}))
    Path(output_of(engine)).unlink(missing_ok=True)  # a file that replaces another is flushed when it is closed
    words = [sys.executable, "-m", "loadtest.peers.historical_peers", engine, str(path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=JOIN_S, check=False)
    if done.returncode:
        raise subprocess.SubprocessError(f"{engine} ended with {done.returncode}: {done.stderr[-500:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def output_of(engine: str) -> str:
    """Result file of an engine."""
    return str(FOLDER / f"result-{engine}.parquet")


def sides(work: dict[str, Any]) -> dict[str, Measure]:
    """One join of every engine a round."""

    def side(engine: str) -> Measure:
        def measure(_: int) -> dict[str, float]:
            found = run_engine(engine, work)
            return {f"{engine}_{name}": float(found[name]) for name in ("seconds", "cpu_seconds", "peak_bytes")}

        return measure

    return {engine: side(engine) for engine in ENGINES}


def differences() -> list[str]:
    """Columns in which an engine's last result differs from ours, row by row."""
    names = [f"v{view}__f{at}" for view in range(VIEWS) for at in range(FEATURES)]
    wrong = []
    orders = {engine: pc.sort_indices(pq.read_table(output_of(engine), columns=["row"])["row"]) for engine in ENGINES}
    for name in names:
        columns = {
            engine: pq.read_table(output_of(engine), columns=[name])[name].take(orders[engine]).combine_chunks()
            for engine in ENGINES
        }
        wrong += [f"{engine} {name}" for engine in ENGINES if not columns[engine].equals(columns["headrace"])]
    return wrong


def speed_figures(found: Rounds, note: str) -> list[Figure]:
    """Ratios to the peers, and what they were made of."""
    seconds = {engine: found[f"{engine}_seconds"] for engine in ENGINES}
    peaks = {engine: found[f"{engine}_peak_bytes"] for engine in ENGINES}
    cpu = {engine: found[f"{engine}_cpu_seconds"] for engine in ENGINES}
    out = [
        figure(f"asof_rows_vs_{peer}", ratios(seconds[peer], seconds["headrace"]), note=note, broken=bool(note))
        for peer in ENGINES[1:]
    ]
    ratio = ratios(peaks["headrace"], peaks["duckdb"])
    out.append(figure("asof_peak_memory_vs_duckdb", ratio, note=note, broken=bool(note)))
    for peer in ENGINES[1:]:
        out.append(Figure(f"asof_cpu_vs_{peer}", ratios(cpu[peer], cpu["headrace"]), "higher", "x", peer))
    out.append(Figure("asof_peak_vs_polars", ratios(peaks["headrace"], peaks["polars"]), "lower", "x", "polars"))
    units = {"seconds": "s", "bytes": "bytes"}
    for name, rounds in found.items():
        out.append(Figure(name, tuple(rounds), "lower", units[name.rpartition("_")[2]], "measured"))
    return out


def limit_figure(scale: Scale, work: dict[str, Any]) -> Figure:
    """The join under its memory limit: peak over limit, and the same digest as with room."""
    free = run_engine("headrace", work | {"memory_limit_bytes": 8 << 30})
    held = run_engine("headrace", work | {"memory_limit_bytes": scale.limit_bytes})
    tight = run_engine("headrace", work | {"memory_limit_bytes": scale.spill_limit_bytes})
    same = free["sha256"] == held["sha256"] == tight["sha256"]
    peak = held["peak_bytes"] - held["base_bytes"]
    context: dict[str, float | str] = {
        "peak_bytes_with_interpreter": held["peak_bytes"],
        "spilled_bytes": held["spilled_bytes"],
        "spilled_bytes_at_the_small_limit": tight["spilled_bytes"],
        "peak_bytes_at_the_small_limit": tight["peak_bytes"] - tight["base_bytes"],
    }
    note = "" if same else "the digest changed with the limit"
    return figure("asof_peak_memory_vs_limit", [peak / scale.limit_bytes], note=note, broken=not same, context=context)


def flat_figure(scale: Scale) -> Figure:
    """Seconds per (spine + history) row at the greater history over those at the smaller."""
    costs = []
    for rows in scale.flat_rows:
        work = job(FOLDER, scale.spine_rows, rows, scale.entities)
        seconds = [run_engine("headrace", work)["seconds"] for _ in range(3)]
        costs.append(sorted(seconds)[1] / (scale.spine_rows + VIEWS * rows))
    context: dict[str, float | str] = {
        f"ns_per_row_{rows}": 1e9 * cost for rows, cost in zip(scale.flat_rows, costs, strict=True)
    }
    return figure("asof_flat_cost", [costs[-1] / costs[0]], context=context)


def run(scale: Scale) -> Report:
    """Measures every figure; what could not be measured stays in the list with its reason."""
    began, load_before = time.monotonic(), os.getloadavg()[0]

    def say(text: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - began:5.1f} s] {text}\n")
        sys.stdout.flush()

    found: list[Figure | Missing] = []
    why = "not measured at this scale"
    try:
        say(f"scale: {json.dumps(asdict(scale))}")
        work = job(FOLDER, scale.spine_rows, scale.history_rows, scale.entities)
        say("the files are there")
        rounds = alternate(sides(work), scale.rounds)
        wrong = differences()
        say(f"results compared: {len(wrong)} of {2 * VIEWS * FEATURES} columns differ")
        found += speed_figures(rounds, f"results differ: {', '.join(wrong[:5])}" if wrong else "")
        found.append(limit_figure(scale, work))
        if scale.flat_rows:
            say("flatness")
            found.append(flat_figure(scale))
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        why = f"the run stopped: {type(error).__name__}: {error}"
        say(why)
    figures = [explained(one, load_before) for one in completed(found, why, scale)]
    return Report(
        "historical", asdict(scale) | {"load_average_before": load_before}, tuple(figures), commit(ROOT), machine()
    )


def completed(found: list[Figure | Missing], why: str, scale: Scale) -> list[Figure | Missing]:
    """Every figure that must be reported comes first, measured or not."""
    by_id = {one.id: one for one in found}
    out: list[Figure | Missing] = []
    for name, aim in AIMS.items():
        required = name != "asof_flat_cost" or bool(scale.flat_rows)
        out.append(by_id.pop(name, Missing(name, aim.target, aim.better, "x", aim.peer, why, required)))
    return out + list(by_id.values())


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 when every figure was measured, met or not; the verdict stands in the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="at most a minute, at a smaller scale")
    parser.add_argument("--rounds", type=int, default=0, help=f"alternating rounds, at least {ROUNDS_MIN}")
    options = parser.parse_args(words)
    scale = QUICK if options.quick else FULL
    if options.rounds:
        scale = dataclasses.replace(scale, rounds=max(ROUNDS_MIN, options.rounds))
    FOLDER.mkdir(parents=True, exist_ok=True)
    report = run(scale)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "historical.json").write_text(report.to_json() + "\n")
        plot.draw(report, Path(RESULTS / "historical.png"))
    for one in report.figures[: len(AIMS)]:
        sys.stdout.write(f"{line_of(one)}\n")
    sys.stdout.write(report.to_json() + "\n")
    return 0 if all(isinstance(one, Figure) or not one.required for one in report.figures) else 1


if __name__ == "__main__":
    sys.exit(main())
