"""Figures of a scale run, the size of its data, and what its sampler counts."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from batch.historical import join_to_parquet
from loadtest.spark.data import SPAN_US, SPINE_SHARE, START_US, view_of, write_data
from loadtest.spark.run import Measured, figures_of
from loadtest.spark.usage import sampled

ONE = Measured(5_000_000_000, 100, 5, 10.0, 50.0, 7, 20.0, "d")


def test_figures_are_those_of_the_largest_size_and_linear_within_a_fifth() -> None:
    other = replace(
        ONE,
        view_bytes=10_000_000_000,
        view_rows=300,
        core_seconds=110.0,
        local_core_seconds=60.0,
        executor_peak_bytes=9,
    )
    found = figures_of([ONE, other])
    assert found.core_hours_per_tb == pytest.approx(110.0 * 100 / 3_600)
    assert found.cores_for_1_tb_in_30_minutes == pytest.approx(2 * found.core_hours_per_tb)
    assert found.linearity == pytest.approx(1.1)
    assert (found.executor_peak_bytes, found.ok) == (9, True)
    assert found.cpu_vs_local == pytest.approx(60.0 / 40.0)
    assert found.core_ns_per_row == pytest.approx(60.0 / 200 * 1e9)
    assert found.local_core_ns_per_row == pytest.approx(40.0 / 200 * 1e9)
    assert figures_of([ONE]).cpu_vs_local is None
    assert not figures_of([ONE, replace(other, local_core_seconds=45.0)]).ok, "over twice the local engine"
    assert not figures_of([ONE, replace(other, core_seconds=121.0)]).ok


def test_data_have_their_size_and_join(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 60_000_000, seed=1)
    assert 60_000_000 <= data.history_bytes < 100_000_000
    assert data.history_rows == sum(pq.read_metadata(file).num_rows for file in data.history)
    assert data.spine_rows == data.history_rows // SPINE_SHARE
    report = join_to_parquet(
        data.spine,
        [view_of(data.history)],
        str(tmp_path / "out.parquet"),
        time_column="event_time",
        cutoff_us=START_US + 2 * SPAN_US,
    )
    assert report.rows == data.spine_rows


def test_usage_counts_what_a_process_burns_while_it_is_looked_at() -> None:
    burn = "import sys; sum(range(20_000_000)); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        with sampled([process.pid]) as usage:
            process.stdout.readline()
        spent = psutil.Process(process.pid).cpu_times()
        process.stdin.close()
    assert 0 < usage.core_seconds <= spent.user + spent.system
    assert usage.peak_bytes > 1_000_000
