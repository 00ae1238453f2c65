"""Measures lineage in memory, and its closures beside rustworkx and a recursive CTE; the last line is one JSON object.

Command: python -m loadtest.peers.lineage [--quick]. Starts of one to three hops are drawn evenly from the nodes that
have edges; closures begin at the widest nodes. Ours give hops and one shortest path to each node besides.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from core_ext.lineage import FOREVER_US, LineageGraph
from headrace.errors import HeadraceError
from loadtest.peers.lineage_graph import NOW_US, REVISION_COUNT, SEED, STEP_US, Edges, generate
from loadtest.peers.lineage_peers import Peer, Postgres, Rustworkx, has_postgres
from loadtest.peers.online import explained, line_of
from loadtest.peers.processes import ROOT
from loadtest.peers.result import (
    ROUNDS_MIN,
    Better,
    Figure,
    Missing,
    Report,
    commit,
    machine,
    percentile,
    ratios,
)
from loadtest.peers.rounds import Measure, alternate
from loadtest.peers.stage import CACHE

RESULT: Final = ROOT / "loadtest" / "results" / "lineage.json"
FOLDER: Final = CACHE / "lineage"
HOPS: Final = 3
PAST_US: Final = REVISION_COUNT * STEP_US * 9 // 10  # most edges are there, as a question of last month finds them
NONE: Final = "none: a bound"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of one run; `compared` closures are asked of every peer a round."""

    name: str
    nodes: int
    edges: int
    near: int
    widest: int
    compared: int
    appended: int
    rounds: int


QUICK: Final = Scale("quick", 200_000, 1_000_000, 1_000, 100, 2, 20_000, ROUNDS_MIN)
FULL: Final = Scale("full", 2_000_000, 10_000_000, 5_000, 100, 1, 100_000, ROUNDS_MIN)
HUGE: Final = Scale("huge", 20_000_000, 100_000_000, 5_000, 20, 0, 100_000, ROUNDS_MIN)


@dataclass(frozen=True, slots=True)
class Aim:
    """One figure that must be reported."""

    target: float
    better: Better
    unit: str
    peer: str


AIMS: Final = {
    "hops3_p99_ms": Aim(10, "lower", "ms", NONE),
    "closure_p95_ms": Aim(300, "lower", "ms", NONE),
    "asof_vs_now": Aim(2, "lower", "x", "the same closures of now"),
    "bytes_per_edge": Aim(40, "lower", "bytes", NONE),
    "closure_vs_rustworkx": Aim(3, "higher", "x", "rustworkx descendants"),
    "closure_vs_postgres_cte": Aim(100, "higher", "x", "PostgreSQL recursive CTE"),
}


def figure(name: str, rounds: Sequence[float], **extra: Any) -> Figure:  # fields of a figure
    """A measured figure of the list above."""
    aim = AIMS[name]
    peer = extra.pop("peer", aim.peer)
    return Figure(name, tuple(rounds), aim.better, aim.unit, peer, aim.target, **extra)


def closure_s(graph: LineageGraph, node: int, at_us: int = NOW_US, hops: int | None = None) -> float:
    """Seconds of one closure."""
    start = np.array([node], np.uint32)
    bound = {} if hops is None else {"hops_max": hops}
    began = time.perf_counter()
    graph.closure(start, upstream=False, valid_us=at_us, known_us=NOW_US, **bound)
    return time.perf_counter() - began


def own_figures(scale: Scale, edges: Edges, graph: LineageGraph, say: Say) -> list[Figure]:
    """Latencies, bytes and appends."""
    rng = np.random.default_rng(SEED)
    near = rng.choice(np.unique(edges.now()[0]), scale.near)
    widest = edges.widest(scale.widest)
    found: dict[str, list[float]] = {"near": [], "now": [], "past": []}
    for number in range(scale.rounds):
        hops = [1 + (at + number) % HOPS for at in range(len(near))]
        spans = [closure_s(graph, int(node), hops=count) for node, count in zip(near, hops, strict=True)]
        found["near"].append(1_000 * percentile(spans, 0.99))
        now = [closure_s(graph, int(node)) for node in widest]
        past = [closure_s(graph, int(node), PAST_US) for node in widest]
        found["now"].append(1_000 * percentile(now, 0.95))
        found["past"].append(1_000 * percentile(past, 0.95))
        say(f"round {number + 1}: {', '.join(f'{name} {spans[-1]:.3g} ms' for name, spans in found.items())}")
    sizes = [closure_size(graph, int(node)) for node in widest[:1]]
    context: dict[str, float | str] = {"nodes_reached_from_the_widest": float(sizes[0])}
    return [
        figure("hops3_p99_ms", found["near"]),
        figure("closure_p95_ms", found["now"], context=context),
        figure("asof_vs_now", ratios(found["past"], found["now"])),
        bytes_figure(graph),
        append_figure(scale, edges, graph),
    ]


def closure_size(graph: LineageGraph, node: int) -> int:
    """Nodes that one reaches."""
    start = np.array([node], np.uint32)
    return len(graph.closure(start, upstream=False, valid_us=NOW_US, known_us=NOW_US)[0]) - 1


def bytes_figure(graph: LineageGraph) -> Figure:
    """Bytes that the graph has allocated for nodes, edges and spans, over its edges."""
    _, edge_count, span_count, memory_bytes = graph.measured()
    context: dict[str, float | str] = {"edges": float(edge_count), "spans": float(span_count)}
    return figure("bytes_per_edge", [memory_bytes / edge_count], context=context)


def append_figure(scale: Scale, edges: Edges, graph: LineageGraph) -> Figure:
    """Microseconds to append one edge to the graph, each in a call of its own."""
    rng = np.random.default_rng(SEED + 1)
    ends = rng.integers(0, edges.node_count, (2, scale.appended)).astype(np.uint32)
    begun, forever = np.zeros(1, np.int64), np.full(1, FOREVER_US, np.int64)
    spans = []
    for at in range(scale.appended):
        source, target = ends[0, at : at + 1], ends[1, at : at + 1]
        began = time.perf_counter()
        graph.extend(source, target, begun, forever, begun, forever)
        spans.append(time.perf_counter() - began)
    context: dict[str, float | str] = {"p99_us": round(1e6 * percentile(spans, 0.99), 2)}
    return Figure("append_us", (1e6 * sum(spans) / len(spans),), "lower", "us", NONE, context=context)


def compare(scale: Scale, edges: Edges, peer: Peer, name: str, say: Say) -> Figure:
    """Closures of ours over those of a peer, the same nodes in the same round."""
    graph = edges.graph()
    widest = edges.widest(scale.widest)
    nodes = [int(node) for node in widest[:: max(1, len(widest) // max(1, scale.compared * scale.rounds))]]

    def batch(number: int) -> list[int]:
        return [nodes[(number * scale.compared + at) % len(nodes)] for at in range(scale.compared)]

    def ours(number: int) -> dict[str, float]:
        return {"ours": sum(closure_s(graph, node) for node in batch(number))}

    def theirs(number: int) -> dict[str, float]:
        return {"theirs": sum(peer.seconds(batch(number)))}

    wrong = [node for node in nodes[: scale.compared] if not same(graph, peer, node)]
    sides: dict[str, Measure] = {"ours": ours, "theirs": theirs}
    found = alternate(sides, scale.rounds)
    say(f"{peer.name}: {1_000 * found['theirs'][-1]:.4g} ms, ours {1_000 * found['ours'][-1]:.4g} ms")
    note = f"the nodes reached from {wrong[0]} differ" if wrong else ""
    context: dict[str, float | str] = {
        "ours_ms": round(1_000 * percentile(found["ours"], 0.5), 3),
        "theirs_ms": round(1_000 * percentile(found["theirs"], 0.5), 3),
    }
    return figure(
        name, ratios(found["theirs"], found["ours"]), note=note, broken=bool(wrong), peer=peer.name, context=context
    )


def same(graph: LineageGraph, peer: Peer, node: int) -> bool:
    """Whether a peer reaches the very same nodes."""
    start = np.array([node], np.uint32)
    reached = graph.closure(start, upstream=False, valid_us=NOW_US, known_us=NOW_US)[0]
    return np.array_equal(without(np.sort(reached), node), without(peer.reached(node), node))


def without(nodes: NDArray[np.uint32], node: int) -> NDArray[np.uint32]:
    """Nodes but one: where a cycle leads back to the start, some peers count it."""
    found: NDArray[np.uint32] = nodes[nodes != node]
    return found


def peer_figures(scale: Scale, edges: Edges, say: Say) -> list[Figure | Missing]:
    """The comparisons; a peer that is not here leaves its figure missing, with the reason."""
    found: list[Figure | Missing] = []
    makers: list[tuple[str, Callable[[], Peer]]] = [
        ("closure_vs_rustworkx", lambda: Rustworkx(edges, FOLDER)),
        ("closure_vs_postgres_cte", lambda: Postgres(edges)),
    ]
    for name, make in makers:
        if name == "closure_vs_postgres_cte" and not has_postgres():
            found.append(_missing(name, "PostgreSQL is not installed (Debian: postgresql)"))
            continue
        with ExitStack() as stack:
            try:
                peer = make()
                stack.callback(peer.stop)
                found.append(compare(scale, edges, peer, name, say))
            except (subprocess.SubprocessError, OSError, HeadraceError) as error:
                found.append(_missing(name, f"{type(error).__name__}: {error}"))
    return found


def run(scale: Scale) -> Report:
    """Measures every figure; what could not be measured stays in the list with its reason."""
    began, load_before = time.monotonic(), os.getloadavg()[0]

    def say(text: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - began:5.1f} s] {text}\n")
        sys.stdout.flush()

    say(f"scale: {json.dumps(asdict(scale))}")
    edges = generate(scale.nodes, scale.edges)
    built = time.monotonic()
    graph = edges.graph()
    say(f"{graph.edge_count:,} edges in memory in {time.monotonic() - built:.2f} s")
    found: list[Figure | Missing] = [*own_figures(scale, edges, graph, say)]
    del graph
    if scale.compared:
        found += peer_figures(scale, edges, say)
    figures = [explained(one, load_before) for one in completed(found, scale)]
    return Report(
        "lineage", asdict(scale) | {"load_average_before": load_before}, tuple(figures), commit(ROOT), machine()
    )


def completed(found: list[Figure | Missing], scale: Scale) -> list[Figure | Missing]:
    """Every figure that must be reported comes first, measured or not."""
    by_id = {one.id: one for one in found}
    out: list[Figure | Missing] = []
    for name in AIMS:
        required = scale.compared > 0 or "_vs_" not in name or name == "asof_vs_now"
        out.append(by_id.pop(name, _missing(name, "not measured at this scale", required)))
    return out + list(by_id.values())


def _missing(name: str, note: str, required: bool = True) -> Missing:
    aim = AIMS[name]
    return Missing(name, aim.target, aim.better, aim.unit, aim.peer, note, required)


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 when every figure was measured, met or not; the verdict stands in the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="at most a minute, with a tenth of the edges; keeps no file")
    size.add_argument("--huge", action="store_true", help="100 million edges, without peers; about 10 GiB of memory")
    parser.add_argument("--rounds", type=int, default=0, help=f"rounds, at least {ROUNDS_MIN}")
    options = parser.parse_args(words)
    scale = QUICK if options.quick else HUGE if options.huge else FULL
    if options.rounds:
        scale = dataclasses.replace(scale, rounds=max(ROUNDS_MIN, options.rounds))
    report = run(scale)
    if not options.quick:
        path = RESULT.with_stem(f"lineage-{scale.name}") if options.huge else RESULT
        path.write_text(report.to_json() + "\n")
    for one in report.figures[: len(AIMS)]:
        sys.stdout.write(f"{line_of(one)}\n")
    sys.stdout.write(report.to_json() + "\n")
    return 0 if all(isinstance(one, Figure) or not one.required for one in report.figures) else 1


if __name__ == "__main__":
    sys.exit(main())
