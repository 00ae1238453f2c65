"""Real server processes: started, found ready, killed by id, with their logs at hand."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.cluster.calls import SHARD_COUNT, Caller
from tests.cluster.history import Recorder

ROOT: Final = Path(__file__).parent.parent.parent
START_LIMIT_S: Final = 60.0  # two cores shared with other tests; how long a start takes is judged by the checker
STOP_LIMIT_S: Final = 30.0
POLL_S: Final = 0.005
LOG_TAIL_BYTES: Final = 8_192


class NotReadyError(AssertionError):
    """A process did not come to the awaited state; the message carries the end of its log."""


@dataclass(slots=True)
class ServerProcess:
    """One `python -m MODULE` at a time; its output goes to a log that all of its lives share."""

    module: str
    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[int, int] = field(default_factory=dict)  # resource limits, RLIMIT_* to soft and hard
    process: "subprocess.Popen[bytes] | None" = None
    _life_start: int = 0

    def launch(self) -> int:
        """Starts it and returns the process id at once."""
        assert self.process is None or self.process.poll() is not None, "one life at a time"
        self._life_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        for limit, value in self.limits.items():
            resource.prlimit(self.process.pid, limit, (value, value))
        return self.process.pid

    def wait_listening(self, limit_s: float = START_LIMIT_S) -> int:
        """The port, once the log says "listening"."""
        wait_for(lambda: self.exit_code() is not None or self.event("listening"), limit_s, self.tail)
        listening = self.event("listening")
        if listening is None:
            raise NotReadyError(f"{self.module} ended with {self.exit_code()}\n{self.tail()}")
        return int(listening["port"])

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        assert self.process is not None, "not started"
        self.process.kill()
        self.process.wait(STOP_LIMIT_S)

    def stop(self) -> int:
        """SIGTERM, and the exit code; SIGKILL where it does not end."""
        if self.process is None or self.process.poll() is not None:
            return self.exit_code() or 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise NotReadyError(f"{self.module} did not stop\n{self.tail()}") from None

    def exit_code(self) -> int | None:
        """None while it runs."""
        return None if self.process is None else self.process.poll()

    def event(self, name: str) -> dict[str, Any] | None:  # Any: fields of a log line
        """The first log event of this life with a name."""
        return next((event for event in self.events() if event.get("event") == name), None)

    def events(self) -> list[dict[str, Any]]:
        """Log events of this life; other lines are left out."""
        lines = self.log.read_bytes()[self._life_start :].splitlines()
        return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]

    def tail(self) -> str:
        """End of the log."""
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace") if self.log.exists() else ""

    def resident_bytes(self) -> int:
        """Memory that it holds now."""
        return _status_bytes(self.pid, "VmRSS")

    def virtual_bytes(self) -> int:
        """Address space that it holds now."""
        return _status_bytes(self.pid, "VmSize")

    @property
    def pid(self) -> int:
        """Process id of this life."""
        assert self.process is not None, "not started"
        return self.process.pid


@dataclass(slots=True)
class FeatureServer:
    """A feature server on one data folder and port over all of its lives, and the history of what is done to it."""

    server: ServerProcess
    data: Path
    address: str
    recorder: Recorder
    life_file: Path
    life: int = 0

    @classmethod
    def create(
        cls, folder: Path, registry_address: str, *, data: Path | None = None, options: Sequence[str] = ()
    ) -> "FeatureServer":
        """A server that is not started yet. Its folder also holds the log and the history."""
        port = free_port()
        data = data or folder / "data"
        arguments = ["--data", str(data), "--port", str(port), "--registry", registry_address]
        arguments += ["--shards", str(SHARD_COUNT), *options]
        server = ServerProcess("feature_server.app", arguments, folder / "server.log")
        life_file = folder / "life"
        life_file.write_text("0")
        return cls(server, data, f"127.0.0.1:{port}", Recorder(folder / "marks"), life_file)

    def start(self, limit_s: float = START_LIMIT_S) -> None:
        """Starts it and waits until it says that it serves."""
        self.launch()
        self.wait_ready(limit_s)

    def launch(self) -> None:
        """Starts it and returns at once."""
        self.life += 1
        self.life_file.write_text(str(self.life))
        self.recorder.mark("start")
        self.server.launch()

    def wait_ready(self, limit_s: float = START_LIMIT_S) -> None:
        """Waits for the log line and the health answer."""
        self.server.wait_listening(limit_s)
        with Caller(self.address) as caller:
            wait_for(lambda: self.server.exit_code() is not None or caller.is_serving(), limit_s, self.server.tail)
        if self.server.exit_code() is not None:
            raise NotReadyError(f"the server ended with {self.server.exit_code()}\n{self.server.tail()}")
        self.recorder.mark("ready")

    def kill(self) -> None:
        """SIGKILL."""
        self.recorder.mark("kill")
        self.server.kill()

    def stop(self) -> int:
        """SIGTERM."""
        self.recorder.mark("stop")
        return self.server.stop()


def wait_for(condition: Callable[[], object], limit_s: float, describe: Callable[[], str] = str) -> None:
    """Polls until the condition holds; past the limit fails with what `describe` says."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise NotReadyError(f"not within {limit_s} s\n{describe()}")
        time.sleep(POLL_S)


def free_port() -> int:
    """A port of loopback that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise ProcessLookupError(f"process {pid} has no {name}: it has ended")
