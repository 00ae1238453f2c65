"""Children start, are measured and end with everything below them."""

import sys
from pathlib import Path

import pytest

from headrace.errors import Unavailable
from loadtest.peers.processes import Child, descendants, free_port, listens, usage

LISTENER = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"
PARENT = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print('up', flush=True); p.wait()"
SPINNER = """
import time
end = time.process_time() + 0.2
while time.process_time() < end: pass
print("up", flush=True)
time.sleep(60)
"""


def test_child_is_ready_when_its_port_answers_and_gone_after_the_block(tmp_path: Path) -> None:
    port = free_port()
    with Child([sys.executable, "-c", LISTENER, str(port)], tmp_path / "log") as child:
        child.wait_until(lambda: listens(port), "listener")
    assert not listens(port)
    assert child.process.returncode is not None


def test_child_that_ends_is_reported_with_its_output(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no disk')"]
    with Child(command, tmp_path / "log") as child, pytest.raises(Unavailable, match="no disk") as caught:
        child.wait_until(lambda: False, "server")
    assert caught.value.reason == "PEER_NOT_STARTED"


def test_child_that_is_never_ready_is_reported_after_the_limit(tmp_path: Path) -> None:
    with Child(["sleep", "60"], tmp_path / "log") as child, pytest.raises(Unavailable, match="was not ready"):
        child.wait_until(lambda: False, "server", limit_s=0.1)


def test_usage_counts_the_processor_and_memory_of_a_child(tmp_path: Path) -> None:
    with Child([sys.executable, "-c", SPINNER], tmp_path / "log") as child:
        child.wait_until(lambda: "up" in child.tail(), "spinner")
        used = usage(child.pid)
    assert 0.15 <= used.cpu_s <= 5
    assert used.resident_bytes > 1_000_000


def test_descendants_hold_the_children_of_a_child(tmp_path: Path) -> None:
    with Child([sys.executable, "-c", PARENT], tmp_path / "log") as child:
        child.wait_until(lambda: len(descendants(child.pid)) == 2, "parent")
