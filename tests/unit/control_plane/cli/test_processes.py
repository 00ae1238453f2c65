"""Children of a platform: started, heard, stopped, and gone with their parent."""

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from control_plane.cli.processes import Child, RotatingLog
from headrace.errors import Unavailable

LISTENS = """
import json, signal, sys
print(json.dumps({"event": "listening", "address": sys.argv[1]}), flush=True)
signal.pause()
"""
FAILS = "import sys; print('not json', flush=True); sys.exit('port 5 is taken')"
PARENT = """
import queue, sys
from pathlib import Path
from control_plane.cli.processes import Child
child = Child("server", "listens", ["a:1"], Path(sys.argv[1]) / "child.log", ended=queue.SimpleQueue())
child.listening()
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "listens.py").write_text(LISTENS)
    (tmp_path / "fails.py").write_text(FAILS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return tmp_path


def start(modules: Path, module: str, ended: "queue.SimpleQueue[str]", *arguments: str) -> Child:
    return Child("server", module, arguments, modules / "logs" / "child.log", ended=ended)


def until(holds: Callable[[], bool], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_child_says_where_it_listens_and_stops_when_told(modules: Path) -> None:
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    child = start(modules, "listens", ended, "127.0.0.1:7")
    assert child.listening()["address"] == "127.0.0.1:7"
    child.stop()
    assert ended.get(timeout=10) == "server"
    assert not is_alive(child.pid)
    assert b"listening" in (modules / "logs" / "child.log").read_bytes()


def test_child_that_ends_at_once_says_why(modules: Path) -> None:
    child = start(modules, "fails", queue.SimpleQueue())
    with pytest.raises(Unavailable, match=r"the server ended with exit 1: port 5 is taken \(log: .*child.log\)"):
        child.listening()
    child.stop()


def test_killed_child_is_reported(modules: Path) -> None:
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    child = start(modules, "listens", ended, "a:1")
    child.listening()
    os.kill(child.pid, signal.SIGKILL)
    assert ended.get(timeout=10) == "server"
    assert "signal 9" in child.death()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_child_ends_with_a_killed_parent(modules: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(modules)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
        parent.wait(10)
    until(lambda: not is_alive(pid))


def test_log_is_rotated_at_its_bound(tmp_path: Path) -> None:
    with RotatingLog(tmp_path / "a.log", bytes_max=10) as log:
        for line in (b"12345\n", b"6789\n", b"abc\n"):
            log.write(line)
    assert (tmp_path / "a.log").read_bytes() == b"6789\nabc\n"
    assert (tmp_path / "a.log.1").read_bytes() == b"12345\n"
