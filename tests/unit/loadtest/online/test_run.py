"""Locust runs against a small server, headless, and its exit code is the verdict."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtest.online import run

STAND_IN = Path(__file__).resolve().parents[1] / "stand_in.py"
ROOT = Path(__file__).resolve().parents[4]


@contextmanager
def server(*words: str) -> Iterator[str]:
    command = [sys.executable, str(STAND_IN), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)})
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def outcome(folder: Path, host: str, *words: str) -> tuple[int, dict[str, object]]:
    options = run.parse(["--host", host, "--duration", "2s", "--rate", "60", "--entities", "1000", *words])
    summary = folder / "summary.json"
    done = subprocess.run(
        run.command(options, summary, folder / "report.html"), cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    found = json.loads(summary.read_text())
    assert isinstance(found, dict)
    return done.returncode, found


def test_good_server_passes_and_leaves_a_report(tmp_path: Path) -> None:
    with server() as host:
        code, found = outcome(tmp_path, host, "--p99-ms-max", "2000", "--scenario", "cross")
    assert (code, found["error_count"]) == (0, 0)
    assert int(str(found["call_count"])) > 30
    assert "gRPC" in (tmp_path / "report.html").read_text()


def test_slow_server_does_not_slow_the_arrivals_and_breaks_the_gate(tmp_path: Path) -> None:
    with server("--stall-s", "0.4") as host:
        code, found = outcome(tmp_path, host, "--p99-ms-max", "100", "--duration", "3s")
    assert code == 1
    assert int(str(found["planned_count"])) > 60, "four workers at 0.4 s would let a closed loop start 30 calls"
    assert float(str(found["p99_ms"])) > 1_000, "waiting for a worker counts"


def test_wrong_values_are_errors(tmp_path: Path) -> None:
    with server("--spoil") as host:
        code, found = outcome(tmp_path, host, "--p99-ms-max", "5000", "--rate", "120")
    assert code == 1
    assert "values differ" in str(found["faults"])


def test_no_server_fails_the_gate(tmp_path: Path) -> None:
    code, found = outcome(tmp_path, "127.0.0.1:1")
    assert (code, found["breaches"]) == (1, ["no call was answered"])


@pytest.mark.parametrize(("text", "expected"), [("30s", 30.0), ("5m", 300.0), ("500ms", 0.5), ("1.5s", 1.5)])
def test_durations(text: str, expected: float) -> None:
    assert run.duration_s(text) == expected


@pytest.mark.parametrize("text", ["30", "0s", "-1s", "5h", "soon", "nans"])
def test_text_that_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a duration"):
        run.duration_s(text)


def test_web_page_stays_on_loopback(tmp_path: Path) -> None:
    options = run.parse(["--host", "127.0.0.1:7", "--web", "8099"])
    words = run.command(options, tmp_path / "s", tmp_path / "r")
    assert words[words.index("--web-host") + 1] == "127.0.0.1"
    assert "--headless" not in words
