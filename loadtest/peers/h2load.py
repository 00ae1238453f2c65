"""Load from h2load over HTTP/2 (gRPC) and HTTP/1.1, so that no Python client stands before a server."""

import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from headrace.errors import Unavailable
from loadtest.peers.processes import LOOPBACK

GRPC_PREFIX: Final = struct.Struct(">BI")  # not compressed, length of the message
GRPC_HEADERS: Final = ("content-type: application/grpc", "te: trailers")
JSON_HEADERS: Final = ("content-type: application/json",)
CONNECTIONS: Final = 8  # the same for every peer, with one request in flight on each
GRACE_S: Final = 120.0  # what h2load may take beyond the asked duration, or for a count of requests

_FINISHED = re.compile(r"finished in ([\d.]+)(us|ms|s), ([\d.]+) req/s")
_REQUESTS = re.compile(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored")
_STATUSES = re.compile(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx")
_TRAFFIC = re.compile(r"traffic: .*?\((\d+)\) total, .*?\((\d+)\) headers .*?, .*?\((\d+)\) data")


@dataclass(frozen=True, slots=True)
class Target:
    """One request to send again and again."""

    url: str
    body: Path
    headers: tuple[str, ...]
    http1: bool = False


@dataclass(frozen=True, slots=True)
class Amount:
    """How much to send: for a time, or a count of requests when every one of them must be accounted for."""

    duration_s: float = 0.0
    requests: int = 0
    rate_per_connection: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What one run measured; the bytes of a timed run include its warm-up."""

    requests: int
    failed: int
    rate: float
    data_bytes: int
    latencies_us: tuple[int, ...]

    @property
    def bytes_per_answer(self) -> float:
        """Body bytes of one answer: shows that errors were not counted as answers."""
        return self.data_bytes / self.requests if self.requests else 0.0


def grpc_body(message: bytes) -> bytes:
    """The message with the five bytes that gRPC puts before it."""
    return GRPC_PREFIX.pack(0, len(message)) + message


def grpc_target(port: int, method: str, message: bytes, body: Path) -> Target:
    """A gRPC call, its body written to the file `body`."""
    body.write_bytes(grpc_body(message))
    return Target(f"http://{LOOPBACK}:{port}{method}", body, GRPC_HEADERS)


def json_target(port: int, path: str, message: bytes, body: Path) -> Target:
    """A JSON request over HTTP/1.1, its body written to the file `body`."""
    body.write_bytes(message)
    return Target(f"http://{LOOPBACK}:{port}{path}", body, JSON_HEADERS, http1=True)


def command(target: Target, connections: int, amount: Amount, log: Path | None) -> list[str]:
    """The h2load command line; a timed run measures after a warm-up of 0.2 s that opens the connections."""
    out = [shutil.which("h2load") or "h2load", "-c", str(connections), "-m", "1", "-t", "1"]
    if amount.requests:
        out += ["-n", str(amount.requests)]
    else:
        out += ["-D", f"{round(amount.duration_s * 1000)}ms", "--warm-up-time", "200ms"]
    out += ["-d", str(target.body)]
    out += ["--log-file", str(log)] if log is not None else []
    out += ["--h1"] if target.http1 else []
    out += ["--rps", str(amount.rate_per_connection)] if amount.rate_per_connection else []
    for header in target.headers:
        out += ["-H", header]
    return [*out, target.url]


def run(target: Target, amount: Amount, connections: int = CONNECTIONS, *, logged: bool = True) -> Load:
    """Sends the amount and returns what came back; raises Unavailable when any answer was bad.

    Without a log there are no latencies, and h2load does not spend time on writing it.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "requests.tsv"
        try:
            done = subprocess.run(
                command(target, connections, amount, log if logged else None),
                capture_output=True,
                text=True,
                timeout=amount.duration_s + GRACE_S,
                check=True,
            )
        except FileNotFoundError as error:
            raise load_failed("h2load is not installed: install Debian's nghttp2-client") from error
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise load_failed(f"h2load failed against {target.url}: {error}") from error
        load = parse(done.stdout, log.read_text() if log.exists() else "")
    if load.failed or not load.requests:
        raise load_failed(f"{load.failed} of {load.requests + load.failed} requests to {target.url} failed")
    return load


def parse(output: str, log: str) -> Load:
    """Reads h2load's summary and its per-request log."""
    finished, requests = _FINISHED.search(output), _REQUESTS.search(output)
    statuses, traffic = _STATUSES.search(output), _TRAFFIC.search(output)
    if not finished or not requests or not statuses or not traffic:
        raise load_failed(f"h2load's summary has another form than that of nghttp2 1.52: {output[-500:]}")
    bad = sum(int(statuses[group]) for group in (2, 3, 4)) + int(requests[4])
    latencies: tuple[int, ...] = ()
    if log:
        table = np.loadtxt(log.splitlines(), dtype=np.int64, ndmin=2)
        latencies = tuple(table[table[:, 1] == 200, 2].tolist())
        bad += int(np.count_nonzero(table[:, 1] == -1))
    return Load(int(requests[2]), bad, float(finished[3]), int(traffic[3]), latencies)


def logged_rate(log: Path, window_s: tuple[float, float]) -> float:
    """Requests a second that began within the window (Unix times), by a per-request log. Raises Unavailable."""
    first_us, last_us = (round(at * 1e6) for at in window_s)
    with log.open("rb") as lines:  # the last line may be cut off
        count = sum(first_us <= int(line.split(b"\t")[0]) < last_us for line in lines if line.endswith(b"\n"))
    if not count or last_us <= first_us:
        raise load_failed(f"{log.name} names {count} requests of the window: nothing held the load")
    return count * 1e6 / (last_us - first_us)


def load_failed(message: str) -> Unavailable:
    """The error of a load that did not run as asked."""
    return Unavailable(message, reason="LOAD_FAILED")
