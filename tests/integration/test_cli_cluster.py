"""`headrace cluster up`: one process tree, a live stream with freshness and parity, and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.platforms import STOP_LIMIT_S, environment, headrace, is_alive, until

START_LIMIT_S = 180.0
DEMO_LIMIT_S = 240.0
SMALL = ("--shards", "8")


@contextmanager
def running(folder: Path, *options: str, file: str = "cluster.out") -> Iterator["subprocess.Popen[str]"]:
    """`headrace cluster up` in a folder; gone after the block whatever happened in it."""
    with (folder / file).open("w") as out, (folder / "cluster.err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "control_plane.cli.app", "cluster", "up", *SMALL, *options],
            stdout=out, stderr=err, text=True, cwd=folder, env=environment(TMPDIR=str(folder)),
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_text(process: "subprocess.Popen[str]", path: Path, text: str, limit_s: float) -> str:
    until(lambda: text in path.read_text() or process.poll() is not None, text, limit_s)
    found = path.read_text()
    assert text in found, found + (path.parent / "cluster.err").read_text()
    return found


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        found += [one for child in children for one in (child, *descendants(child))]
    return found


@pytest.mark.timeout(600)
def test_cluster_is_one_tree_that_status_shows_and_a_signal_ends(tmp_path: Path) -> None:
    with running(tmp_path, "--offline") as process:
        wait_for_text(process, tmp_path / "cluster.out", "stop with Ctrl-C", START_LIMIT_S)
        below = descendants(process.pid)
        names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in below]
        assert names.count("java") == 1 and len(below) == 9, names
        status = headrace("cluster", "status", "-o", "json", cwd=tmp_path)
        assert status.returncode == 0, status.stderr
        told = json.loads(status.stdout)
        assert len(told["live"]) == 3 and told["short_of_copies"] == []
        endpoints = json.loads((tmp_path / ".headrace/endpoints.json").read_text())
        assert len(endpoints["ring"]) == 3 and endpoints["kafka"].startswith("127.0.0.1:")
        second = headrace("cluster", "up", *SMALL, cwd=tmp_path)
        assert second.returncode == 1 and "already runs on the data folder" in second.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_LIMIT_S) == 0
    assert not any(map(is_alive, below))
    assert not (tmp_path / ".headrace/endpoints.json").exists()
    said = (tmp_path / "cluster.err").read_text()
    assert "Kafka" in said and "8 shards of 2 copies on 3 servers" in said


@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", ["java", "parent"])
def test_death_of_a_broker_or_of_the_parent_takes_all_along(tmp_path: Path, victim: str) -> None:
    with running(tmp_path) as process:
        wait_for_text(process, tmp_path / "cluster.out", "stop with Ctrl-C", START_LIMIT_S)
        below = descendants(process.pid)
        if victim == "parent":
            process.kill()
            process.wait()
        else:
            (java,) = [pid for pid in below if Path(f"/proc/{pid}/comm").read_text().strip() == "java"]
            os.kill(java, signal.SIGKILL)
            assert process.wait(STOP_LIMIT_S) == 1
            assert "the Kafka process ended with exit 1: broker 1 has ended" in (tmp_path / "cluster.err").read_text()
    until(lambda: not any(map(is_alive, below)), "every process ends", STOP_LIMIT_S)


@pytest.mark.timeout(900)
def test_demo_serves_a_live_stream_that_equals_the_batch(tmp_path: Path) -> None:
    with running(tmp_path, "--demo", "--speed", "600") as process:
        out = tmp_path / "cluster.out"
        until(lambda: out.read_text().count("values equal") >= 3 or process.poll() is not None, "parity", DEMO_LIMIT_S)
        (folder,) = tmp_path.glob("headrace-cluster-*")
        status = headrace("cluster", "status", "--data", str(folder), cwd=tmp_path)
        assert status.returncode == 0, status.stderr
        assert re.search(r"stream server +[1-9][0-9,]* .* under [0-9.]+ s", status.stdout), status.stdout
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_LIMIT_S) == 0
    said = out.read_text()
    assert "the ring does not read Kafka yet" in said
    assert "DEMO FAILED" not in said
    assert re.search(r"freshness p50 [0-9.]+ s, p99 [0-9.]+ s of [1-9][0-9]* events; 13,800 values equal", said), said
    assert re.search(r"compared [0-9,]+ values in [3-9]\d* comparisons; freshness p50", said), said
    assert not list(tmp_path.glob("headrace-cluster-*")), "the folder goes at the end"


@pytest.mark.timeout(900)
def test_demo_ends_with_the_first_value_that_differs(tmp_path: Path) -> None:
    with running(tmp_path, "--demo", "--speed", "600", "--plant") as process:
        assert process.wait(DEMO_LIMIT_S) == 1
    said = (tmp_path / "cluster.out").read_text()
    assert "served values differ from the batch" in said and "DEMO FAILED" in said
    assert "carrier" in said


def test_speed_without_the_demo_is_a_wrong_usage(tmp_path: Path) -> None:
    done = headrace("cluster", "up", "--speed", "60", cwd=tmp_path)
    assert done.returncode == 2 and "--speed goes with --demo" in done.stderr
