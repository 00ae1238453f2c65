"""The historical comparison: every figure is reported, every engine gives the same rows, and data are made once."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from loadtest.peers import historical, historical_data
from loadtest.peers.result import Figure

TINY = historical.Scale("tiny", 300, 2_000, 20, 1, 1 << 30, 112 << 20, (1_000, 2_000))


def rounds(ours_s: float, ours_bytes: float) -> historical.Rounds:
    found = {}
    for engine, seconds, peak in (("headrace", ours_s, ours_bytes), ("duckdb", 6.0, 3e9), ("polars", 9.0, 2e9)):
        found[f"{engine}_seconds"] = found[f"{engine}_cpu_seconds"] = [seconds] * 5
        found[f"{engine}_peak_bytes"] = [peak] * 5
    return found


def test_ratios_are_theirs_over_ours_and_memory_is_ours_over_theirs() -> None:
    found = {one.id: one for one in historical.speed_figures(rounds(2.0, 1e9), "")}
    assert found["asof_rows_vs_duckdb"].value == 3
    assert found["asof_rows_vs_polars"].value == 4.5
    assert found["asof_peak_memory_vs_duckdb"].value == pytest.approx(1 / 3)
    assert all(found[name].ok for name in ("asof_rows_vs_duckdb", "asof_rows_vs_polars"))
    slower = {one.id: one.ok for one in historical.speed_figures(rounds(2.1, 1.1e9), "")}
    assert not slower["asof_rows_vs_duckdb"]
    assert not slower["asof_peak_memory_vs_duckdb"]


def test_results_that_differ_break_every_ratio() -> None:
    found = {one.id: one for one in historical.speed_figures(rounds(1.0, 1.0), "results differ: polars v0__f1")}
    assert not any(found[name].ok for name in list(historical.AIMS)[:3])


def test_nothing_measured_leaves_every_figure_missing_with_the_reason() -> None:
    found = historical.completed([], "no files", historical.FULL)
    assert [one.id for one in found] == list(historical.AIMS)
    assert not any(one.ok for one in found)
    quick = {one.id: one.ok for one in historical.completed([], "no files", historical.QUICK)}
    assert [name for name, ok in quick.items() if ok] == ["asof_flat_cost"]


def test_every_engine_gives_the_same_rows_and_the_digest_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(historical, "FOLDER", tmp_path)
    report = historical.run(TINY)
    figures = {one.id: one for one in report.figures}
    assert all(isinstance(figures[name], Figure) for name in historical.AIMS), report.to_json()
    assert not any(one.broken for one in figures.values() if isinstance(one, Figure))
    assert {"headrace_seconds", "duckdb_peak_bytes", "polars_cpu_seconds"} <= figures.keys()


def test_files_are_made_once_and_times_never_meet(tmp_path: Path) -> None:
    first = historical_data.history_file(tmp_path, 0, 1_000, 10)
    stamp = Path(first).stat().st_mtime_ns
    assert historical_data.history_file(tmp_path, 0, 1_000, 10) == first
    assert Path(first).stat().st_mtime_ns == stamp
    times = pq.read_table(first)["event_time"].to_pylist()
    assert times == sorted(set(times))
