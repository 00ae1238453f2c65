"""Drain worker: `python -m batch.app --data DIR --registry HOST:PORT --features HOST:PORT`."""

import argparse
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Final

from batch.drain.drain import CYCLE_BYTES, Backlog, Drain
from batch.drain.served import ServedDrain
from batch.drain.views import Views
from batch.offline.catalogue import Catalogue, OfflineConfig
from batch.offline.roots import Roots
from batch.offline.runs import Provenance, Runs
from headrace.client.registry import RegistryClient
from headrace.client.shards import LogPosition, ShardClient
from headrace.definitions import DefinitionKind
from headrace.definitions.registered import Registered
from headrace.errors import HeadraceError
from headrace.serving.auth import OpenAuthenticator
from headrace.serving.logging import EventLog
from headrace.serving.process import bearer_token, serve
from headrace.serving.server import Health, add_health_and_reflection, bind, build_server, drain
from headrace.serving.telemetry import Telemetry, TelemetryConfig

HOST: Final = "127.0.0.1"  # answers health alone
INTERVAL_S: Final = 10.0  # how long a committed row may wait for its commit offline
POLL_S: Final = 1.0
FULL_SHARE: Final = 0.25  # of the limit of a log: from here on rows do not wait for the interval
STOP_WAIT_S: Final = 10.0  # of a cycle that runs; one that is cut off is repeated, and tables leave out what they have
WORKER_COUNT: Final = 2


@dataclass(slots=True)
class Progress:
    """What the worker has done, for metrics."""

    row_count: int = 0
    skipped_count: int = 0
    failure_count: int = 0
    success_time_s: float = 0.0
    stored_bytes: int = 0
    answer_count: int = 0


class Worker:
    """One thread that drains until it is stopped; healthy while its last cycle came to its end."""

    def __init__(
        self,
        work: Drain,
        served: ServedDrain,
        options: argparse.Namespace,
        *,
        telemetry: Telemetry,
        health: Health,
        log: EventLog,
    ) -> None:
        self.progress = Progress()
        self._drain = work
        self._served = served
        self._interval_s = options.interval_s
        self._cycle_bytes = options.cycle_bytes
        self._telemetry = telemetry
        self._health = health
        self._log = log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drain", daemon=True)

    def start(self) -> None:
        """Begins to drain."""
        self._thread.start()

    def close(self) -> None:
        """Ends after the cycle that runs."""
        self._stop.set()
        self._thread.join(STOP_WAIT_S)

    def _run(self) -> None:
        drained_s = 0.0
        while not self._stop.is_set():
            try:
                backlog = self._drain.backlog()
                self.progress.stored_bytes = backlog.stored_bytes
                is_due = time.monotonic() - drained_s >= self._interval_s or backlog.fullest_share >= FULL_SHARE
                answers = self._served.waiting()
                if is_due and (backlog.shards or answers):
                    # Rows first: what an answer was made of is offline before the answer is.
                    self._cycle(backlog)
                    self._take_answers(answers)
                    drained_s = time.monotonic()
                self.progress.success_time_s = time.time()
                self._health.set("", is_serving=True)
            except HeadraceError as error:
                self._failed()
                self._log.error("drain_failed", reason=error.reason, detail=error.message)
            except Exception as error:  # noqa: BLE001 - the outermost loop of a thread
                self._failed()
                self._log.failure("drain_failed", error)
            self._stop.wait(min(POLL_S, self._interval_s))

    def _cycle(self, backlog: Backlog) -> None:
        is_all = False
        while not is_all and not self._stop.is_set():
            with self._telemetry.tracer.start_as_current_span("drain") as span:
                done = self._drain.cycle(self._cycle_bytes)
                span.set_attribute("headrace.rows", done.row_count)
            self.progress.row_count += done.row_count
            self.progress.skipped_count += done.skipped_count
            is_all = done.is_all
            if done.row_count or done.skipped_count:
                self._log.info("drained", row_count=done.row_count, skipped_count=done.skipped_count)

    def _take_answers(self, until: LogPosition | None) -> None:
        is_all = until is None
        while not is_all and until is not None and not self._stop.is_set():
            done = self._served.cycle(until)
            self.progress.answer_count += done.row_count
            is_all = done.is_all
            if done.row_count:
                self._log.info("served_drained", row_count=done.row_count, skipped_count=done.skipped_count)

    def _failed(self) -> None:
        self.progress.failure_count += 1
        self._health.set("", is_serving=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Drains until SIGTERM or SIGINT; returns the exit code."""
    options = parse_options(arguments)
    return serve("batch", lambda log: running(options, log))


@contextmanager
def running(options: argparse.Namespace, log: EventLog) -> Iterator[Worker]:
    """A worker from its start to its end."""
    with ExitStack() as stack:
        telemetry = stack.enter_context(
            closing(Telemetry(TelemetryConfig("batch", options.metrics_port, options.otlp_endpoint)))
        )
        token = bearer_token(options.token, "token")
        registry = stack.enter_context(RegistryClient(options.registry, token=token))
        shards = stack.enter_context(ShardClient(options.features, token=token))
        catalogue = stack.enter_context(closing(open_catalogue(options)))
        runs = Runs(catalogue, Provenance(package_version()), now_us)
        health = Health()
        work = Drain(shards, Views(lambda: registry_records(registry)), catalogue, runs, now_us)
        answers = ServedDrain(shards, catalogue, runs, now_us)
        worker = Worker(work, answers, options, telemetry=telemetry, health=health, log=log)
        _observe(telemetry, worker.progress)
        server = build_server(OpenAuthenticator(), {}, HOST, WORKER_COUNT)
        add_health_and_reflection(server, health, ())
        port = bind(server, HOST, options.port)
        server.start()
        stack.callback(drain, server, health)
        worker.start()
        stack.callback(worker.close)
        log.info("listening", address=f"{HOST}:{port}", port=port, metrics_port=telemetry.metrics_port)
        yield worker


def open_catalogue(options: argparse.Namespace) -> Catalogue:
    """The catalogue of the options, by default inside the data folder."""
    options.data.mkdir(parents=True, exist_ok=True)
    warehouse = options.warehouse or str(options.data.resolve() / "warehouse")
    uri = options.catalogue_uri or f"sqlite:///{options.data.resolve() / 'catalogue.db'}"
    return Catalogue(OfflineConfig(uri, warehouse, Roots([warehouse])))


def registry_records(registry: RegistryClient) -> Iterable[Registered]:
    """Sources, entities and views of the registry, retired versions included."""
    kinds = (DefinitionKind.SOURCE, DefinitionKind.ENTITY, DefinitionKind.FEATURE_VIEW)
    return chain.from_iterable(registry.list(kind) for kind in kinds)


def _observe(telemetry: Telemetry, progress: Progress) -> None:
    def one(name: str) -> Iterable[tuple[float, Mapping[str, str]]]:
        return [(getattr(progress, name), {})]

    telemetry.counter("headrace.drain.rows", "Rows appended to tables.", lambda: one("row_count"))
    telemetry.counter("headrace.drain.skipped", "Rows that tables had taken before.", lambda: one("skipped_count"))
    telemetry.counter("headrace.drain.answers", "Served answers appended.", lambda: one("answer_count"))
    telemetry.counter("headrace.drain.failures", "Cycles that failed.", lambda: one("failure_count"))
    telemetry.gauge(
        "headrace.drain.success_time", "Last good look, since the epoch.", lambda: one("success_time_s"), "s"
    )
    telemetry.gauge("headrace.drain.stored", "Row logs of the feature server.", lambda: one("stored_bytes"), "By")


def package_version() -> str:
    """What runs, for the table of runs."""
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "source"


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1_000


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line as options."""
    parser = argparse.ArgumentParser(prog="batch", description="Drains row logs into the offline store.")
    shared_options(parser)
    parser.add_argument("--port", type=int, default=0, help="port of the health service; 0 takes a free one")
    parser.add_argument("--metrics-port", type=int, help="port of the Prometheus endpoint; none without it")
    parser.add_argument("--interval-s", type=float, default=INTERVAL_S, help="longest wait of a committed row")
    parser.add_argument("--cycle-bytes", type=int, default=CYCLE_BYTES, help="records taken by one commit")
    parser.add_argument("--otlp-endpoint", default="", help="http://HOST:PORT that takes traces and metrics by OTLP")
    return parser.parse_args(arguments)


def shared_options(parser: argparse.ArgumentParser) -> None:
    """Where servers and tables are."""
    parser.add_argument("--data", type=Path, required=True, help="folder of catalogue and warehouse, unless named")
    parser.add_argument("--registry", required=True, help="HOST:PORT of the control plane")
    parser.add_argument("--features", required=True, help="HOST:PORT of the feature server")
    parser.add_argument("--token", type=Path, help="file of the bearer token; needs REGISTRY_READ and PEER")
    parser.add_argument("--catalogue-uri", default="", help="SQLAlchemy address of the Iceberg catalogue")
    parser.add_argument("--warehouse", default="", help="folder or s3:// prefix of the tables")


if __name__ == "__main__":
    sys.exit(main())
