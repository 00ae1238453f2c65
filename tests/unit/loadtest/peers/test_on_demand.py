"""The comparison of on-demand reads: a real server computes what numpy does, and a wrong value ends it."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from headrace.errors import Unavailable
from loadtest.peers import on_demand
from loadtest.peers.on_demand import FEATURES, SERVICE, STORED, figures, started, target


def test_targets_are_written_only_after_their_answers_were_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as ending:
        peer = started(tmp_path, ending)
        for service in (SERVICE, STORED):
            assert target(peer, service, tmp_path).body.stat().st_size > 0
        right = on_demand.expected()
        assert len(right) == FEATURES
        monkeypatch.setattr(on_demand, "expected", lambda: right + 1.0)
        with pytest.raises(Unavailable, match="computes other values"):
            target(peer, SERVICE, tmp_path)


def test_the_figure_has_the_target_of_its_issue() -> None:
    found = figures({"on_demand_us": [61.0], "on_demand_rps": [1.0], "stored_us": [20.0], "stored_rps": [1.0]})
    assert {figure.id: figure.ok for figure in found} == {
        "native_cpu_us_1x50_on_demand": False,
        "native_rps_1x50_on_demand": True,
        "native_cpu_us_1x50_stored": True,
    }
