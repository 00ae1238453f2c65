"""The processes that the stream benchmark measures: control plane, pipeline worker and feature server."""

import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from headrace.errors import Unavailable
from loadtest.peers.processes import LOOPBACK, POLL_S, ROOT, Child, free_port, listens, usage

APPLY_LIMIT_S: Final = 300.0
ASK_LIMIT_S: Final = 30.0
PARTITIONS: Final = 8  # of the keyed topic: as many as an embedded store has shards
_EVENTS: Final = "headrace_pipeline_events_total"
_LAG: Final = "headrace_pipeline_lag"


class Stage:
    """A context manager that starts all, and ends all."""

    def __init__(self, folder: Path, bootstrap: str, prefix: str) -> None:
        self._folder = folder
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._stack = ExitStack()
        self._ports = {name: free_port() for name in ("registry", "server", "worker_metrics", "server_metrics")}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._control = self._start(stack, "control_plane.app", "registry", [])
            shared = ["--registry", self.registry, "--kafka", self._bootstrap, "--topic-prefix", self._prefix]
            metrics = ["--metrics-port", str(self._ports["server_metrics"])]
            self._server = self._start(stack, "feature_server.app", "server", [*shared, *metrics])
            command = [
                sys.executable,
                "-m",
                "feature_server.pipeline.app",
                "--data",
                str(self._folder / "worker"),
                *shared,
            ]
            command += ["--metrics-port", str(self._ports["worker_metrics"]), "--partitions", str(PARTITIONS)]
            self._worker = stack.enter_context(Child(command, self._folder / "worker.log", cwd=ROOT))
            self._worker.wait_until(lambda: listens(self._ports["worker_metrics"]), "the worker")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def registry(self) -> str:
        """Address of the control plane."""
        return f"{LOOPBACK}:{self._ports['registry']}"

    @property
    def address(self) -> str:
        """Address of the feature server."""
        return f"{LOOPBACK}:{self._ports['server']}"

    def cpu_s(self) -> float:
        """CPU time of worker and server so far."""
        return usage(self._worker.pid).cpu_s + usage(self._server.pid).cpu_s

    def applied(self) -> int:
        """Events in rows."""
        return int(sum(_metric(self._ports["server_metrics"], _EVENTS)))

    def wait_applied(self, count: int) -> None:
        """Returns when that many events are in rows."""
        self._wait(lambda: self.applied() >= count, f"{count} events in rows")

    def wait_read(self, topic: str, partitions: int) -> None:
        """Returns when the worker reads a topic and the server the keyed one behind it."""
        wanted = (("worker_metrics", partitions), ("server_metrics", PARTITIONS))
        self._wait(lambda: all(len(_metric(self._ports[name], _LAG)) >= n for name, n in wanted), f"readers of {topic}")

    @contextmanager
    def held_worker(self) -> Iterator[None]:
        """The worker stands still inside the block."""
        self._worker.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._worker.process.send_signal(signal.SIGCONT)

    def _start(self, stack: ExitStack, module: str, name: str, arguments: list[str]) -> Child:
        command = [sys.executable, "-m", module, "--data", str(self._folder / name), "--port", str(self._ports[name])]
        child = stack.enter_context(Child([*command, *arguments], self._folder / f"{name}.log", cwd=ROOT))
        child.wait_until(lambda: listens(self._ports[name]), module)
        return child

    def _wait(self, holds: Callable[[], bool], what: str) -> None:
        give_up = time.monotonic() + APPLY_LIMIT_S
        while not holds():
            if time.monotonic() > give_up:
                raise Unavailable(
                    f"not after {APPLY_LIMIT_S} s: {what}\n{self._worker.tail()}\n{self._server.tail()}",
                    reason="PIPELINE_STUCK",
                )
            time.sleep(POLL_S)


def _metric(port: int, name: str) -> list[float]:
    """Values of a metric over all of its labels."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=ASK_LIMIT_S) as answer:
        lines = answer.read().decode().splitlines()
    return [float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} "))]
