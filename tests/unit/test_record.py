"""The record of a run names every test with its outcome, also the failed ones."""

import json
from pathlib import Path

from tests.record import RunRecord

REPORT = "tests/cluster/test_kill.py::test_x"


class Report:
    """What pytest says of one phase."""

    def __init__(self, outcome: str, duration: float) -> None:
        self.nodeid, self.outcome, self.duration = REPORT, outcome, duration


def test_a_test_counts_by_its_worst_phase(tmp_path: Path, repository: Path) -> None:
    record = RunRecord(tmp_path / "results", repository, 7)
    for outcome, seconds in (("passed", 0.5), ("failed", 1.0), ("passed", 0.25)):
        record.pytest_runtest_logreport(Report(outcome, seconds))  # type: ignore[arg-type]  # the parts it reads
    record.pytest_sessionfinish()
    (path,) = (tmp_path / "results").iterdir()
    found = json.loads(path.read_text())
    assert path.name == f"{found['date']}-slow.json"
    assert found["tests"] == {REPORT: {"outcome": "failed", "seconds": 1.8}}
    assert (found["seed"], bool(found["machine"]), bool(found["commit"])) == (7, True, True)


def test_a_run_without_tests_leaves_no_record(tmp_path: Path, repository: Path) -> None:
    RunRecord(tmp_path / "results", repository, 7).pytest_sessionfinish()
    assert not (tmp_path / "results").exists()
