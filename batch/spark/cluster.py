"""A standalone Spark cluster on loopback, for tests and development."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

import pyspark

from batch.spark.session import LOOPBACK
from headrace.errors import InvalidArgument, Unavailable

WORKERS_MAX: Final = 16  # on one machine: each is a Java process of some 200 MB, and one more per job
START_LIMIT_S: Final = 120.0  # 15 s on two idle cores
STOP_LIMIT_S: Final = 20.0  # a worker ends its executors first
POLL_INTERVAL_S: Final = 0.1
REQUEST_LIMIT_S: Final = 5.0
LOG_LINES_SHOWN: Final = 10
MASTER: Final = "org.apache.spark.deploy.master.Master"
WORKER: Final = "org.apache.spark.deploy.worker.Worker"


@dataclass(frozen=True)
class Cluster:
    """A running cluster. `url` goes into open_session; the logs lie in `folder`."""

    url: str
    status_url: str
    folder: Path
    processes: tuple["subprocess.Popen[bytes]", ...]

    def workers_alive(self) -> int:
        """Workers that the master counts as alive. Raises Unavailable when it does not answer."""
        try:
            with urlopen(self.status_url, timeout=REQUEST_LIMIT_S) as answer:  # noqa: S310 - http on loopback
                return int(json.load(answer)["aliveworkers"])
        except (URLError, OSError, ValueError, KeyError) as exc:
            raise _not_up("the master does not answer", self.folder / "master.log") from exc


@contextmanager
def standalone_cluster(
    folder: Path, *, workers: int = 2, cores_per_worker: int = 1, worker_memory: str = "1g"
) -> Iterator[Cluster]:
    """Starts a master and its workers, waits until all are registered, and ends those processes and no others."""
    if not 1 <= workers <= WORKERS_MAX:
        raise InvalidArgument(
            f"workers must be 1 to {WORKERS_MAX}, not {workers}: use a real cluster for more",
            reason="WORKER_COUNT_OUT_OF_RANGE",
            field="workers",
            metadata={"workers": str(workers)},
        )
    folder.mkdir(parents=True, exist_ok=True)
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(_launch(folder, "master", MASTER, "--host", LOOPBACK, "--port", "0", "--webui-port", "0"))
        url = _awaited(started[0], folder / "master.log", r"Starting Spark master at (spark://\S+)")
        status_url = _awaited(started[0], folder / "master.log", r"MasterWebUI.*started at (http://\S+)") + "/json/"
        options = ["--host", LOOPBACK, "--webui-port", "0", "--work-dir", str(folder / "work")]
        options += ["--cores", str(cores_per_worker), "--memory", worker_memory]
        for number in range(workers):
            started.append(_launch(folder, f"worker-{number}", WORKER, *options, url))
        cluster = Cluster(url, status_url, folder, tuple(started))
        _until(lambda: cluster.workers_alive() == workers, started, folder / f"worker-{workers - 1}.log")
        yield cluster
    finally:
        _stop(started)


def _launch(folder: Path, name: str, main_class: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """One Java process with its own log; every address that it listens on is of this machine alone."""
    home = Path(pyspark.__file__).parent
    variables = [f"SPARK_LOCAL_IP={LOOPBACK}", f"SPARK_PUBLIC_DNS={LOOPBACK}", f"SPARK_HOME={home}"]
    variables.append("SPARK_MASTER_OPTS=-Dspark.master.rest.enabled=false")  # its port is fixed, and unused
    variables += ["SPARK_DAEMON_MEMORY=256m", f"SPARK_LOCAL_DIRS={folder / 'scratch'}"]
    # `env` and `spark-class` replace themselves, so that the process we hold is the Java one.
    command = ["env", *variables, str(home / "bin/spark-class"), main_class, *arguments]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _awaited(process: "subprocess.Popen[bytes]", log: Path, pattern: str) -> str:
    """The first group of the pattern, once the log holds it."""
    found: list[str] = []

    def seen() -> bool:
        found[:] = re.findall(pattern, log.read_text(errors="replace"))[:1]
        return bool(found)

    _until(seen, [process], log)
    return found[0]


def _until(holds: Callable[[], bool], processes: "list[subprocess.Popen[bytes]]", log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while not holds():
        if any(process.poll() is not None for process in processes):
            raise _not_up("a process of the cluster ended", log)
        if time.monotonic() > deadline:
            raise _not_up(f"the cluster was not up within {START_LIMIT_S:.0f} s", log)
        time.sleep(POLL_INTERVAL_S)


def _not_up(what: str, log: Path) -> Unavailable:
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:] if log.exists() else []
    return Unavailable(
        f"{what}; the last lines of {log}:\n" + "\n".join(lines),
        reason="SPARK_CLUSTER_NOT_UP",
        metadata={"log": str(log)},
    )


def _stop(processes: "list[subprocess.Popen[bytes]]") -> None:
    """Asks workers before the master, waits for all, and kills what does not listen."""
    for process in reversed(processes):
        process.terminate()
    deadline = time.monotonic() + STOP_LIMIT_S
    for process in reversed(processes):
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
