"""Writes what a test run found as a dated JSON file: outcome and seconds per test, seed, machine and commit."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loadtest.peers.result import commit, machine


class RunRecord:
    """Collects the outcomes of one run; a test counts by its worst phase."""

    def __init__(self, folder: Path, root: Path, seed: int) -> None:
        self._folder = folder
        self._root = root
        self._seed = seed
        self._began = time.monotonic()
        self._tests: dict[str, tuple[str, float]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Hook of pytest: one phase of a test has ended."""
        outcome, seconds = self._tests.get(report.nodeid, ("passed", 0.0))
        worst = report.outcome if outcome == "passed" else outcome
        self._tests[report.nodeid] = worst, seconds + report.duration

    def pytest_sessionfinish(self) -> None:
        """Hook of pytest: all tests have ended."""
        if not self._tests:
            return
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        found = {
            "date": today,
            "commit": commit(self._root),
            "machine": machine(),
            "seed": self._seed,
            "seconds": round(time.monotonic() - self._began),
            "tests": {
                name: {"outcome": outcome, "seconds": round(seconds, 1)}
                for name, (outcome, seconds) in sorted(self._tests.items())
            },
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"{today}-slow.json").write_text(json.dumps(found, indent=1) + "\n")
