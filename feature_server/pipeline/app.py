"""Pipeline worker: `python -m feature_server.pipeline.app --kafka HOST:PORT --registry HOST:PORT`.

Reads the streams that the registry names, and fills the keyed topics that feature servers started with --kafka read.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from random import Random
from typing import Final

from feature_server.pipeline.clusters import PARTITION_COUNT, REPLICAS, Cluster
from feature_server.pipeline.meters import Meters
from feature_server.pipeline.topics import check_partitions
from feature_server.pipeline.worker import Clocks, Workers
from feature_server.rpc.registry_client import RegistryCopy, RegistryWatch
from feature_server.storage.files import read_file, write_file
from headrace.client.tls import client_tls
from headrace.serving.kafka_access import read_access
from headrace.serving.logging import EventLog
from headrace.serving.process import authenticator_of, bearer_token, locked_folder, port, serve
from headrace.serving.server import Health, add_health_and_reflection, bind, build_server, check_bind
from headrace.serving.telemetry import Telemetry, TelemetryConfig
from headrace.serving.tls import add_tls_options, tls_files

REGISTRY_COPY_NAME: Final = "registry"
LOCK_NAME: Final = "lock"
SERVICE_NAMES: Final = ("headrace.pipeline",)
THREADS: Final = 2  # of the health service


def main(arguments: Sequence[str] | None = None) -> int:
    """Works until SIGTERM or SIGINT; returns the exit code."""
    options = parse_options(arguments)
    return serve("pipeline", lambda log: running(options, log))


@contextmanager
def running(options: argparse.Namespace, log: EventLog) -> Iterator[int]:
    """A worker from its start to its end; gives the port of its health."""
    authenticator = authenticator_of(options.tokens, log)
    tls = tls_files(options, log)
    registry_tls = client_tls(options.registry_ca, options.registry_cert, options.registry_key)
    check_bind(options.host, authenticator.has_auth)
    check_partitions("keyed", options.partitions, 1)
    with ExitStack() as stack:
        stack.enter_context(locked_folder(options.data, LOCK_NAME))
        config = TelemetryConfig("pipeline", options.metrics_port, options.otlp_endpoint)
        telemetry = stack.enter_context(closing(Telemetry(config)))
        meters, health = Meters(), Health()
        meters.observe(telemetry)
        access = read_access(options.kafka_access)
        cluster = Cluster(
            options.kafka, options.partitions, options.replicas, options.topic_prefix, access, options.ring_shards
        )
        clocks = Clocks(time.monotonic, lambda: time.time_ns() // 1_000)
        workers = Workers(cluster, options.schemas, meters, log, clocks, Random())
        stack.callback(workers.close)
        workers.on_first = lambda: _set_serving(health)
        telemetry.gauge(
            "headrace.pipeline.stopped",
            "Sources that stopped for good.",
            lambda: [(1, {"source": source, "reason": error.reason}) for source, error in workers.alarms().items()],
        )
        server = build_server(authenticator, {}, options.host, THREADS)
        add_health_and_reflection(server, health, SERVICE_NAMES)
        bound = bind(server, options.host, options.port, tls)
        copy = RegistryCopy(options.data / REGISTRY_COPY_NAME, read_file, write_file, log)
        copy.load(workers)
        server.start()
        stack.callback(lambda: server.stop(None).wait())
        token = bearer_token(options.registry_token, "registry_token") or ""
        watch = RegistryWatch(options.registry, token, workers, copy, random=Random(), log=log, tls=registry_tls)
        watch.start()
        stack.callback(watch.close)
        log.info(
            "listening", address=f"{options.host}:{bound}", port=bound, metrics_port=telemetry.metrics_port,
            kafka=options.kafka,
        )  # fmt: skip
        yield bound


def _set_serving(health: Health) -> None:
    for name in ("", *SERVICE_NAMES):
        health.set(name, is_serving=True)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line as options."""
    parser = argparse.ArgumentParser(prog="pipeline", description="Brings events of Kafka to feature servers.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the last registry; nothing else is written")
    parser.add_argument("--kafka", required=True, help="HOST:PORT,... of the brokers")
    parser.add_argument("--kafka-access", type=Path, help="file of name=value lines: security.*, sasl.*, ssl.*")
    parser.add_argument("--registry", required=True, help="HOST:PORT of the control plane")
    parser.add_argument("--port", type=port, default=0, help="port of the health service; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; beyond loopback needs --tokens")
    parser.add_argument("--tokens", type=Path, help="YAML file of token digests, principals and permissions")
    add_tls_options(parser)
    parser.add_argument("--registry-token", type=Path, help="file that holds the bearer token for the control plane")
    parser.add_argument("--registry-ca", type=Path, help="PEM file of the control plane's authority; plain without")
    parser.add_argument("--registry-cert", type=Path, help="PEM file of the certificate to show to the control plane")
    parser.add_argument("--registry-key", type=Path, help="PEM file of that certificate's key")
    parser.add_argument("--schemas", type=Path, help="folder of Avro and protobuf schemas that sources name")
    parser.add_argument(
        "--partitions", type=int, default=PARTITION_COUNT, help="of keyed topics that are made: a power of two, at "
        "least the shards of a store",
    )  # fmt: skip
    parser.add_argument(
        "--ring-shards", type=int, default=0, help="shards of a ring: events go to its log of rows, not to keyed topics"
    )
    parser.add_argument("--replicas", type=int, default=REPLICAS, help="of topics that are made")
    parser.add_argument("--topic-prefix", default="", help="before the names of the topics that Headrace makes")
    parser.add_argument("--metrics-port", type=port, help="port of the Prometheus endpoint; none without it")
    parser.add_argument("--otlp-endpoint", default="", help="http://HOST:PORT that takes traces and metrics by OTLP")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
