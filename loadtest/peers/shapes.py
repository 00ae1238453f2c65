"""The named Locust shapes against one loaded server, rows cached and cold, and a long write; the last line is JSON.

All shapes run at once, each with an equal share of the calls, so that each is judged beside the others.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np

from loadtest.calls import READ_METHOD, Calls
from loadtest.dataset import SCENARIOS, SERVICES, WRITE_VIEW, View, row_count_of
from loadtest.loading import load, write_requests
from loadtest.peers import grpc_load
from loadtest.peers.grpc_load import Aim
from loadtest.peers.h2load import load_failed
from loadtest.peers.headrace_peer import HeadracePeer, Memory
from loadtest.peers.processes import ROOT
from loadtest.peers.result import Figure, Report, commit, machine
from loadtest.peers.slo import locust_summary
from loadtest.peers.stage import BLOCK_CACHE_BYTES, CACHE, WRITE_BUFFER_BYTES
from loadtest.rows import EVENT_TIME_US, SEED

RESULTS: Final = ROOT / "loadtest" / "results" / "shapes.json"
NAMES: Final = ("1x200", "100x200", "1x1000", "cross")
VIEWS: Final = tuple(dict.fromkeys(view for views in SERVICES.values() for view in views))
P99_MS_MAX: Final = 10.0
CACHE_SHARE: Final = 0.25  # of the data, in the cold case
ROW_OVERHEAD_BYTES: Final = 76  # docs/decisions/0003-row-layout.md
START_S: Final = 60.0  # imports of four processes and the requests that they make first
SWEEP_ROWS: Final = 100  # users of one warming call
WARM_COLD_S: Final = 30.0
WRITE_CHUNK_ROWS: Final = 500_000
WRITE_KEYS_FIRST: Final = 100_000_000
SETTLED_SHARE: Final = 0.05  # of a core: below it the server compacts no more
SETTLE_S: Final = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """How much a run loads and how long it judges."""

    entities: int
    duration_s: float
    rate: float
    write_rows: int
    table_bytes: int

    @property
    def data_bytes(self) -> int:
        """Packed bytes of all rows that the shapes read."""
        return sum(row_count_of(view, self.entities) * _row_bytes(view) for view in VIEWS)


FULL: Final = Size(1_000_000, 300.0, 200.0, 10_000_000, 9 << 30)
QUICK: Final = Size(10_000, 5.0, 100.0, 100_000, 256 << 20)


def judged(peer: HeadracePeer, size: Size, state: str, folder: Path) -> list[Figure]:
    """One window with all shapes at once."""
    with ThreadPoolExecutor(len(NAMES)) as pool:
        summaries = list(pool.map(lambda name: _locust(peer, size, name, folder / f"{state}-{name}"), NAMES))
    return [_figure(name, state, summary) for name, summary in zip(NAMES, summaries, strict=True)]


def _figure(name: str, state: str, summary: dict[str, object]) -> Figure:
    breaches = summary["breaches"]
    assert isinstance(breaches, list)
    context = {key: summary[key] for key in ("p50_ms", "max_ms", "lag_p99_ms", "call_count", "error_count")}
    return Figure(
        id=f"p99_ms_{name}_{state}",
        rounds=(float(str(summary["p99_ms"])),),
        better="lower",
        unit="ms",
        peer="none: service level",
        target=P99_MS_MAX,
        note="; ".join(str(one) for one in breaches),
        context={key: float(str(value)) for key, value in context.items()},
        broken=bool(breaches),
    )


def _locust(peer: HeadracePeer, size: Size, name: str, stem: Path) -> dict[str, object]:
    words = ["--host", peer.features, "--scenario", name, "--rate", f"{size.rate / len(NAMES):g}"]
    words += ["--duration", f"{size.duration_s:g}s", "--entities", str(size.entities)]
    return locust_summary(words, stem, size.duration_s + 2 * START_S)


def warm(peer: HeadracePeer, size: Size, folder: Path) -> None:
    """Reads every row of every shape once."""
    tool = grpc_load.program(CACHE)
    for name in ("100x200", "1x1000", "cross"):
        calls = Calls(SCENARIOS[name], size.entities, SEED)
        users = np.arange(size.entities, dtype=np.int64)
        parts = np.array_split(users, max(1, size.entities // SWEEP_ROWS))
        bodies = folder / f"warm-{name}.bodies"
        grpc_load.write_bodies(bodies, (calls.request(part) for part in parts))
        _sweep(tool, peer, bodies, len(parts))


def _sweep(tool: Path, peer: HeadracePeer, bodies: Path, count: int) -> None:
    """Sends every body at least once."""
    answered = 0
    while answered < count:
        found = grpc_load.run(tool, Aim(peer.port, READ_METHOD, bodies, 1), 0, max(2.0, count / 100))
        if found.failed or not found.answered:
            raise load_failed(f"{found.failed} warming reads failed")
        answered += found.answered


def written(peer: HeadracePeer, size: Size) -> list[Figure]:
    """Rows a second of 50 f32 at LOG, new keys, until the server has compacted them; the last row is then read."""
    spent_s, count = 0.0, 0
    for first in range(WRITE_KEYS_FIRST, WRITE_KEYS_FIRST + size.write_rows, WRITE_CHUNK_ROWS):
        keys = range(first, min(first + WRITE_CHUNK_ROWS, WRITE_KEYS_FIRST + size.write_rows))
        requests = write_requests(WRITE_VIEW, keys, size.entities)
        began = time.perf_counter()
        count += peer.writer.send(requests)
        spent_s += time.perf_counter() - began
        if not peer.holds(WRITE_VIEW, [keys[0], keys[-1]], EVENT_TIME_US):
            raise load_failed("a row that was acknowledged cannot be read")
    settle_s = _settled(peer)
    context: dict[str, float | str] = {"rows": count, "settle_s": round(settle_s, 1)}
    context["rows_per_s_while_sending"] = round(count / spent_s)
    return [
        Figure("write_rows_per_s", (count / (spent_s + settle_s),), "higher", "rows/s", "measured", context=context)
    ]


def _settled(peer: HeadracePeer) -> float:
    """Seconds until the server uses almost no CPU."""
    began = time.perf_counter()
    while time.perf_counter() - began < SETTLE_S:
        before, used = time.perf_counter(), peer.server_usage().cpu_s
        time.sleep(1.0)
        if peer.server_usage().cpu_s - used < SETTLED_SHARE * (time.perf_counter() - before):
            return before - began
    raise load_failed(f"the server still compacts {SETTLE_S:.0f} s after the last row")


def run(size: Size) -> Report:
    """Loads, warms, judges, restarts with small caches, judges again."""
    figures: list[Figure] = []
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="headrace-shapes-")))
        large = Memory(size.table_bytes, BLOCK_CACHE_BYTES, WRITE_BUFFER_BYTES)
        peer = HeadracePeer(folder / "store", large)
        try:
            load(peer.writer, VIEWS, size.entities)
            figures += written(peer, size)
            warm(peer, size, folder)
            figures += judged(peer, size, "cached", folder)
        finally:
            peer.stop()
        caches = int(size.data_bytes * CACHE_SHARE)
        block = caches // 5
        small = HeadracePeer(folder / "store", Memory(caches - block, block, WRITE_BUFFER_BYTES, direct_reads=True))
        ending.callback(small.stop)
        judged(small, dataclasses.replace(size, duration_s=min(size.duration_s, WARM_COLD_S)), "warming", folder)
        figures += judged(small, size, "cold", folder)
    scale: dict[str, object] = dataclasses.asdict(size) | {"data_bytes": size.data_bytes, "cache_share": CACHE_SHARE}
    return Report("shapes", scale, tuple(figures), commit(ROOT), machine())


def _row_bytes(view: View) -> int:
    return 4 * view.feature_count + ROW_OVERHEAD_BYTES


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 when every shape met its level."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it works, judges nothing")
    size = QUICK if parser.parse_args(words).quick else FULL
    report = run(size)
    if size is FULL:
        RESULTS.write_text(report.to_json() + "\n")
    sys.stdout.write(report.to_json() + "\n")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
