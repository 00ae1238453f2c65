"""Compares the online server with Redis and Feast; the last line printed is one JSON object."""

import argparse
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import grpc

from headrace.errors import HeadraceError
from loadtest.peers import cold, measures, plane, plot, slo
from loadtest.peers.aims import AIMS, figure, missing
from loadtest.peers.processes import ROOT
from loadtest.peers.result import ROUNDS_MIN, Figure, Missing, Report, commit, machine, ratios
from loadtest.peers.rounds import alternate
from loadtest.peers.scale import FULL, QUICK, Scale
from loadtest.peers.stage import CACHE, Say, Stage, prepare, start

RESULTS: Final = ROOT / "loadtest" / "results"
CORE_S: Final = 120.0
SERVER_ROWS_MIN: Final = 1_000_000  # 276 MB of rows; with fewer, what a server is there with hides them
PACKED_ROW_BYTES: Final = 276  # 50 f32, header and checksum: docs/decisions/0003-row-layout.md
EXPECTED: Final = (HeadraceError, grpc.RpcError, subprocess.SubprocessError, OSError, ValueError)
Rounds = dict[str, list[float]]
Found = list[Figure | Missing]


def read_figures(found: Rounds) -> list[Figure]:
    """Ratios of requests and CPU at 1x200, and Redis and the wider shapes as information."""
    ours = found["headrace_rps_1x200"]
    out = [
        figure(f"rps_1x200_vs_{name}", ratios(ours, found[f"{name}_rps_1x200"]))
        for name in ("feast_server", "feast_precomputed")
    ]
    out.append(figure("cpu_1x200_vs_empty_grpcio", ratios(found["grpcio_cpu_us_1x200"], found["empty_cpu_us"])))
    out.append(figure("native_cpu_us_1x200", found["headrace_cpu_us_1x200"]))
    out.append(figure("native_rps_vs_grpcio", ratios(ours, found["grpcio_rps_1x200"])))
    for name, rounds in found.items():
        shape = name.rpartition("_")[2]
        if name.startswith("redis") or (shape != "1x200" and name.startswith("feast")):
            id_ = f"rps_{shape}_vs_{name.removesuffix(f'_rps_{shape}')}"
            out.append(Figure(id_, ratios(found[f"headrace_rps_{shape}"], rounds), "higher", "x", name))
    units = {"rps": "requests/s", "us": "us of CPU", "ms": "ms"}
    for name, rounds in found.items():
        unit = next(text for key, text in units.items() if f"_{key}" in name)
        out.append(Figure(name, tuple(rounds), "higher" if unit == "requests/s" else "lower", unit, "measured"))
    return out


def write_figures(found: Rounds) -> list[Figure]:
    """Ratios of rows written, and the rates themselves."""
    out = [
        figure("write_rows_vs_feast", ratios(found["headrace_write_new"], found["feast_write_new"])),
        figure("write_existing_rows_vs_feast", ratios(found["headrace_write_existing"], found["feast_write_existing"])),
    ]
    return out + [
        Figure(f"{name}_rows", tuple(values), "higher", "rows/s", "measured") for name, values in found.items()
    ]


def sdk_figures(found: Rounds) -> list[Figure]:
    """Ratio of the p50 of a batch of 100 in a Python process, and both."""
    out = [figure("p50_100x200_vs_feast_sdk", ratios(found["feast_sdk_p50_ms"], found["client_p50_ms"]))]
    return out + [Figure(name, tuple(values), "lower", "ms", "measured") for name, values in found.items()]


def core_figures(scale: Scale) -> list[Figure]:
    """CPU of the request core and memory of the row table, each in a process of its own."""
    spent = _alone("core_cpu", "--rounds", str(scale.rounds))
    held = _alone("memory", str(scale.memory_entities))
    note = "resident growth of a process that fills a row table; every round would give the same"
    return [figure("core_cpu_us_100x200", spent), figure("memory_per_row_vs_packed", held, note)]


def server_memory(stage: Stage) -> Found:
    """Resident growth of the whole server per loaded row, caches included; only large stores say anything."""
    if stage.headrace.row_count < SERVER_ROWS_MIN:
        return []
    grown = stage.headrace.server_usage().resident_bytes - stage.headrace.empty_bytes
    ratio = grown / stage.headrace.row_count / PACKED_ROW_BYTES
    return [Figure("server_memory_per_row_vs_packed", (ratio,), "lower", "x", "packed bytes of a row")]


def _alone(module: str, *words: str) -> list[float]:
    command = [sys.executable, "-m", f"loadtest.peers.{module}", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CORE_S, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return [float(one) for one in found] if isinstance(found, list) else [float(found)]


def slo_figure(stage: Stage, name: str, saturation_rps: float, writing: bool) -> Figure:
    """One judged window; errors make it fail whatever the latency."""
    return verdict(name, slo.judge(stage, saturation_rps, stage.scale.slo_s, writing))


def verdict(name: str, found: slo.Judged) -> Figure:
    """The p99 of a judged window; with errors, or less load than asked, it fails whatever the latency."""
    why = found.why_not()
    one = figure(name, [found.p99_ms], note=why)
    return dataclasses.replace(one, context=found.context(), broken=bool(why))


def measure(stage: Stage, say: Say) -> Found:
    """All figures of a run; a step that stops leaves its figures missing and the others measured."""
    scale = stage.scale
    reads: Rounds = {}

    def read() -> Found:
        for shape in scale.shapes:
            reads.update(alternate(measures.read_sides(stage, shape), scale.rounds))
        return [*read_figures(reads)]

    def judged(name: str, writing: bool) -> Found:
        saturation = statistics.median(reads.get("headrace_rps_1x200") or [0])
        if not saturation:
            return [missing(name, "the saturation could not be measured")]
        return [slo_figure(stage, name, saturation, writing)]

    steps: dict[str, Callable[[], Found]] = {
        "reads": read,
        "batches in a Python process": lambda: [*sdk_figures(alternate(measures.sdk_sides(stage), scale.rounds))],
        "writes": lambda: [*write_figures(alternate(measures.write_sides(stage), scale.rounds))],
        "core and memory": lambda: [*core_figures(scale), *server_memory(stage)],
        "native data plane": lambda: [*plane.measure(stage)],
        "service level, cached": lambda: judged("p99_ms_at_60pct_cached", writing=False),
        "service level, writing": lambda: judged("p99_ms_at_60pct_writing", writing=True),
    }
    found: Found = []
    for name, step in steps.items():
        say(name)
        try:
            found += step()
        except EXPECTED as error:
            say(f"{name} stopped: {type(error).__name__}: {error}")
    return found


def run(scale: Scale) -> Report:
    """Prepares, measures and reports; what could not be measured stays in the list with its reason."""
    began = time.monotonic()
    load_before = os.getloadavg()[0]  # what other work there was, before ours began
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        sys.stdout.write(f"[{time.monotonic() - began:5.1f} s] {text}\n")
        sys.stdout.flush()

    found: Found = []
    with ExitStack() as ending:
        try:
            cached = prepare(scale, say)
            began = time.monotonic()
            say(f"scale: {json.dumps(scale.to_json())}")
            stage = start(scale, cached, ending)
            say("every side is up and loaded")
            found = measure(stage, say)
            if scale.cold:
                ending.close()  # the cold store needs the memory that the peers hold
                found += cold_figure(scale, say)
        except EXPECTED as error:
            say(f"the run stopped: {type(error).__name__}: {error}")
        why = "; ".join(text for text in said if "stopped:" in text) or "not measured at this scale"
    figures = [explained(one, load_before) for one in completed(found, why, scale)]
    said_scale = scale.to_json() | {"load_average_before": load_before}
    return Report("online", said_scale, tuple(figures), commit(ROOT), machine())


def explained(one: Figure | Missing, load_before: float) -> Figure | Missing:
    """A missed target with one line on why: what is known is how far it is off and how busy the machine was."""
    if isinstance(one, Missing) or one.ok or one.note:
        return one
    note = f"off its target; {os.cpu_count()} cores had a load of {load_before:.1f} from other work before the run"
    return dataclasses.replace(one, note=note)


def cold_figure(scale: Scale, say: Say) -> Found:
    """The judged window with data four times the memory."""
    say("service level, cold")
    with tempfile.TemporaryDirectory(prefix="headrace-cold-") as folder:
        try:
            return [verdict("p99_ms_at_60pct_cold", cold.measure(Path(folder), CACHE, scale.slo_s))]
        except EXPECTED as error:
            say(f"service level, cold, stopped: {type(error).__name__}: {error}")
            return []


def completed(found: Found, why: str, scale: Scale) -> Found:
    """Every figure that must be reported comes first, measured or not."""
    by_id = {one.id: one for one in found}
    out: Found = []
    for name in AIMS:
        left_out = name == "p99_ms_at_60pct_cold" and not scale.cold
        note = "8 GB of data are for the full run" if left_out else why
        out.append(by_id.pop(name) if name in by_id else missing(name, note, required=not left_out))
    return out + list(by_id.values())


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 when every figure was measured, met or not; the verdict stands in the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="at most a minute, at a smaller scale")
    parser.add_argument("--rounds", type=int, default=0, help=f"alternating rounds, at least {ROUNDS_MIN}")
    parser.add_argument("--slo-s", type=float, default=0, help="seconds of each judged window")
    options = parser.parse_args(words)
    scale = QUICK if options.quick else FULL
    if options.slo_s > 0:
        scale = dataclasses.replace(scale, slo_s=options.slo_s)
    if options.rounds:
        scale = dataclasses.replace(scale, rounds=max(ROUNDS_MIN, options.rounds))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the peers are ended
    report = run(scale)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "online.json").write_text(report.to_json() + "\n")
        plot.draw(report, RESULTS / "online.png")
    for one in report.figures[: len(AIMS)]:
        sys.stdout.write(f"{line_of(one)}\n")
    sys.stdout.write(report.to_json() + "\n")
    return 0 if all(isinstance(one, Figure) or not one.required for one in report.figures) else 1


def line_of(one: Figure | Missing) -> str:
    """A figure for people."""
    if isinstance(one, Missing):
        return f"{'MISSED' if one.required else 'left out'} {one.id}: not measured, {one.note}"
    mark = "ok    " if one.ok else "MISSED"
    numbers = f"{one.value:.4g} {one.unit} (target {one.target}, spread {one.spread:.0%})"
    return f"{mark} {one.id}: {numbers} {one.note}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
