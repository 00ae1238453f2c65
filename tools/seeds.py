"""Runs tests once for each of several random seeds, one run after the other, and keeps one dated record.

    python -m tools.seeds --name cluster --count 3 --minutes 25 tests/cluster tests/streams -m "not slow"

Other words go to pytest. The file is docs/results/DATE-NAME.json; a run that fails names its seed and how to repeat it.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "docs" / "results"
SEED_MAX: Final = 2**32 - 1  # what tests/conftest.py accepts
Run = Callable[[int, Path], int]  # pytest with a seed and the folder of its record; its exit code


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every run of every seed passed."""
    parser = argparse.ArgumentParser(prog="python -m tools.seeds", description="Tests with several seeds.")
    parser.add_argument("--name", required=True, help="of the record, after its date")
    parser.add_argument("--count", type=int, required=True, help="seeds")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no run begins that would end later")
    options, words = parser.parse_known_args(arguments)
    seeds = random.SystemRandom().sample(range(SEED_MAX + 1), options.count)

    def run(seed: int, folder: Path) -> int:
        command = [sys.executable, "-m", "pytest", *words, "--seed", str(seed), "--record", str(folder)]
        return subprocess.run(command, cwd=ROOT, check=False).returncode

    return run_seeds(options.name, seeds, options.minutes * 60, run, RESULTS)


def run_seeds(
    name: str,
    seeds: Sequence[int],
    limit_s: float,
    run: Run,
    results: Path,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Runs seed by seed. A run that would not end in time, by the longest one so far, is not begun, and fails all."""
    began_s = clock()
    runs: list[dict[str, Any]] = []  # Any: JSON values
    longest_s = 0.0
    is_good = True
    for seed in seeds:
        started_s = clock()
        if started_s - began_s + longest_s > limit_s:
            print(
                f"seeds: {len(seeds) - len(runs)} of {len(seeds)} seeds are left out, as {limit_s / 60:g} minutes end"
            )
            is_good = False
            break
        with tempfile.TemporaryDirectory(prefix="headrace-seeds-") as folder:
            code = run(seed, Path(folder))
            found = [json.loads(path.read_text()) for path in Path(folder).glob("*.json")]
        seconds = clock() - started_s
        longest_s = max(longest_s, seconds)
        is_good &= code == 0 and len(found) == 1
        runs += found
        told = Counter(test["outcome"] for one in found for test in one["tests"].values())
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(told.items())) or "no record"
        hint = "" if code == 0 else f"; repeat it with --seed {seed}"
        print(f"seeds: seed {seed}: {counts} in {seconds:.0f} s{hint}", flush=True)
    if runs:
        _write(results / f"{datetime.now(UTC):%Y-%m-%d}-{name}.json", runs)
    return 0 if is_good else 1


def _write(path: Path, runs: Sequence[dict[str, Any]]) -> None:
    """What all runs share stands once, then each run with the outcomes of its tests."""
    shared = {key: runs[0][key] for key in ("date", "commit", "machine")}
    each = [{key: run[key] for key in ("seed", "seconds", "tests")} for run in runs]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**shared, "runs": each}, indent=1) + "\n")
    print(f"seeds: {path}")


if __name__ == "__main__":
    sys.exit(main())
