"""Joins views of growing sizes on a standalone Spark cluster; says core-hours per TB and how linear they are.

`python -m loadtest.spark.run --gb 5,10,20 --keep`; the last line printed is one JSON object.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

from pyspark.sql import SparkSession

from batch.historical import join_to_parquet
from batch.spark.cluster import Cluster, standalone_cluster
from batch.spark.historical import run_historical
from batch.spark.inputs import file_rows, history_of_files
from batch.spark.plan import TASK_BYTES, plan_historical
from batch.spark.session import open_session
from loadtest.peers.result import commit, machine
from loadtest.spark.data import SPAN_US, START_US, Data, view_of, write_data
from loadtest.spark.usage import sampled

ROOT: Final = Path(__file__).resolve().parent.parent.parent
GB: Final = 1_000_000_000
TB: Final = 1_000_000_000_000
LINEARITY_MAX: Final = 1.2
CPU_VS_LOCAL_MAX: Final = 2.0
HOURS_OF_A_TB: Final = 0.5
WARM_BYTES: Final = 64_000_000  # a first small join, so that no size pays for the start of workers


@dataclass(frozen=True, slots=True)
class Measured:
    """One size."""

    view_bytes: int
    view_rows: int
    spine_rows: int
    seconds: float
    core_seconds: float
    executor_peak_bytes: int
    local_core_seconds: float
    digest: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What the sizes say together.

    `linearity` is the most over the least core-seconds per byte; `cpu_vs_local` divides what a further row costs on
    Spark by what it costs the local engine, between the least and the largest size, so that no start counts;
    `core_ns_per_row` and `local_core_ns_per_row` are the two.
    """

    core_hours_per_tb: float
    cores_for_1_tb_in_30_minutes: float
    linearity: float
    cpu_vs_local: float | None
    core_ns_per_row: float | None
    local_core_ns_per_row: float | None
    executor_peak_bytes: int
    ok: bool


def figures_of(sizes: Sequence[Measured]) -> Figures:
    """Figures of a run; the rate is that of the largest size."""
    rates = [one.core_seconds / one.view_bytes for one in sizes]
    largest = max(sizes, key=lambda one: one.view_bytes)
    hours = largest.core_seconds / largest.view_bytes * TB / 3_600
    linearity = max(rates) / min(rates)
    peak = max(one.executor_peak_bytes for one in sizes)
    least = min(sizes, key=lambda one: one.view_bytes)
    rows = largest.view_rows - least.view_rows
    here = _ns_per_row(largest.core_seconds - least.core_seconds, rows)
    local = _ns_per_row(largest.local_core_seconds - least.local_core_seconds, rows)
    against = here / local if here is not None and local is not None else None
    ok = linearity <= LINEARITY_MAX and (against is None or against <= CPU_VS_LOCAL_MAX)
    return Figures(hours, hours / HOURS_OF_A_TB, linearity, against, here, local, peak, ok)


def _ns_per_row(seconds: float, rows: int) -> float | None:
    return seconds / rows * 1e9 if rows > 0 and seconds > 0 else None


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 1 where the cost per byte is not flat."""
    options = _parse(words)
    sizes = [float(text) for text in options.gb.split(",")]
    with tempfile.TemporaryDirectory(prefix="headrace-spark-", dir=options.folder) as folder:
        measured = measure(Path(folder), sizes, options)
    figures = figures_of(measured)
    document = {
        "area": "spark", "date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit(ROOT), "machine": machine(),
        "workers": options.workers, "cores_per_worker": options.cores, "executor_memory": options.memory,
        "seed": options.seed, "sizes": [asdict(one) for one in measured], "figures": asdict(figures),
    }  # fmt: skip
    if options.keep:
        file = ROOT / "loadtest/results" / f"spark-{document['date']}.json"
        file.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(json.dumps(document) + "\n")
    return 0 if figures.ok else 1


def measure(folder: Path, sizes_gb: Sequence[float], options: argparse.Namespace) -> list[Measured]:
    """Joins every size on one cluster, the files of one size at a time on disk."""
    found = []
    cluster_options = {"workers": options.workers, "cores_per_worker": options.cores}
    with standalone_cluster(folder / "cluster", **cluster_options, worker_memory=options.memory) as cluster:
        more = {
            "spark.executor.memory": options.memory,
            "spark.local.dir": str(folder / "scratch"),
        }
        session = open_session(cluster.url, None, jars=(), application="scale", more=more)
        try:
            for number, size in enumerate([WARM_BYTES / GB, *sizes_gb]):
                data = write_data(folder / f"data-{number}", int(size * GB), options.seed)
                one = _joined(session, cluster, folder / "results", data, options.task_bytes)
                if number:
                    one = _beside_local(one, folder / "local.parquet", data)
                shutil.rmtree(folder / f"data-{number}")
                shutil.rmtree(folder / "results")
                if number:
                    found.append(one)
                    sys.stderr.write(f"{size} GB: {one.seconds:.0f} s, {one.core_seconds:.0f} core-seconds\n")
        finally:
            session.stop()
    return found


def _joined(session: SparkSession, cluster: Cluster, results: Path, data: Data, task_bytes: int) -> Measured:
    plan = plan_historical(
        file_rows(data.spine, "spine"),
        [history_of_files(view_of(data.history), data.history)],
        run_id=uuid4(),
        time_column="event_time",
        cutoff_us=START_US + 2 * SPAN_US,
        output=str(results),
        memory_bytes=task_bytes,
    )
    # This process is the driver and the parent of all: its Java, the master, the workers and their executors.
    workers = [process.pid for process in cluster.processes[1:]]
    began_s = time.monotonic()
    with sampled([os.getpid()]) as whole, sampled(workers) as executors:
        result = run_historical(session, plan)
    seconds = time.monotonic() - began_s
    return Measured(
        data.history_bytes, data.history_rows, data.spine_rows, seconds, whole.core_seconds, executors.peak_bytes,
        0.0, result.digest.sha256,
    )  # fmt: skip


def _beside_local(one: Measured, output: Path, data: Data) -> Measured:
    """The same join by the local engine; raises AssertionError where its digest is another."""
    began = os.times()
    report = join_to_parquet(
        data.spine,
        [view_of(data.history)],
        str(output),
        time_column="event_time",
        cutoff_us=START_US + 2 * SPAN_US,
        temp_folder=str(output.parent),
    )
    now = os.times()
    assert report.digest.sha256 == one.digest, "both engines have the same kernels"
    output.unlink()
    return replace(one, local_core_seconds=now.user + now.system - began.user - began.system)


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadtest.spark.run", description=__doc__)
    parser.add_argument("--gb", default="5,10,20", help="sizes of the view's files, GB")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cores", type=int, default=1, help="of one worker")
    parser.add_argument("--memory", default="1g", help="of one executor's Java heap")
    parser.add_argument("--task-bytes", type=int, default=TASK_BYTES, help="what the rows of one task may take")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="where files are made; three times the largest size must fit")
    parser.add_argument("--keep", action="store_true", help="write loadtest/results/spark-DATE.json")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
