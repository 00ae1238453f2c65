"""One process tree: it starts, is found, and leaves nothing behind however it ends."""

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.integration.platforms import children_of, headrace, is_alive, running, until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_every_process_and_removes_the_endpoints(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as platform:
        children = children_of(platform.process.pid)
        assert len(children) == 3
        assert platform.endpoints["pid"] == platform.process.pid
        assert platform.stop(number) == 0
    assert not any(map(is_alive, children))
    assert not (tmp_path / ".headrace" / "endpoints.json").exists()
    assert (tmp_path / "up.err").read_text() == ""


def test_platform_started_with_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # children inherit what is ignored
    try:
        with running(tmp_path) as platform:
            platform.process.send_signal(signal.SIGHUP)
            assert platform.headrace("list", "views").returncode == 0
            assert platform.stop() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_killed_parent_takes_its_children_along(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        children = children_of(platform.process.pid)
        platform.process.kill()
        platform.process.wait()
    until(lambda: not any(map(is_alive, children)), "the children end")


@pytest.mark.parametrize("which", [0, 1, 2])
def test_death_of_a_server_stops_the_rest_with_one_line(tmp_path: Path, which: int) -> None:
    with running(tmp_path) as platform:
        children = children_of(platform.process.pid)
        os.kill(children[which], signal.SIGKILL)
        assert platform.process.wait(60) == 1
    assert not any(map(is_alive, children))
    error = (tmp_path / "up.err").read_text()
    assert error.count("\n") == 1
    assert "ended with signal 9" in error and "the platform is stopped" in error


def test_second_platform_on_the_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        second = platform.headrace("up")
        assert second.returncode == 1
        assert second.stderr.startswith("error: a platform already runs on the data folder .headrace")
        assert str(platform.process.pid) in second.stderr
        assert platform.headrace("list", "views").returncode == 0
        assert (tmp_path / ".headrace" / "endpoints.json").exists()


def test_busy_ports_are_passed_over_and_a_folder_may_have_blanks(tmp_path: Path) -> None:
    folder = tmp_path / "a folder with blanks"
    folder.mkdir()
    (tmp_path / "other").mkdir()
    with running(tmp_path / "other") as first, running(folder) as second:
        addresses = [one for up in (first, second) for one in up.endpoints.values() if one]  # those that run
        assert len(set(addresses)) == len(addresses)
        assert second.headrace("list", "views").returncode == 0


def test_named_port_is_used_or_refused(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener.listen()
        refused = headrace("up", "--port", str(port), cwd=tmp_path)
        assert refused.returncode == 1
        assert f"--port {port} is in use" in refused.stderr
    with running(tmp_path, "--port", str(port)) as platform:
        assert platform.endpoints["control"] == f"127.0.0.1:{port}"


def test_restart_serves_what_was_registered(tmp_path: Path) -> None:
    assert headrace("init", "project", cwd=tmp_path).returncode == 0
    project = tmp_path / "project"
    for _ in range(2):
        with running(project) as platform:
            applied = platform.headrace("apply", "definitions.py")
            assert applied.returncode == 0, applied.stderr
    assert "0 changes made, 4 definitions unchanged" in applied.stdout
