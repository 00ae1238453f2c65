"""p99 at 60 % of saturation: h2load holds a steady load, Locust adds 200 calls a second open-loop and judges.

Every entity was read once before. Locust stands for clients on machines of their own, so it is scheduled in real time
where the system permits it: its own wait for a core is no latency of the server. Generators and the writer run at the
lowest priority, so that the server does not queue behind them; the rate that they held within the judged window is
read from their records, and a window with less than asked fails.
"""

import functools
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from headrace.serving.priority import lower_priority
from loadtest.dataset import WRITE_VIEW
from loadtest.loading import Writer, write_requests
from loadtest.online import run
from loadtest.peers import h2load
from loadtest.peers.h2load import Amount, Target, command, load_failed, logged_rate
from loadtest.peers.processes import ROOT, Child
from loadtest.peers.stage import Stage
from loadtest.rows import SEED
from protos.feature.v1 import online_feature_service_pb2 as pb

SATURATION_SHARE: Final = 0.6
JUDGE_RATE: Final = 200
LOCUST_START_S: Final = 30.0  # imports, and the requests that it makes before the run, on busy cores
HOLDERS: Final = 2  # processes of h2load, each with half of the connections and keys of its own
SATURATION_S_MIN: Final = 2.0
WARM_ROWS: Final = 1_000  # of one read
GENERATOR_NICENESS: Final = 19
NICE: Final = ("nice", "-n", str(GENERATOR_NICENESS))
HELD_CONNECTIONS: Final = 64  # of all holders; each has one request under way, and sends in steps of 10 ms
REAL_TIME: Final = ("chrt", "--fifo", "1")
HELD_SHARE_MIN: Final = 0.95
WRITE_RATE: Final = 50_000
WRITE_BATCH_ROWS: Final = 2_500
WRITE_KEYS: Final = 200_000  # keys written over and over, 4 s apart
WRITE_SHARE_MIN: Final = 0.95


@dataclass(frozen=True, slots=True)
class Judged:
    """Locust's summary of one variant."""

    p99_ms: float
    p50_ms: float
    calls: int
    errors: int
    faults: str
    asked_rate: float
    held_rate: float
    written_rate: float = 0.0
    lag_p99_ms: float = 0.0  # of Locust's own calls behind their due times; part of the latencies
    judge: str = "normal"  # or "real time": how Locust was scheduled

    def why_not(self) -> str:
        """What broke besides the latency; empty when nothing did."""
        if self.errors or not self.calls:
            return f"{self.errors} errors in {self.calls} calls: {self.faults}"
        if self.held_rate < HELD_SHARE_MIN * self.asked_rate:
            return f"only {self.held_rate:.0f} of {self.asked_rate:.0f} requests/s were held"
        if self.written_rate and self.written_rate < WRITE_SHARE_MIN * WRITE_RATE:
            return f"only {self.written_rate:.0f} rows/s were written"
        return ""

    def context(self) -> dict[str, float | str]:
        """What stands beside the figure."""
        out: dict[str, float | str] = {"p50_ms": self.p50_ms, "lag_p99_ms": self.lag_p99_ms}
        out |= {"judge": self.judge, "calls": self.calls, "errors": self.errors}
        out |= {"asked_rps": self.asked_rate, "held_rps": self.held_rate}
        return out | ({"written_rows_per_s": self.written_rate} if self.written_rate else {})


@dataclass(frozen=True, slots=True)
class Place:
    """The server that is judged, and where files of the run go."""

    features: str
    user_count: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Generator:
    """A process that holds load, writing to `output`; `held_rate` reads from `record` what it held in a window."""

    command: list[str]
    output: Path
    record: Path
    held_rate: Callable[[Path, tuple[float, float]], float]


def judge(stage: Stage, saturation_rps: float, duration_s: float, writing: bool = False) -> Judged:
    """One window of judged load in scenario 1x200, rows cached; while writing, of the saturation beside the writer."""
    place = Place(stage.headrace.features, stage.scale.compared_entities, stage.folder)
    _warm(stage)
    with ExitStack() as ending:
        writer = ending.enter_context(_writing(place, duration_s + stage.scale.span_s)) if writing else None
        if writer:
            saturation_rps = _saturation(stage)
        rate = max(1, round((saturation_rps * SATURATION_SHARE - JUDGE_RATE) / HELD_CONNECTIONS))
        amount = Amount(duration_s + LOCUST_START_S, 0, rate)
        held = [_holder(stage, number, amount) for number in range(HOLDERS)]
        found = judged(place, held, rate * HELD_CONNECTIONS, duration_s)
    return replace(found, written_rate=writer.rate() if writer else 0.0)


def _warm(stage: Stage) -> None:
    """Reads every entity once, as rows come into the table when they are first read."""
    for first in range(0, stage.scale.compared_entities, WARM_ROWS):
        stage.headrace.read(list(range(first, min(first + WARM_ROWS, stage.scale.compared_entities))))


def _target(stage: Stage, number: int) -> Target:
    body = stage.folder / f"slo-{number}.body"
    return stage.headrace.target("1x200", stage.scale.compared_entities, SEED + 100 + number, body)


def _saturation(stage: Stage) -> float:
    return h2load.run(_target(stage, HOLDERS), Amount(max(SATURATION_S_MIN, stage.scale.span_s))).rate


def _holder(stage: Stage, number: int, amount: Amount) -> Generator:
    record = stage.folder / f"slo-{number}.tsv"
    line = command(_target(stage, number), HELD_CONNECTIONS // HOLDERS, amount, record)
    return Generator(line, record.with_suffix(".log"), record, logged_rate)


def judged(place: Place, held: list[Generator], asked_rate: float, duration_s: float) -> Judged:
    """Locust's verdict while the given load generators hold their load."""
    with ExitStack() as ending:
        children = [ending.enter_context(Child([*NICE, *one.command], one.output)) for one in held]
        summary = _locust(place, duration_s)
        dead = next((child for child in children if child.process.poll() is not None), None)
        if dead is not None:
            raise load_failed(f"a load generator ended early: {dead.tail()}")
    window_s = float(str(summary["began_at_s"])), float(str(summary["ended_at_s"]))
    return Judged(
        p99_ms=float(str(summary["p99_ms"])),
        p50_ms=float(str(summary["p50_ms"])),
        lag_p99_ms=float(str(summary["lag_p99_ms"])),
        judge="real time" if _real_time() else "normal",
        calls=int(str(summary["call_count"])),
        errors=int(str(summary["error_count"])),
        faults=str(summary["faults"]),
        asked_rate=asked_rate,
        held_rate=sum(one.held_rate(one.record, window_s) for one in held),
    )


def _locust(place: Place, duration_s: float) -> dict[str, object]:
    words = ["--host", place.features, "--scenario", "1x200", "--rate", str(JUDGE_RATE)]
    words += ["--duration", f"{duration_s:g}s", "--entities", str(place.user_count)]
    return locust_summary(words, place.folder / "locust", duration_s + 2 * LOCUST_START_S)


def locust_summary(words: list[str], stem: Path, limit_s: float) -> dict[str, object]:
    """Locust's summary of a run with these options; its files are `stem` with suffixes. Raises Unavailable."""
    summary = stem.with_suffix(".json")
    summary.unlink(missing_ok=True)
    line = run.command(run.parse(words), summary, stem.with_suffix(".html"))
    done = subprocess.run([*_real_time(), *line], cwd=ROOT, capture_output=True, timeout=limit_s, check=False)
    if not summary.exists():
        raise load_failed(f"Locust wrote no {summary.name}: {done.stderr[-500:].decode(errors='replace')}")
    found = json.loads(summary.read_text())
    assert isinstance(found, dict)
    return found


@functools.cache
def _real_time() -> tuple[str, ...]:
    """What a command begins with to be scheduled in real time; nothing where that is not permitted."""
    permitted = (
        shutil.which(REAL_TIME[0])
        and not subprocess.run([*REAL_TIME, "true"], capture_output=True, check=False).returncode
    )
    return REAL_TIME if permitted else ()


@dataclass(slots=True)
class _PacedWriter:
    """Writes existing keys at a fixed rate from a thread, the same requests over and over.

    A row that is written again has a later write time and so replaces the one before.
    """

    features: str
    requests: list[pb.WriteFeaturesRequest]
    seconds: float
    _stop: threading.Event = field(default_factory=threading.Event)
    _row_count: int = 0
    _spent_s: float = 0.0

    def run(self) -> None:
        """Sends batches at their due times until stopped."""
        lower_priority(GENERATOR_NICENESS)
        writer = Writer(self.features)
        gap_s = WRITE_BATCH_ROWS / WRITE_RATE
        began = time.perf_counter()
        for number in range(int((self.seconds + LOCUST_START_S) / gap_s)):
            if self._stop.wait(max(0.0, began + number * gap_s - time.perf_counter())):
                break
            self._row_count += writer.send([self.requests[number % len(self.requests)]])
            self._spent_s = time.perf_counter() - began
        writer.close()

    def stop(self) -> None:
        """Ends the thread's loop."""
        self._stop.set()

    def rate(self) -> float:
        """Rows a second over the window."""
        return self._row_count / self._spent_s if self._spent_s else 0.0


@contextmanager
def _writing(place: Place, duration_s: float) -> Iterator[_PacedWriter]:
    requests = write_requests(WRITE_VIEW, range(WRITE_KEYS), place.user_count, batch_rows=WRITE_BATCH_ROWS)
    writer = _PacedWriter(place.features, requests, duration_s)
    thread = threading.Thread(target=writer.run, daemon=True)
    thread.start()
    try:
        yield writer
    finally:
        writer.stop()
        thread.join(LOCUST_START_S)
