"""Kafka brokers on loopback until Ctrl-C, for tests and development: `python -m tools.kafka --brokers 3`."""

import argparse
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from control_plane.cli.cluster.brokers import BrokerError, Brokers, free_ports

__all__ = ["BrokerError", "Brokers", "free_ports", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs brokers until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tools.kafka", description="Kafka brokers on loopback.")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1, help="brokers, each a controller as well")
    parser.add_argument("--data", type=Path, help="folder to keep; without it all is gone at the end")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="headrace-kafka-") as scratch:
        try:
            with Brokers(options.data or Path(scratch), options.brokers) as brokers:
                print(f"kafka: {brokers.bootstrap}", flush=True)
                stop.wait()
        except BrokerError as error:
            print(f"kafka: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
