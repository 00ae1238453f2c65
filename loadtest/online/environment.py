"""What every Locust file of ours takes from Locust's environment, and gives back to it: options, address, verdict."""

import argparse
import sys
from pathlib import Path

from locust.env import Environment

from loadtest.online.gate import Objective, Recorder


def options_of(environment: Environment) -> argparse.Namespace:
    """The command line, which Locust has always read by then."""
    options = environment.parsed_options
    assert isinstance(options, argparse.Namespace)
    return options


def address_of(environment: Environment) -> str:
    """host:port of the server."""
    return (environment.host or "").removeprefix("http://")


def give_verdict(environment: Environment, recorder: Recorder) -> None:
    """Prints and writes the summary, and sets the exit code by it."""
    options = options_of(environment)
    summary = recorder.summary(Objective(p99_ms_max=options.p99_ms_max))
    if options.summary:
        Path(options.summary).write_text(summary.to_json() + "\n")
    sys.stdout.write(summary.to_json() + "\n")
    environment.process_exit_code = 0 if summary.ok else 1
