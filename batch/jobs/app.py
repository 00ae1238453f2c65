"""Historical service: `python -m batch.jobs.app --data DIR --lake DIR --registry HOST:PORT`."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from batch.jobs.context import Context
from batch.jobs.historical import now_us
from batch.jobs.job_table import JobState
from batch.jobs.queue import MEMORY_LIMIT_BYTES, RUNNING_MAX, JobLimits, JobQueue
from batch.offline.lake import lake_config
from batch.rpc.historical_servicer import SERVICE, HistoricalServicer
from headrace.serving.calls import add_service
from headrace.serving.logging import EventLog
from headrace.serving.permissions import method_permissions
from headrace.serving.process import authenticator_of, bearer_token, locked_folder, port, serve
from headrace.serving.server import Health, add_health_and_reflection, bind, build_server, check_bind, drain
from headrace.serving.telemetry import Telemetry, TelemetryConfig
from headrace.serving.tls import add_tls_options, asks_peer, tls_files
from headrace.serving.tls import observe as observe_tls

NAME: Final = "historical_service"
LOCK_NAME: Final = "jobs.lock"  # one process alone runs the jobs of a folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    options = _options(arguments)
    return serve(NAME, lambda log: running(options, log))


@contextmanager
def running(options: argparse.Namespace, log: EventLog) -> Iterator[int]:
    """A server from its start to its drain; gives the port."""
    authenticator = authenticator_of(options.tokens, log)
    tls = tls_files(options, log)
    check_bind(options.host, authenticator.has_auth)
    lake_config(options.lake, options.root)  # a file that says it wrongly is refused at once
    context = Context(
        options.lake,
        options.registry,
        bearer_token(options.registry_token, "registry_token"),
        True,
        tuple(options.root),
    )
    limits = JobLimits(options.running_jobs, options.memory_limit_bytes)
    with ExitStack() as stack:
        stack.enter_context(locked_folder(options.data, LOCK_NAME))
        telemetry = stack.enter_context(
            closing(Telemetry(TelemetryConfig(NAME, options.metrics_port, options.otlp_endpoint)))
        )
        queue = JobQueue(options.data, context, limits, now_us, log)
        _observe(telemetry, queue)
        server = build_server(authenticator, method_permissions(SERVICE.file), options.host, asks_peer=asks_peer(tls))
        add_service(server, SERVICE, HistoricalServicer(queue, authenticator.current_principal), telemetry, log)
        health = Health()
        add_health_and_reflection(server, health, [SERVICE.full_name])
        port = bind(server, options.host, options.port, tls)
        queue.open()
        stack.callback(queue.close)
        observe_tls(telemetry, tls)
        server.start()
        stack.callback(drain, server, health)
        for name in ("", SERVICE.full_name):
            health.set(name, is_serving=True)
        log.info("listening", address=f"{options.host}:{port}", port=port, metrics_port=telemetry.metrics_port)
        yield port


def _observe(telemetry: Telemetry, queue: JobQueue) -> None:
    telemetry.gauge(
        "headrace.jobs",
        "Historical jobs by state.",
        lambda: [(queue.counts().get(state, 0), {"state": state.name}) for state in JobState],
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=NAME, description="Runs historical joins as jobs.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the table of jobs")
    parser.add_argument("--lake", type=Path, required=True, help="folder of the offline store")
    parser.add_argument("--registry", required=True, help="HOST:PORT of the control plane")
    parser.add_argument("--registry-token", type=Path, help="file that holds the bearer token for the control plane")
    parser.add_argument(
        "--root", action="append", default=[], help="folder or s3:// prefix below which callers may name files"
    )
    parser.add_argument("--running-jobs", type=_count, default=RUNNING_MAX, help="jobs that run at once")
    parser.add_argument("--memory-limit-bytes", type=_count, default=MEMORY_LIMIT_BYTES, help="most memory of one join")
    parser.add_argument("--port", type=port, default=0, help="port to serve; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; beyond loopback needs --tokens")
    parser.add_argument("--tokens", type=Path, help="YAML file of token digests, principals and permissions")
    add_tls_options(parser)
    parser.add_argument("--metrics-port", type=port, help="port of the Prometheus endpoint; none without it")
    parser.add_argument("--otlp-endpoint", default="", help="http://HOST:PORT that takes traces and metrics by OTLP")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(f"{number} is below 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
