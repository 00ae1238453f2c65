"""`headrace cluster up`: Kafka, control plane, ring of feature servers and stream pipeline as one process tree."""

import os
import queue
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from control_plane.cli.cluster.ring_wait import await_ring
from control_plane.cli.endpoints import ENDPOINTS_FILE, Endpoints, data_folder
from control_plane.cli.output import Format, print_document, print_table
from control_plane.cli.processes import Child
from control_plane.cli.session import LAKE_FOLDER, Session
from control_plane.cli.up import (
    CONTROL_METRICS_PORT,
    CONTROL_PORT,
    Launcher,
    Platform,
    StopAsked,
    free_port,
    locked,
    refuse_busy_ports,
    stop_all,
    stoppable,
)
from control_plane.domain.ring.keeper import RingShape
from headrace.errors import InvalidArgument

KAFKA_PORT: Final = 6590
RING_PORT: Final = 6600
RING_METRICS_PORT: Final = 6620
PIPELINE_PORT: Final = 6574
PIPELINE_METRICS_PORT: Final = 6584
SINK_PORT: Final = 6575
SINK_METRICS_PORT: Final = 6585
SERVERS: Final = 3
SERVERS_MAX: Final = 9  # on one machine
SHAPE: Final = RingShape()
STREAM_SHARDS: Final = 8  # of the server outside of the ring, and the partitions of the topics that it reads
STREAM_PLACE: Final = "stream-server"
KAFKA: Final = "Kafka process"
OUTSIDE: Final = (
    "the ring does not read Kafka yet: events reach a feature server outside of it, which answers reads of streams"
)


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What a person may choose; ports that are None are searched for, or left to the system with any_ports."""

    servers: int = SERVERS
    replicas: int = SHAPE.replica_count
    shards: int = SHAPE.shard_count
    brokers: int = 1
    port: int | None = None
    feature_port: int | None = None
    kafka_port: int | None = None
    offline: bool = False
    any_ports: bool = False

    def check(self) -> None:
        """Raises InvalidArgument or FailedPrecondition where the numbers do not go together."""
        if not 1 <= self.servers <= SERVERS_MAX:
            raise _wrong(f"--servers {self.servers} is not 1 to {SERVERS_MAX}", "--servers")
        if not 1 <= self.replicas <= self.servers:
            raise _wrong(f"--replicas {self.replicas} is not 1 to the {self.servers} servers", "--replicas")
        if self.brokers not in {1, 3}:
            raise _wrong(f"--brokers {self.brokers} is neither 1 nor 3", "--brokers")
        RingShape(self.shards, self.replicas, self.servers)
        refuse_busy_ports(self.named_ports())

    def named_ports(self) -> dict[str, int]:
        """Ports that a person named, those that follow from them included, each with what to call it."""
        named = (
            ("--port", self.port, 1),
            ("--feature-port", self.feature_port, self.servers + 1),
            ("--kafka-port", self.kafka_port, self.brokers),
        )
        return {
            f"{option} {first} + {number}" if number else option: first + number
            for option, first, count in named
            if first is not None
            for number in range(count)
        }

    def free_ports(self, first: int, count: int = 1, taken: Iterable[int] = ()) -> list[int]:
        """The first ports from `first` on that nobody listens on, named or has taken; no search with any_ports."""
        if self.any_ports:
            return [0] * count
        reserved = {*self.named_ports().values(), *taken}
        found: list[int] = []
        while len(found) < count:
            port = free_port(first)
            if port not in reserved:
                found.append(port)
            first = port + 1
        return found


def _wrong(text: str, option: str) -> InvalidArgument:
    return InvalidArgument(text, reason="CLUSTER_SHAPE", field=option)


def run(session: Session, options: ClusterOptions, demo: Callable[[Platform], int] | None) -> int:
    """Runs until a signal (exit 0), the death of a child, which stops the others and raises, or a demo that fails."""
    try:
        with ExitStack() as stack:
            stack.enter_context(stoppable())
            if demo is not None and session.data is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-cluster-")))
            else:
                folder = data_folder(session.environment, session.data)
            running = stack.enter_context(cluster(folder, options, _teller(session)))
            _announce(session, folder, options, running)
            code = demo(running) if demo is not None else 0
            if code:
                return code
            raise running.death(running.ended.get())
    except StopAsked:
        return 0


def _teller(session: Session) -> Callable[[str], None]:
    started = time.monotonic()

    def say(text: str) -> None:
        session.err.write(f"[{time.monotonic() - started:5.1f} s] {text}\n")
        session.err.flush()

    return say


@contextmanager
def cluster(folder: Path, options: ClusterOptions, say: Callable[[str], None]) -> Iterator[Platform]:
    """A cluster that serves inside the block and is gone after it, children and endpoints file alike."""
    with ExitStack() as stack:
        stack.enter_context(locked(folder))
        options.check()
        children: list[Child] = []
        ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        stack.callback(stop_all, children)
        launcher = Launcher(folder, children, ended, options.any_ports)
        kafka = _start_kafka(launcher, options)
        say(f"Kafka: {options.brokers} brokers at {kafka}")
        shape = ("--ring-shards", "--ring-replicas", "--ring-servers")
        numbers = (options.shards, options.replicas, options.servers)
        words = [part for name, number in zip(shape, numbers, strict=True) for part in (name, str(number))]
        control, control_metrics = launcher.start(
            "control plane",
            "control_plane",
            words,
            _ports(options, CONTROL_PORT, CONTROL_METRICS_PORT, options.port),
        )
        say(f"control plane at {control}")
        *ring, (features, feature_metrics) = _start_servers(launcher, options, control, kafka)
        say(f"{len(ring)} feature servers of the ring at {', '.join(address for address, _ in ring)}")
        pipeline, pipeline_metrics = launcher.start(
            "pipeline worker",
            "feature_server.pipeline",
            _pipeline_words(options, control, kafka),
            _ports(options, PIPELINE_PORT, PIPELINE_METRICS_PORT),
            "pipeline",
        )
        say(f"pipeline worker, and a feature server at {features} for what it brings")
        await_ring(control, options.replicas, say)
        endpoints = Endpoints(
            control, features, control_metrics, feature_metrics, os.getpid(), kafka=kafka, pipeline=pipeline,
            metrics_pipeline=pipeline_metrics, ring=dict(ring),
        )  # fmt: skip
        if options.offline:
            sink, sink_metrics = launcher.start(
                "offline sink",
                "batch.sink",
                ("--kafka", kafka, "--registry", control),
                _ports(options, SINK_PORT, SINK_METRICS_PORT),
                LAKE_FOLDER,
            )
            lake = str((folder / LAKE_FOLDER).resolve())
            endpoints = replace(endpoints, sink=sink, metrics_sink=sink_metrics, lake=lake)
        stack.callback(lambda: (folder / ENDPOINTS_FILE).unlink(missing_ok=True))
        endpoints.write(folder)
        yield Platform(endpoints, children, ended)


def _ports(
    options: ClusterOptions, port: int, metrics_port: int, asked: int | None = None
) -> tuple[int | None, int, int]:
    """Ports of one server, as the launcher takes them, beside all that were named."""
    (own,) = options.free_ports(port)
    (metrics,) = options.free_ports(metrics_port, taken=(own,))
    return asked, own, metrics


def _pipeline_words(options: ClusterOptions, control: str, kafka: str) -> list[str]:
    topics = ["--partitions", str(STREAM_SHARDS), "--replicas", str(options.brokers)]
    return ["--kafka", kafka, "--registry", control, *topics]


def _start_kafka(launcher: Launcher, options: ClusterOptions) -> str:
    """Addresses of the brokers."""
    words = ["--data", str(launcher.folder / "kafka"), "--brokers", str(options.brokers)]
    if options.kafka_port is not None:
        words += ["--port", str(options.kafka_port)]
    elif not options.any_ports and options.brokers == 1:
        words += ["--port", str(*options.free_ports(KAFKA_PORT))]
    log = launcher.folder / "logs" / "kafka.log"
    child = Child(KAFKA, "control_plane.cli.cluster.broker_app", words, log, ended=launcher.ended)
    launcher.children.append(child)
    return str(child.listening()["address"])


def _start_servers(launcher: Launcher, options: ClusterOptions, control: str, kafka: str) -> list[tuple[str, str]]:
    """Addresses of the servers of the ring, then of the one outside of it; all start at once."""
    shared = ("--registry", control)
    begun = []
    for number, chosen in enumerate(_server_ports(options), start=1):
        if number <= options.servers:
            place = f"server-{number}"
            words = [*shared, "--ring", "--zone", place, "--shards", str(options.shards)]
            begun.append(launcher.begin(f"feature server {number}", "feature_server", words, chosen, place))
        else:
            words = [*shared, "--kafka", kafka, "--shards", str(STREAM_SHARDS)]
            begun.append(launcher.begin("stream server", "feature_server", words, chosen, STREAM_PLACE))
    return [launcher.await_healthy(child) for child in begun]


def _server_ports(options: ClusterOptions) -> list[tuple[int, int]]:
    """Of each feature server its port and that of its metrics; no two are the same."""
    count = options.servers + 1
    if options.feature_port is None or options.any_ports:
        ports = options.free_ports(RING_PORT, count)
    else:
        ports = list(range(options.feature_port, options.feature_port + count))
    return list(zip(ports, options.free_ports(RING_METRICS_PORT, count, ports), strict=True))


def _announce(session: Session, folder: Path, options: ClusterOptions, running: Platform) -> None:
    endpoints = running.endpoints
    if session.form is not Format.TABLE:
        print_document(asdict(endpoints), session.form, session.out)
    else:
        rows = [("control plane", endpoints.control, f"http://{endpoints.metrics_control}/metrics")]
        rows += [
            (f"feature server {number}", address, f"http://{metrics}/metrics")
            for number, (address, metrics) in enumerate(endpoints.ring.items(), start=1)
        ]
        rows += [
            ("stream server", endpoints.features, f"http://{endpoints.metrics_features}/metrics"),
            ("pipeline worker", endpoints.pipeline, f"http://{endpoints.metrics_pipeline}/metrics"),
            ("Kafka", endpoints.kafka, ""),
        ]
        if endpoints.sink:
            rows.append(("offline sink", endpoints.sink, f"http://{endpoints.metrics_sink}/metrics"))
        print_table(("server", "address", "metrics"), rows, session.out)
        session.out.write(
            f"a ring of {options.servers} servers, {options.shards} shards, {options.replicas} copies of each; "
            f"{OUTSIDE}\nready on {folder}, logs in {folder / 'logs'}; stop with Ctrl-C\n"
        )
    session.out.flush()
