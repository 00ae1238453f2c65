"""Medians, spreads, verdicts and the JSON of a comparison."""

import json
from pathlib import Path

import pytest

from loadtest.peers.result import Figure, Missing, Report, commit, percentile, ratios


def figure(*rounds: float, target: float | None = 40, better: str = "higher") -> Figure:
    assert better in ("higher", "lower")
    return Figure("rps", rounds, "higher" if better == "higher" else "lower", "x", "feast", target)


def test_value_is_the_median_of_the_rounds() -> None:
    assert figure(50, 10, 41, 42, 100).value == 42


def test_spread_is_half_the_quartile_distance_over_the_median() -> None:
    assert figure(80, 90, 100, 110, 120).spread == pytest.approx(0.1)
    assert figure(80).spread == 0


def test_target_is_met_in_the_direction_that_is_better() -> None:
    assert figure(40).ok
    assert not figure(39.9).ok
    assert figure(1.25, target=1.25, better="lower").ok
    assert not figure(1.26, target=1.25, better="lower").ok


def test_figure_without_target_informs() -> None:
    assert figure(0.1, target=None).ok


def test_figure_without_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="no rounds"):
        figure()


def test_ratios_pair_the_rounds() -> None:
    assert ratios([10, 30], [5, 10]) == (2, 3)


def test_ratios_of_unequal_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rounds of one side and 1"):
        ratios([1, 2], [1])


def test_ratio_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="measured nothing"):
        ratios([1], [0])


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (0.991, 100), (1, 100), (0.001, 1)])
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)


def test_missed_target_stays_in_the_list_and_fails_the_report() -> None:
    missing = Missing("p99", 10, "lower", "ms", "", "the server did not start")
    report = Report("online", {"entities": 5}, (figure(41), missing), "abc", "machine")
    found = json.loads(report.to_json())
    assert [one["id"] for one in found["figures"]] == ["rps", "p99"]
    assert [one["ok"] for one in found["figures"]] == [True, False]
    assert found["figures"][1]["note"] == "the server did not start"
    assert found["ok"] is False


def test_figure_that_the_scale_leaves_out_does_not_fail_the_report() -> None:
    left_out = Missing("p99_cold", 10, "lower", "ms", "", "full run only", required=False)
    assert Report("online", {}, (figure(41), left_out), "abc", "machine").ok


def test_json_has_the_documented_fields() -> None:
    found = json.loads(Report("online", {"entities": 5}, (figure(41, 43),), "abc", "cpu").to_json())
    assert set(found) == {"area", "commit", "machine", "scale", "figures", "ok"}
    assert {"id", "value", "target", "better", "unit", "peer", "rounds"} <= set(found["figures"][0])
    assert found["figures"][0]["rounds"] == [41, 43]


def test_commit_outside_a_repository_is_unknown(tmp_path: Path) -> None:
    assert commit(tmp_path) == "unknown"
