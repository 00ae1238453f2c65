"""Every figure that must be reported stands in the report, in order, measured or not."""

from pathlib import Path

import pytest

from loadtest.peers.aims import AIMS, figure, missing
from loadtest.peers.online import completed, explained, line_of, read_figures, write_figures
from loadtest.peers.plot import draw, margin
from loadtest.peers.result import Report
from loadtest.peers.scale import FULL, QUICK

ROUNDS = [1.0, 2.0, 3.0, 4.0, 5.0]


def reads(rate: float = 4_000.0) -> dict[str, list[float]]:
    return {
        "headrace_rps_1x200": [rate] * 5,
        "headrace_cpu_us_1x200": [20.0] * 5,
        "grpcio_rps_1x200": [500.0] * 5,
        "grpcio_cpu_us_1x200": [200.0] * 5,
        "headrace_p99_ms_1x200": ROUNDS,
        "feast_server_rps_1x200": [80.0] * 5,
        "feast_precomputed_rps_1x200": [100.0] * 5,
        "redis_get_rps_1x200": [5_000.0] * 5,
        "redis_hmget_rps_1x200": [400.0] * 5,
        "empty_cpu_us": [160.0] * 5,
    }


def test_nothing_measured_leaves_every_figure_missing_with_the_reason() -> None:
    found = completed([], "redis-server is not installed", FULL)
    assert [one.id for one in found] == list(AIMS)
    assert not any(one.ok for one in found)
    assert "redis-server is not installed" in line_of(found[0])


def test_quick_run_may_leave_out_the_cold_store_alone() -> None:
    found = {one.id: one.ok for one in completed([], "stopped", QUICK)}
    assert [name for name, ok in found.items() if ok] == ["p99_ms_at_60pct_cold"]


def test_measured_figures_come_in_the_order_of_the_list_and_information_last() -> None:
    found = completed([*read_figures(reads()), missing("core_cpu_us_100x200", "no core")], "stopped", QUICK)
    assert [one.id for one in found[: len(AIMS)]] == list(AIMS)
    assert {"redis_get_rps_1x200", "empty_cpu_us"} <= {one.id for one in found[len(AIMS) :]}


def test_ratios_are_ours_over_theirs() -> None:
    found = {one.id: one for one in read_figures(reads())}
    assert found["rps_1x200_vs_feast_server"].value == 50
    assert found["rps_1x200_vs_feast_precomputed"].value == 40
    assert found["cpu_1x200_vs_empty_grpcio"].value == 1.25
    assert found["native_cpu_us_1x200"].value == 20
    assert found["native_rps_vs_grpcio"].value == 8
    assert found["rps_1x200_vs_redis_get"].value == 0.8
    assert found["rps_1x200_vs_redis_hmget"].value == 10
    assert all(one.ok for one in found.values())
    assert not {one.id: one for one in read_figures(reads(3_000.0))}["rps_1x200_vs_feast_server"].ok


def test_writes_are_compared_for_new_and_for_existing_keys() -> None:
    names = ("headrace_write_new", "headrace_write_existing", "feast_write_new", "feast_write_existing")
    rates = dict(zip(names, ([200_000.0], [100_000.0], [2_000.0], [2_000.0]), strict=True))
    found = {one.id: one.value for one in write_figures(rates)}
    assert (found["write_rows_vs_feast"], found["write_existing_rows_vs_feast"]) == (100, 50)


def test_unknown_figure_is_refused() -> None:
    with pytest.raises(KeyError):
        figure("rps_1x200_vs_nobody", ROUNDS)


def test_missed_target_is_explained_and_a_met_one_is_not() -> None:
    missed = explained(figure("rps_1x200_vs_feast_server", [39.0]), load_before=9.3)
    assert "a load of 9.3 from other work" in str(missed.to_json()["note"])
    assert "note" not in explained(figure("rps_1x200_vs_feast_server", [41.0]), load_before=9.3).to_json()


def test_margin_is_above_one_where_the_target_is_met() -> None:
    assert margin(figure("rps_1x200_vs_feast_server", ROUNDS), 80) == 2
    assert margin(figure("core_cpu_us_100x200", ROUNDS), 30) == 2


def test_plot_is_a_png(tmp_path: Path) -> None:
    report = Report("online", {"name": "quick"}, tuple(read_figures(reads())), "abc", "machine")
    draw(report, tmp_path / "online.png")
    assert (tmp_path / "online.png").read_bytes().startswith(b"\x89PNG")
