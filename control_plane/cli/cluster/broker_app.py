"""Brokers as a child of a platform: `python -m control_plane.cli.cluster.broker_app --data DIR --brokers N`.

They end with this process, however it ends.
"""

import argparse
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from control_plane.cli import child
from control_plane.cli.cluster.brokers import BrokerError, Brokers, free_ports
from headrace.errors import Unavailable
from headrace.serving.logging import EventLog
from headrace.serving.process import port, serve

WATCH_S: Final = 0.5
PORTS_FILE: Final = "ports"
EXIT_BROKER_ENDED: Final = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs brokers until a signal; a broker that ends by itself ends this process too."""
    parser = argparse.ArgumentParser(prog="kafka", description="Kafka brokers on loopback, tied to their parent.")
    parser.add_argument("--data", type=Path, required=True, help="folder of logs, ports and identity")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--port", type=port, help="port of the first broker; the others take those that follow")
    options = parser.parse_args(arguments)
    return serve("kafka", lambda log: _running(options, log))


@contextmanager
def _running(options: argparse.Namespace, log: EventLog) -> Iterator[Brokers]:
    _choose_ports(options.data, options.brokers, options.port)
    stopping = threading.Event()
    try:
        with Brokers(options.data, options.brokers, _tied()) as brokers:
            log.info("listening", address=brokers.bootstrap)
            threading.Thread(target=_watch, args=(brokers, stopping, log), daemon=True).start()
            try:
                yield brokers
            finally:
                stopping.set()
    except BrokerError as error:
        what, _, tail = str(error).partition("\n")
        log.error("kafka_not_started", detail=tail)
        raise Unavailable(what, reason="KAFKA_NOT_STARTED") from error


def _tied() -> tuple[str, ...]:
    """What makes a command end with this process; by its path, as a broker runs in a folder of its own."""
    return sys.executable, child.__file__, str(os.getpid()), child.COMMAND


def _choose_ports(folder: Path, count: int, first: int | None) -> None:
    """Given ports, or free ones anew at each start: clients are told, and brokers find each other by their settings."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / PORTS_FILE
    if file.exists() and len(file.read_text().split()) != 2 * count:
        return  # another number of brokers lives here, which is refused
    found = free_ports(2 * count)
    clients = found[:count] if first is None else range(first, first + count)
    pairs = zip(clients, found[count:], strict=True)
    file.write_text(" ".join(f"{client} {controller}" for client, controller in pairs))


def _watch(brokers: Brokers, stopping: threading.Event, log: EventLog) -> None:
    while not stopping.wait(WATCH_S):
        for broker in brokers.brokers:
            if not broker.is_running:
                log.error("broker_ended", message=f"broker {broker.number} has ended", detail=broker.tail())
                brokers.stop()
                os._exit(EXIT_BROKER_ENDED)  # the main thread waits for a signal


if __name__ == "__main__":
    sys.exit(main())
