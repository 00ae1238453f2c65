"""Command line of a feature server."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from feature_server.pipeline.rows_topic import REPLICAS, RETENTION_S
from feature_server.rpc.native_front import CONNECTION_BYTES, TRANSPORTS
from feature_server.storage.rocks_options import BLOCK_CACHE_BYTES, WRITE_BUFFER_BYTES
from feature_server.storage.store_folder import SHARD_COUNT
from headrace.serving.process import port
from headrace.serving.tls import add_tls_options

TABLE_BYTES: Final = 256 << 20  # rows of a demo or a small model; a server of its own is given more
SERVED_LOG_BYTES: Final = 256 << 20


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line as options."""
    parser = argparse.ArgumentParser(prog="feature_server", description="Serves feature values online.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the store; nothing else is written")
    parser.add_argument("--port", type=port, default=0, help="port to serve; 0 takes a free one")
    parser.add_argument("--registry", required=True, help="HOST:PORT of the control plane")
    parser.add_argument("--registry-token", type=Path, help="file that holds the bearer token for the control plane")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; beyond loopback needs --tokens")
    parser.add_argument("--tokens", type=Path, help="YAML file of token digests, principals and permissions")
    add_tls_options(parser)
    parser.add_argument("--ring", action="store_true", help="join the ring of the control plane; needs a new folder")
    parser.add_argument("--advertise", default="", help="HOST:PORT that peers reach this server by; --host and port")
    parser.add_argument("--zone", default="", help="what fails together, such as a rack: copies lie apart from it")
    parser.add_argument("--weight", type=int, default=1, help="part of the load beside the weights of other servers")
    parser.add_argument(
        "--registry-ca", type=Path, help="PEM file of the authority of the control plane; plain without"
    )
    parser.add_argument("--registry-cert", type=Path, help="PEM file of the certificate to show to the control plane")
    parser.add_argument("--registry-key", type=Path, help="PEM file of that certificate's key")
    parser.add_argument("--transport", choices=TRANSPORTS, help="native where it was compiled in, else grpcio")
    parser.add_argument("--loops", type=int, default=0, help="threads of the native transport; one per core without it")
    parser.add_argument(
        "--connection-bytes", type=byte_count, default=CONNECTION_BYTES,
        help="memory of requests and unread answers of all connections of the native transport",
    )  # fmt: skip
    parser.add_argument("--shards", type=int, help=f"shards of a new store, {SHARD_COUNT} without it")
    parser.add_argument("--table-bytes", type=byte_count, default=TABLE_BYTES, help="memory of the row table")
    parser.add_argument("--block-cache-bytes", type=byte_count, default=BLOCK_CACHE_BYTES, help="memory of disk blocks")
    parser.add_argument("--write-buffer-bytes", type=byte_count, default=WRITE_BUFFER_BYTES, help="memory of writes")
    parser.add_argument("--row-log-bytes", type=byte_count, help="disk for rows on their way offline; none without it")
    parser.add_argument(
        "--function-module",
        action="append",
        default=[],
        metavar="MODULE",
        help="module, with those below it, that functions of views may be imported from; may stand more than once",
    )
    parser.add_argument(
        "--served-log-share", type=share, default=0.0, help="part of the reads to log for the offline store, 0 to 1"
    )
    parser.add_argument(
        "--reclaim-every-s", type=seconds, default=0.0,
        help="seconds between two walks that take away rows of retired versions; none without it",
    )  # fmt: skip
    parser.add_argument(
        "--served-log-bytes", type=byte_count, default=SERVED_LOG_BYTES, help="disk for logged reads on their way"
    )
    parser.add_argument(
        "--kafka",
        default="",
        help="HOST:PORT,... of brokers: their keyed topics are read, or with --ring their log of rows",
    )
    parser.add_argument(
        "--rows-replicas", type=int, default=REPLICAS, help="of the log of rows, where this server makes its topic"
    )
    parser.add_argument(
        "--rows-retention-s", type=int, default=RETENTION_S, help="seconds that a log which is made keeps rows"
    )
    parser.add_argument("--kafka-access", type=Path, help="file of name=value lines: security.*, sasl.*, ssl.*")
    parser.add_argument("--topic-prefix", default="", help="before the names of the topics, as the pipeline has it")
    parser.add_argument("--metrics-port", type=port, help="port of the Prometheus endpoint; none without it")
    parser.add_argument("--import-root", type=Path, action="append", default=[], help="folder that imports may read")
    parser.add_argument("--direct-reads", action="store_true", help="reads past the page cache, for data beyond memory")
    parser.add_argument("--otlp-endpoint", default="", help="http://HOST:PORT that takes traces and metrics by OTLP")
    return parser.parse_args(arguments)


def seconds(text: str) -> float:
    """A span of 0 or more."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more seconds")
    return number


def share(text: str) -> float:
    """A part of a whole."""
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError("0 to 1")
    return number


def byte_count(text: str) -> int:
    """A positive number of bytes."""
    number = int(text)
    if number < 1 << 20:
        raise ValueError("at least 1 MiB")
    return number
