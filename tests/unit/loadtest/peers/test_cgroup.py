"""Processes start inside their memory limit."""

import subprocess
from pathlib import Path

from loadtest.peers.cgroup import Limit


def test_process_enters_its_group_before_it_runs(tmp_path: Path) -> None:
    command = Limit(tmp_path).command(["sh", "-c", "echo running as $$"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    assert done.stdout.strip() == f"running as {(tmp_path / 'cgroup.procs').read_text().strip()}"


def test_process_that_cannot_enter_does_not_run(tmp_path: Path) -> None:
    command = Limit(tmp_path / "gone").command(["echo", "ran without a limit"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode != 0
    assert done.stdout == ""
