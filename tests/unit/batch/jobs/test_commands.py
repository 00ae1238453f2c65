"""Commands of the worker where only the packages of the demo are installed."""

import subprocess
import sys
from pathlib import Path

WITHOUT_SCIPY = """
import sys
sys.modules["scipy"] = None
from batch.jobs.commands import COMMANDS
from headrace.errors import FailedPrecondition
try:
    COMMANDS["skew_run"](None, {})
except FailedPrecondition as error:
    print(error.reason, error.message)
"""


def test_only_skew_runs_need_the_extra_and_say_so(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SCIPY], cwd=repository, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "EXTRA_MISSING skew runs need scipy, which is not installed: install headrace[skew]\n"
