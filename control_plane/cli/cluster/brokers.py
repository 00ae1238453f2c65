"""Kafka brokers in KRaft mode on loopback, for `headrace cluster up`, tests and development.

The jars are those of `tools/jars.py kafka`, or lie where HEADRACE_KAFKA_JARS says. Topics
are never made by themselves, every broker is controller as well, and sessions are short, so that what a killed broker
led is led by another after about three seconds.
"""

import base64
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

ROOT: Final = Path(__file__).resolve().parents[3]
JARS_VARIABLE: Final = "HEADRACE_KAFKA_JARS"
LOOPBACK: Final = "127.0.0.1"
# One gigabyte of log and page cache is the machine's; the heap holds metadata and requests alone.
JAVA: Final = ("-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=WARN")
START_LIMIT_S: Final = 60.0  # 3 s on an idle machine of two cores
STOP_LIMIT_S: Final = 15.0  # below that of whoever stops the program that holds the brokers
POLL_S: Final = 0.05
ASK_LIMIT_S: Final = 1.0
REPLICAS_MAX: Final = 3
LOG_TAIL_BYTES: Final = 4_000


class BrokerError(RuntimeError):
    """A broker did not start or stop; the message carries the end of its log."""


@dataclass(slots=True)
class Broker:
    """One broker on one folder over all of its lives."""

    number: int
    folder: Path
    port: int
    controller_port: int
    prefix: Sequence[str] = ()  # before the command, for one that ends with its parent
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def launch(self) -> None:
        """Starts it and returns at once."""
        assert not self.is_running, "one life at a time"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *_java("kafka.Kafka"), str(self._properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C reaches the program that started it, which then stops it in order
            )

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None, "not started"
        self.process.kill()
        self.process.wait(STOP_LIMIT_S)

    def stop(self) -> None:
        """SIGTERM, which hands over and flushes; SIGKILL where that takes too long."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def prepare(self, cluster: str, voters: str, settings: Mapping[str, str]) -> None:
        """Writes its settings and formats its folder, where that was not done before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = {
            "process.roles": "broker,controller",
            "node.id": str(self.number),
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{LOOPBACK}:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self.folder / "log"),
            **settings,
        }
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        if (self.folder / "log/meta.properties").exists():
            return
        command = [*_java("kafka.tools.StorageTool"), "format", "-t", cluster, "-c", str(self._properties)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=START_LIMIT_S, check=False)
        if run.returncode != 0:
            raise BrokerError(f"broker {self.number} could not be formatted: {run.stdout}{run.stderr}")

    def tail(self) -> str:
        """End of its log."""
        return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace") if self._log.exists() else ""

    @property
    def _log(self) -> Path:
        return self.folder / "broker.log"

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"


@dataclass(slots=True)
class Brokers:
    """A cluster of one or three brokers; a context manager that stops what it started.

    The folder keeps logs, ports and identity: given again, the same cluster comes back. `prefix` stands before the
    command of each broker.
    """

    folder: Path
    count: int = 1
    prefix: Sequence[str] = ()
    brokers: list[Broker] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not any(jars_folder().glob("kafka_*.jar")):
            raise BrokerError(
                f"the jars of Kafka are not in {jars_folder()}: run `make setup` in a checkout, or name their folder "
                f"in {JARS_VARIABLE}"
            )
        self.folder = self.folder.resolve()  # each broker runs in a folder of its own
        self.folder.mkdir(parents=True, exist_ok=True)
        ports = self._kept("ports", lambda: " ".join(map(str, free_ports(2 * self.count)))).split()
        if len(ports) != 2 * self.count:
            raise BrokerError(f"{self.folder} holds {len(ports) // 2} brokers, and {self.count} are asked for")
        self.brokers = [
            Broker(number, self.folder / str(number), int(client), int(controller), self.prefix)
            for number, client, controller in zip(range(1, self.count + 1), ports[::2], ports[1::2], strict=True)
        ]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """What clients are given."""
        return ",".join(broker.address for broker in self.brokers)

    def start(self) -> None:
        """Starts every broker and waits until all are members."""
        cluster = self._kept("cluster", new_cluster_id)
        voters = ",".join(f"{one.number}@{LOOPBACK}:{one.controller_port}" for one in self.brokers)
        for broker in self.brokers:
            broker.prepare(cluster, voters, _settings(self.count))
        for broker in self.brokers:
            broker.launch()
        self.wait_ready()

    def stop(self) -> None:
        """Stops every broker; the order of the controllers does not matter, as all are told at once."""
        threads = [threading.Thread(target=broker.stop) for broker in self.brokers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def restart(self, number: int) -> None:
        """Starts a broker again and waits until it is a member."""
        self.brokers[number - 1].launch()
        self.wait_ready()

    def wait_ready(self, limit_s: float = START_LIMIT_S) -> None:
        """Returns when every broker that runs is a member of the cluster."""
        deadline = time.monotonic() + limit_s
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        wanted = {broker.number for broker in self.brokers if broker.is_running}
        while True:
            for broker in self.brokers:
                if broker.process is not None and broker.number in wanted and not broker.is_running:
                    raise BrokerError(f"broker {broker.number} has ended\n{broker.tail()}")
            # A broker that was killed is a member until its session ends, so its port is asked as well.
            if wanted <= _members(client) and all(_listens(one.port) for one in self.brokers if one.number in wanted):
                return
            if time.monotonic() > deadline:
                raise BrokerError(f"not ready in {limit_s} s\n" + "\n".join(broker.tail() for broker in self.brokers))
            time.sleep(POLL_S)

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        path = self.folder / name
        if not path.exists():
            path.write_text(make())
        return path.read_text()


def _settings(count: int) -> dict[str, str]:
    replicas = min(count, REPLICAS_MAX)
    durable = {"replication.factor": str(replicas), "min.isr": str(max(1, replicas - 1))}
    return {
        **{f"transaction.state.log.{name}": value for name, value in durable.items()},
        "offsets.topic.replication.factor": str(replicas),
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "default.replication.factor": str(replicas),
        "min.insync.replicas": str(max(1, replicas - 1)),
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "replica.lag.time.max.ms": "3000",
        "message.max.bytes": str(64 << 20),
        "replica.fetch.max.bytes": str(64 << 20),
        "log.segment.bytes": str(128 << 20),
    }


def _members(client: AdminClient) -> set[int]:
    try:
        return set(client.list_topics(timeout=ASK_LIMIT_S).brokers)
    except KafkaException:
        return set()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), ASK_LIMIT_S):
            return True
    except OSError:
        return False


def _java(main: str) -> list[str]:
    return ["java", *JAVA, "-cp", f"{jars_folder()}/*", main]


def jars_folder() -> Path:
    """Where the jars of Kafka lie."""
    return Path(os.environ.get(JARS_VARIABLE) or ROOT / ".cache/jars/kafka")


def new_cluster_id() -> str:
    """Never one that begins with a hyphen: the tool that formats folders takes such a one for an option."""
    while True:
        found = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not found.startswith("-"):
            return found


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody holds now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
