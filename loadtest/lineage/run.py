"""Runs the Locust user of lineage and exits by its service level gate."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from loadtest.online.run import duration_s

HERE: Final = Path(__file__).resolve().parent


def command(options: argparse.Namespace) -> list[str]:
    """Locust's command line."""
    out = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--host", options.host]
    out += ["--node", options.node, "--column", options.column]
    out += ["--arrival-rate", str(options.rate), "--duration-s", str(options.duration)]
    out += ["--p99-ms-max", str(options.p99_ms_max), "--summary", options.summary]
    return [*out, "--headless", "--only-summary", "--loglevel", "WARNING"]


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True, help="control plane, host:port")
    parser.add_argument("--node", required=True, help="node whose impact is asked for")
    parser.add_argument("--column", default="", help="column of it, where it is a source")
    parser.add_argument("--rate", type=float, default=100.0, help="calls per second")
    parser.add_argument("--duration", type=duration_s, default=30.0, help="such as 30s or 5m")
    parser.add_argument("--p99-ms-max", type=float, default=50.0)
    parser.add_argument("--summary", default="", help="file for the JSON summary")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Runs Locust; its exit code is ours."""
    return subprocess.run(command(parse(words)), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
