"""Which servers a command talks to."""

from pathlib import Path

import pytest

from control_plane.cli.endpoints import Endpoints, data_folder, parse_endpoint, read_endpoints, resolve
from headrace.errors import FailedPrecondition, InvalidArgument

RUNNING = Endpoints("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4", 99)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    RUNNING.write(tmp_path)
    return tmp_path


def test_written_endpoints_read_back(folder: Path) -> None:
    assert read_endpoints(folder) == RUNNING
    assert [path.name for path in folder.iterdir()] == ["endpoints.json"]


def test_flag_comes_before_environment_and_folder(folder: Path) -> None:
    environment = {"HEADRACE_ENDPOINT": "control=h:3", "HEADRACE_DATA": str(folder)}
    assert resolve(environment, "control=h:5", folder).control == "h:5"
    assert resolve(environment, None, folder) == RUNNING
    assert resolve(environment, None, None).control == "h:3"
    assert resolve({"HEADRACE_DATA": str(folder)}, None, None) == RUNNING


def test_folder_here_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".headrace").mkdir()
    RUNNING.write(tmp_path / ".headrace")
    assert resolve({}, None, None) == RUNNING
    assert data_folder({"HEADRACE_DATA": ""}, None) == Path(".headrace")


def test_nothing_running_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="start one with 'headrace up'") as caught:
        resolve({}, None, tmp_path)
    assert caught.value.reason == "NOT_RUNNING"


@pytest.mark.parametrize("text", ["{", '{"control": "a:1", "colour": 1}', "[1]"])
def test_broken_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "endpoints.json").write_text(text)
    with pytest.raises(FailedPrecondition, match="start it again"):
        read_endpoints(tmp_path)


def test_endpoint_may_name_one_server() -> None:
    assert parse_endpoint(" features=[::1]:5 ", "--endpoint") == Endpoints(features="[::1]:5")


@pytest.mark.parametrize("text", ["", "h:1", "control=h", "control=h:x", "colour=h:1", "control=h:1,control=h:2"])
def test_endpoint_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="write it like 'control="):
        parse_endpoint(text, "--endpoint")
