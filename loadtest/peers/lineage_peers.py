"""The peers of lineage: rustworkx in a process of its own, and a recursive CTE on PostgreSQL, indexed and analysed."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from loadtest.peers.lineage_graph import Edges
from loadtest.peers.processes import LOOPBACK, ROOT, Child, free_port, start_failed

ENVIRONMENT: Final = ROOT / ".venvs" / "rustworkx"
LOCK: Final = ROOT / "requirements" / "rustworkx.txt"
INSTALL_S: Final = 300.0
QUERY_S: Final = 600.0
PROGRAMS: Final = "/usr/lib/postgresql/*/bin"  # where Debian puts them, beside the PATH
SERVER_USER: Final = "postgres"
MEMORY: Final = (
    "shared_buffers=1GB",
    "work_mem=1GB",
    "maintenance_work_mem=512MB",
    "jit=off",
    "fsync=off",
    "max_parallel_workers_per_gather=2",
)  # more than a server of this size is given by default, so that nothing goes to disk
CTE: Final = (
    "WITH RECURSIVE reached(node) AS (SELECT target FROM edges WHERE source = {node} UNION "
    "SELECT edges.target FROM reached JOIN edges ON edges.source = reached.node) SELECT node FROM reached"
)


class Peer(Protocol):
    """One other graph with the same edges."""

    name: str

    def seconds(self, nodes: Sequence[int]) -> list[float]:
        """Seconds of the closure of each node."""

    def reached(self, node: int) -> NDArray[np.uint32]:
        """What a node reaches, in ascending order."""

    def stop(self) -> None:
        """Ends it."""


class Rustworkx:
    """The fastest closure of rustworkx: `descendants`, which gives a set of the nodes alone."""

    def __init__(self, edges: Edges, folder: Path) -> None:
        _install()
        folder.mkdir(parents=True, exist_ok=True)
        ends, self._kept = folder / "ends.npy", folder / "reached.npy"
        np.save(ends, np.stack(edges.now(), axis=1))
        command = [str(ENVIRONMENT / "bin" / "python"), "-m", "loadtest.peers.lineage_rustworkx"]
        command += [str(ends), str(edges.node_count)]
        self._child = Child(command, folder / "rustworkx.log", env={"PYTHONPATH": str(ROOT)}, cwd=ROOT, talks=True)
        self.name = f"rustworkx {self._read()['version']} descendants"

    def seconds(self, nodes: Sequence[int]) -> list[float]:
        """Seconds of the closure of each node."""
        return [float(one) for one in self._ask(nodes, "")["seconds"]]

    def reached(self, node: int) -> NDArray[np.uint32]:
        """What a node reaches, in ascending order."""
        self._ask([node], str(self._kept))
        found: NDArray[np.uint32] = np.load(self._kept)
        return found

    def stop(self) -> None:
        """Ends the process."""
        self._child.stop()

    def _ask(self, nodes: Sequence[int], keep: str) -> dict[str, Any]:  # Any: JSON values
        assert self._child.process.stdin is not None
        self._child.process.stdin.write(json.dumps({"nodes": list(nodes), "keep": keep}).encode() + b"\n")
        self._child.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:  # Any: JSON values
        assert self._child.process.stdout is not None
        line = self._child.process.stdout.readline()
        if not line:
            raise start_failed(f"rustworkx ended: {self._child.tail()}")
        found: dict[str, Any] = json.loads(line)
        return found


class Postgres:
    """A server of its own on loopback; the time of a closure is that of its executor, without sending rows."""

    def __init__(self, edges: Edges) -> None:
        self._programs = _programs()
        self._user = ["runuser", "-u", SERVER_USER, "--"] if os.geteuid() == 0 else []
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-lineage-"))
        self._port = free_port()
        try:
            if self._user:
                shutil.chown(self._folder, SERVER_USER)
            self._start()
            self._load(edges)
        except BaseException:
            self.stop()
            raise
        version = self._sql("SHOW server_version").split()[0]
        self.name = f"PostgreSQL {version}, recursive CTE, indexed and analysed"

    def seconds(self, nodes: Sequence[int]) -> list[float]:
        """Seconds of the closure of each node."""
        return [self._explained(CTE.format(node=int(node))) for node in nodes]

    def reached(self, node: int) -> NDArray[np.uint32]:
        """What a node reaches, in ascending order."""
        rows = self._sql(CTE.format(node=int(node))).split()
        return np.sort(np.array([int(row) for row in rows], np.uint32))

    def stop(self) -> None:
        """Ends the server and takes its folder away."""
        self._run([f"{self._programs}/pg_ctl", "-D", str(self._data), "-m", "immediate", "stop"], check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _start(self) -> None:
        self._run([f"{self._programs}/initdb", "-D", str(self._data), "-A", "trust", "-U", SERVER_USER, "--no-sync"])
        settings = " ".join(f"-c {one}" for one in (*MEMORY, f"listen_addresses={LOOPBACK}"))
        options = f"-p {self._port} {settings} -c unix_socket_directories={self._folder}"
        log = str(self._folder / "server.log")
        self._run([f"{self._programs}/pg_ctl", "-D", str(self._data), "-l", log, "-w", "-o", options, "start"])

    def _load(self, edges: Edges) -> None:
        self._sql("CREATE UNLOGGED TABLE edges (source int NOT NULL, target int NOT NULL)")
        ends = np.stack(edges.now(), axis=1)
        file = self._folder / "edges.csv"
        np.savetxt(file, ends, fmt="%d", delimiter=",")
        self._sql(f"\\copy edges FROM '{file}' WITH (FORMAT csv)")
        file.unlink()
        self._sql("CREATE INDEX ON edges (source) INCLUDE (target)")
        self._sql("VACUUM ANALYZE edges")

    def _explained(self, query: str) -> float:
        plan = self._sql(f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY ON) {query}")
        found = re.search(r"Execution Time: ([0-9.]+) ms", plan)
        assert found is not None, "the server sums a query up"
        return float(found[1]) / 1_000

    def _sql(self, text: str) -> str:
        command = [f"{self._programs}/psql", "-h", LOOPBACK, "-p", str(self._port), "-U", SERVER_USER, "-d", "postgres"]
        done = subprocess.run(
            [*command, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text],
            capture_output=True,
            text=True,
            timeout=QUERY_S,
            check=True,
        )
        return done.stdout

    def _run(self, command: Sequence[str], check: bool = True) -> None:
        subprocess.run(
            [*self._user, *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            timeout=QUERY_S,
            check=check,
        )


def has_postgres() -> bool:
    """Whether the programs of a server are here."""
    return bool(glob(f"{PROGRAMS}/initdb")) or shutil.which("initdb") is not None


def _programs() -> str:
    on_path = shutil.which("initdb")
    found = sorted(glob(f"{PROGRAMS}/initdb"))
    if not found and on_path is None:
        raise start_failed("PostgreSQL is not here: install postgresql (Debian: apt-get install postgresql)")
    return str(Path(found[-1] if found else str(on_path)).resolve().parent)


def _install() -> None:
    """Makes the environment of rustworkx from its lock file."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    mark = ENVIRONMENT / "lock.sha256"
    if mark.exists() and mark.read_text() == digest:
        return
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True, timeout=INSTALL_S)
    command = [str(ENVIRONMENT / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", "--require-hashes"]
    subprocess.run([*command, "-r", str(LOCK)], check=True, timeout=INSTALL_S)
    mark.write_text(digest)
