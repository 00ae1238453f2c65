"""Feast over Redis: its environment, its loaded store, its SDK in a process of its own, and its feature server."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Final

from loadtest.peers.processes import LOOPBACK, ROOT, Child, start_failed

ENVIRONMENT: Final = ROOT / ".venvs" / "feast"
LOCK: Final = ROOT / "requirements" / "feast.txt"
INSTALL_S: Final = 900.0
ASK_S: Final = 30.0
SERVICE: Final = "user_200"
PRECOMPUTED_SERVICE: Final = "user_200_precomputed"
READ_PATH: Final = "/get-online-features"
KEEP_ALIVE_S: Final = 300  # longer than the pause between two rounds
QUIET: Final = {"FEAST_USAGE": "False", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def ready(environment: Path = ENVIRONMENT) -> bool:
    """Whether Feast's environment is the one of the lock file."""
    mark = environment / "lock.sha256"
    return mark.exists() and mark.read_text() == lock_digest()


def lock_digest() -> str:
    """Digest of the lock file; a cache made by another version of Feast is not used."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def install() -> None:
    """Makes Feast's own virtual environment from the lock file."""
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True, timeout=INSTALL_S)
    command = [str(ENVIRONMENT / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", "--require-hashes"]
    subprocess.run([*command, "-r", str(LOCK)], check=True, timeout=INSTALL_S)
    (ENVIRONMENT / "lock.sha256").write_text(lock_digest())


class FeastWorker:
    """A process that holds Feast's SDK and answers commands one by one."""

    def __init__(self, folder: Path, redis_port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        command = [str(ENVIRONMENT / "bin" / "python"), "-m", "loadtest.peers.feast_worker"]
        command += ["--folder", str(folder), "--redis-port", str(redis_port)]
        log = folder / "worker.log"
        self.child = Child(command, log, env=QUIET, cwd=ROOT, talks=True)

    def wait(self) -> None:
        """Returns when the process has opened its store."""
        self.ask({"act": "ping"})

    def ask(self, command: dict[str, object]) -> dict[str, object]:
        """Sends one command and waits for its answer."""
        process = self.child.process
        assert process.stdin is not None and process.stdout is not None
        _send(process.stdin, command)
        line = process.stdout.readline()
        if not line:
            raise start_failed(f"Feast ended during {command['act']}: {self.child.tail()}")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def load(self, entities: int) -> None:
        """Writes all rows and the precomputed vectors."""
        self.wait()
        self.ask({"act": "load", "entities": entities})

    def read_s(self, batches: Sequence[Sequence[int]], precomputed: bool = False) -> list[float]:
        """Seconds of each SDK call, values in a dict at its end."""
        answer = self.ask({"act": "read", "batches": [list(one) for one in batches], "precomputed": precomputed})
        return [float(str(one)) for one in _list(answer["seconds"])]

    def frame_s(self, port: int, batches: Sequence[Sequence[int]], columns: int) -> tuple[list[float], list[float]]:
        """Seconds of each MGET of packed values to a data frame by redis-py, and the first row of the last."""
        command: dict[str, object] = {"act": "frames", "port": port, "columns": columns}
        answer = self.ask(command | {"batches": [list(one) for one in batches]})
        spans, first = ([float(str(one)) for one in _list(answer[name])] for name in ("seconds", "first"))
        return spans, first

    def write_rate(self, first_key: int, rows: int, age_us: int, bulk: bool = False) -> float:
        """Rows per second of writes of 50 features each; in bulk without the read of the stored event time."""
        answer = self.ask({"act": "write", "first_key": first_key, "rows": rows, "age_us": age_us, "bulk": bulk})
        return float(str(answer["rows"])) / float(str(answer["seconds"]))

    def stop(self) -> None:
        """Ends the process."""
        self.child.stop()


class FeastServer:
    """Feast's Python feature server under gunicorn with as many workers as cores."""

    def __init__(self, folder: Path, port: int) -> None:
        command = [str(ENVIRONMENT / "bin" / "feast"), "-c", str(folder), "serve", "--host", LOOPBACK]
        command += ["--port", str(port), "--workers", str(os.cpu_count() or 1), "--no-access-log"]
        command += ["--max-requests", "0", "--max-requests-jitter", "0", "--registry_ttl_sec", "3600"]
        command += ["--keep-alive-timeout", str(KEEP_ALIVE_S), "--worker-connections", "1000"]
        self.port = port
        self.child = Child(command, folder / "server.log", env=QUIET | {"HOME": str(folder)}, cwd=ROOT)

    def wait(self) -> None:
        """Returns when the server answers."""
        self.child.wait_until(self.healthy, "Feast's feature server")

    def healthy(self) -> bool:
        """Whether it answers its health check."""
        try:
            return self._ask("GET", "/health", b"")[0] == HTTPStatus.OK
        except OSError:
            return False

    def read(self, message: bytes) -> bytes:
        """One read, for checking what the load will ask for."""
        status, answer = self._ask("POST", READ_PATH, message)
        if status != HTTPStatus.OK:
            raise start_failed(f"Feast's feature server answered {status}: {answer[:300].decode(errors='replace')}")
        return answer

    def _ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        connection = HTTPConnection(LOOPBACK, self.port, timeout=ASK_S)
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def stop(self) -> None:
        """Ends the server and its workers."""
        self.child.stop()


def read_message(keys: Sequence[int], precomputed: bool) -> bytes:
    """JSON body of one read; the fast path of precomputed vectors needs full feature names."""
    message: dict[str, object] = {"feature_service": PRECOMPUTED_SERVICE if precomputed else SERVICE}
    message |= {"entities": {"user_id": list(keys)}, "full_feature_names": precomputed}
    return json.dumps(message).encode()


def with_port(settings: str, port: int) -> str:
    """Feast's settings with another Redis port."""
    return re.sub(rf"{re.escape(LOOPBACK)}:\d+", f"{LOOPBACK}:{port}", settings)


def _send(pipe: IO[bytes], command: dict[str, object]) -> None:
    pipe.write(json.dumps(command).encode() + b"\n")
    pipe.flush()


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value
