"""Sink worker: `python -m batch.sink.app --data DIR --kafka HOST:PORT --registry HOST:PORT`."""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batch.app import HOST, WORKER_COUNT, now_us, open_catalogue, package_version
from batch.offline.catalogue import Catalogue
from batch.offline.runs import Provenance, Runs
from batch.sink.decoding import Rejected
from batch.sink.sink import CYCLE_BYTES, CYCLE_MESSAGES, Sink
from batch.sink.streams import is_stream, stream_of
from batch.sink.topic import TopicLog
from headrace.client.registry import RegistryClient
from headrace.definitions import DefinitionKind, Source
from headrace.definitions.registered import RegisteredSource
from headrace.errors import HeadraceError, InvalidArgument, NotFound
from headrace.serving.auth import OpenAuthenticator
from headrace.serving.kafka_access import read_access
from headrace.serving.logging import EventLog
from headrace.serving.process import bearer_token, serve
from headrace.serving.server import Health, add_health_and_reflection, bind, build_server, drain
from headrace.serving.telemetry import Telemetry, TelemetryConfig

INTERVAL_S: Final = 10.0  # how long an event may wait for its commit offline
POLL_S: Final = 0.2
STOP_WAIT_S: Final = 10.0  # of a cycle that runs; one that is cut off is repeated, and the table takes nothing twice
REJECTED_LOGGED: Final = 5  # of one cycle


@dataclass(slots=True)
class Progress:
    """Of one source, for metrics."""

    row_count: int = 0
    skipped_count: int = 0
    rejected_count: int = 0
    lag: int = 0


class Worker:
    """One thread over all sources; healthy while its last round came to its end."""

    def __init__(
        self,
        registry: RegistryClient,
        catalogue: Catalogue,
        runs: Runs,
        options: argparse.Namespace,
        *,
        telemetry: Telemetry,
        health: Health,
        log: EventLog,
    ) -> None:
        self.progress: dict[str, Progress] = {}
        self.failure_count = 0
        self.success_time_s = 0.0
        self._registry = registry
        self._catalogue = catalogue
        self._runs = runs
        self._options = options
        self._access = {"bootstrap.servers": options.kafka, **read_access(options.kafka_access)}
        self._telemetry = telemetry
        self._health = health
        self._log = log
        self._wanted: dict[str, Source] = {}
        self._sinks: dict[Source, Sink] = {}
        self._told: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def close(self) -> None:
        """Ends after the cycle that runs."""
        self._stop.set()
        self._thread.join(STOP_WAIT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            began_s = time.monotonic()
            is_good = self._guarded(self._look, "registry")
            for source in [one for one in self._wanted.values() if one not in self._sinks]:
                if self._stop.is_set():
                    break
                is_good &= self._guarded(lambda source=source: self._begin(source), source.name)  # type: ignore[misc]
            for source, sink in list(self._sinks.items()):
                is_good &= self._guarded(lambda sink=sink: self._sink(sink), source.name)  # type: ignore[misc]
            if is_good:
                self.success_time_s = time.time()
            self._health.set("", is_serving=is_good)
            self._stop.wait(max(POLL_S, self._options.interval_s - (time.monotonic() - began_s)))
        for sink in self._sinks.values():
            sink.close()

    def _guarded(self, work: Callable[[], None], of: str) -> bool:
        """Whether it came to its end; what fails of one source is no matter of the others."""
        try:
            work()
        except NotFound as error:  # nobody has made the topic yet
            if of not in self._told:
                self._told.add(of)
                self._log.warning("sink_waits", of=of, reason=error.reason, detail=error.message)
        except HeadraceError as error:
            self.failure_count += 1
            self._log.error("sink_failed", of=of, reason=error.reason, detail=error.message)
            return False
        except Exception as error:  # noqa: BLE001 - the outermost loop of a thread
            self.failure_count += 1
            self._log.failure("sink_failed", error, of=of)
            return False
        return True

    def _look(self) -> None:
        """Follows the registry: a source that changed begins anew, from the positions of its table."""
        self._wanted = {source.name: source for source in self._sources()}
        for source in [held for held in self._sinks if self._wanted.get(held.name) != held]:
            self._sinks.pop(source).close()

    def _sources(self) -> Iterable[Source]:
        for record in self._registry.list(DefinitionKind.SOURCE):
            if isinstance(record, RegisteredSource) and is_stream(record.definition):
                yield record.definition

    def _begin(self, source: Source) -> None:
        try:
            stream = stream_of(source)
        except InvalidArgument as error:
            if source.uri not in self._told:
                self._told.add(source.uri)
                self._log.error("source_not_kept", source=source.name, reason=error.reason, detail=error.message)
            return
        with ExitStack() as stack:
            topic = stack.enter_context(closing(TopicLog(self._access, stream.topic)))
            self._sinks[source] = Sink(
                stream, topic, self._catalogue, self._runs, clock_us=now_us, clock_s=time.monotonic
            )
            stack.pop_all()  # the sink closes it
        self.progress.setdefault(source.name, Progress())
        self._log.info("source_kept", source=source.name, topic=stream.topic)

    def _sink(self, sink: Sink) -> None:
        source = sink.stream.columns.source
        progress = self.progress[source]
        is_all = False
        while not is_all and not self._stop.is_set():
            with self._telemetry.tracer.start_as_current_span("sink") as span:
                done = sink.cycle(self._options.cycle_bytes, self._options.cycle_messages)
                span.set_attribute("headrace.rows", done.row_count)
            progress.row_count += done.row_count
            progress.skipped_count += done.skipped_count
            progress.rejected_count += len(done.rejected)
            progress.lag = sink.lag()
            is_all = done.is_all
            if done.row_count or done.skipped_count:
                self._log.info("sunk", source=source, row_count=done.row_count, skipped_count=done.skipped_count)
            self._tell_rejected(source, done.rejected)

    def _tell_rejected(self, source: str, rejected: Sequence[Rejected]) -> None:
        for one in rejected[:REJECTED_LOGGED]:
            self._log.warning("event_rejected", source=source, **one._asdict())
        if len(rejected) > REJECTED_LOGGED:
            self._log.warning("events_rejected", source=source, count=len(rejected))


def main(arguments: Sequence[str] | None = None) -> int:
    """Works until SIGTERM or SIGINT; returns the exit code."""
    options = parse_options(arguments)
    return serve("sink", lambda log: running(options, log))


@contextmanager
def running(options: argparse.Namespace, log: EventLog) -> Iterator[Worker]:
    """A worker from its start to its end."""
    with ExitStack() as stack:
        config = TelemetryConfig("sink", options.metrics_port, options.otlp_endpoint)
        telemetry = stack.enter_context(closing(Telemetry(config)))
        registry = stack.enter_context(RegistryClient(options.registry, token=bearer_token(options.token, "token")))
        catalogue = stack.enter_context(closing(open_catalogue(options)))
        runs = Runs(catalogue, Provenance(package_version()), now_us)
        health = Health()
        worker = Worker(registry, catalogue, runs, options, telemetry=telemetry, health=health, log=log)
        _observe(telemetry, worker)
        server = build_server(OpenAuthenticator(), {}, HOST, WORKER_COUNT)
        add_health_and_reflection(server, health, ())
        port = bind(server, HOST, options.port)
        server.start()
        stack.callback(drain, server, health)
        worker.start()
        stack.callback(worker.close)
        log.info("listening", address=f"{HOST}:{port}", port=port, metrics_port=telemetry.metrics_port)
        yield worker


def _observe(telemetry: Telemetry, worker: Worker) -> None:
    def each(name: str) -> Iterable[tuple[float, Mapping[str, str]]]:
        return [(getattr(one, name), {"source": source}) for source, one in list(worker.progress.items())]

    telemetry.counter("headrace.sink.rows", "Events appended to tables.", lambda: each("row_count"))
    telemetry.counter("headrace.sink.skipped", "Events that tables had taken before.", lambda: each("skipped_count"))
    telemetry.counter("headrace.sink.rejected", "Messages that are no event.", lambda: each("rejected_count"))
    telemetry.gauge("headrace.sink.lag", "Messages that wait.", lambda: each("lag"))
    telemetry.counter("headrace.sink.failures", "Cycles that failed.", lambda: [(worker.failure_count, {})])
    telemetry.gauge(
        "headrace.sink.success_time", "Last good round, since the epoch.", lambda: [(worker.success_time_s, {})], "s"
    )


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line as options."""
    parser = argparse.ArgumentParser(prog="sink", description="Appends events of Kafka to the offline store.")
    parser.add_argument("--data", type=Path, required=True, help="folder of catalogue and warehouse, unless named")
    parser.add_argument("--kafka", required=True, help="HOST:PORT,... of the brokers")
    parser.add_argument("--kafka-access", type=Path, help="file of name=value lines: security.*, sasl.*, ssl.*")
    parser.add_argument("--registry", required=True, help="HOST:PORT of the control plane")
    parser.add_argument("--token", type=Path, help="file of the bearer token; needs REGISTRY_READ")
    parser.add_argument("--catalogue-uri", default="", help="SQLAlchemy address of the Iceberg catalogue")
    parser.add_argument("--warehouse", default="", help="folder or s3:// prefix of the tables")
    parser.add_argument("--port", type=int, default=0, help="port of the health service; 0 takes a free one")
    parser.add_argument("--metrics-port", type=int, help="port of the Prometheus endpoint; none without it")
    parser.add_argument("--interval-s", type=float, default=INTERVAL_S, help="longest wait of an event")
    parser.add_argument("--cycle-bytes", type=int, default=CYCLE_BYTES, help="about so many bytes by one commit")
    parser.add_argument("--cycle-messages", type=int, default=CYCLE_MESSAGES, help="and no more of them")
    parser.add_argument("--otlp-endpoint", default="", help="http://HOST:PORT that takes traces and metrics by OTLP")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
