"""Runs one Locust scenario against a server and exits by its service level gate."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from loadtest.dataset import SCENARIOS
from loadtest.online.arrivals import Shape
from loadtest.rows import SEED

HERE: Final = Path(__file__).resolve().parent
RESULTS: Final = HERE.parent / "results"
UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION_S_MAX: Final = 4 * 3600.0


def duration_s(text: str) -> float:
    """Seconds of a text such as 30s, 5m or 500ms."""
    for unit in ("ms", "s", "m", "h"):
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit():
            value = float(number) * UNITS_S[unit]
            if 0 < value <= DURATION_S_MAX:
                return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 30s or 5m, up to 4h")


def command(options: argparse.Namespace, summary: Path, report: Path) -> list[str]:
    """Locust's command line."""
    out = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--host", options.host]
    out += ["--scenario", options.scenario, "--shape", options.shape, "--arrival-rate", str(options.rate)]
    out += ["--duration-s", str(options.duration), "--entities", str(options.entities), "--seed", str(options.seed)]
    out += ["--p99-ms-max", str(options.p99_ms_max), "--summary", str(summary), "--html", str(report)]
    if options.web:
        return [*out, "--web-host", "127.0.0.1", "--web-port", str(options.web)]
    return [*out, "--headless", "--only-summary", "--loglevel", "WARNING"]


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True, help="feature server, host:port")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default="1x200")
    parser.add_argument("--shape", choices=[one.value for one in Shape], default="steady")
    parser.add_argument("--rate", type=float, default=200.0, help="calls per second; of a spike, its base")
    parser.add_argument("--duration", type=duration_s, default=30.0, help="such as 30s or 5m")
    parser.add_argument("--entities", type=int, default=1_000_000, help="users that the server holds")
    parser.add_argument("--p99-ms-max", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--web", type=int, default=0, metavar="PORT", help="serve Locust's page instead of running now")
    parser.add_argument("--keep", action="store_true", help="write the dated summary under loadtest/results")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Runs Locust; its exit code is ours."""
    options = parse(words)
    RESULTS.mkdir(exist_ok=True)
    name = f"locust-{options.scenario}-{options.shape}"
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.json"
        done = subprocess.run(command(options, summary, RESULTS / f"{name}.html"), check=False)
        if options.keep and summary.exists():
            keep(options, json.loads(summary.read_text()), RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{name}.json")
    return done.returncode


def keep(options: argparse.Namespace, summary: dict[str, object], path: Path) -> None:
    """Writes the summary with what was asked for."""
    asked: dict[str, object] = {"scenario": options.scenario, "shape": options.shape, "rate": options.rate}
    asked |= {"duration_s": options.duration, "entities": options.entities, "seed": options.seed}
    path.write_text(json.dumps(asked | summary, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
