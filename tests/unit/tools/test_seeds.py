"""Runs of several seeds: their record, their exit code, and the end of their time."""

import json
from pathlib import Path
from typing import Any

import pytest

from tools.seeds import run_seeds


class Runs:
    """Stands for pytest: takes time, and writes the record that tests/record.py writes."""

    def __init__(self, failing: int | None = None, seconds: float = 60.0) -> None:
        self.failing = failing
        self.seconds = seconds
        self.now_s = 0.0
        self.seeds: list[int] = []

    def clock(self) -> float:
        return self.now_s

    def __call__(self, seed: int, folder: Path) -> int:
        self.seeds.append(seed)
        self.now_s += self.seconds
        outcome = "failed" if seed == self.failing else "passed"
        told: dict[str, Any] = {"date": "d", "commit": "c", "machine": "m", "seed": seed, "seconds": 60}
        (folder / "d-slow.json").write_text(json.dumps({**told, "tests": {"t": {"outcome": outcome, "seconds": 1}}}))
        return int(outcome == "failed")


def test_every_seed_runs_and_stands_in_one_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs()
    assert run_seeds("cluster", [3, 1, 2], 1_500, runs, tmp_path, clock=runs.clock) == 0
    (path,) = tmp_path.iterdir()
    assert path.name.endswith("-cluster.json")
    told = json.loads(path.read_text())
    assert [run["seed"] for run in told["runs"]] == runs.seeds == [3, 1, 2]
    assert (told["commit"], told["runs"][0]["tests"]["t"]["outcome"]) == ("c", "passed")
    assert "seed 3: 1 passed in 60 s" in capsys.readouterr().out


def test_seed_that_fails_is_named_and_the_others_still_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs(failing=1)
    assert run_seeds("cluster", [3, 1, 2], 1_500, runs, tmp_path, clock=runs.clock) == 1
    assert runs.seeds == [3, 1, 2]
    assert "repeat it with --seed 1" in capsys.readouterr().out


def test_run_that_would_end_too_late_is_not_begun_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs(seconds=600)
    assert run_seeds("cluster", [3, 1, 2], 1_500, runs, tmp_path, clock=runs.clock) == 1
    assert runs.seeds == [3, 1]
    assert "1 of 3 seeds are left out" in capsys.readouterr().out


def test_run_without_a_record_fails(tmp_path: Path) -> None:
    assert run_seeds("cluster", [1], 60, lambda _seed, _folder: 0, tmp_path) == 1
    assert list(tmp_path.iterdir()) == []
