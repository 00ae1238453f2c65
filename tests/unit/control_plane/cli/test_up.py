"""Ports and the lock of a platform, before any server starts."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control_plane.cli.endpoints import Endpoints
from control_plane.cli.up import UpOptions, free_port, platform
from control_plane.store.lock import locked_folder
from headrace.errors import FailedPrecondition, InvalidArgument


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_busy_port_is_passed_over(busy: int) -> None:
    assert free_port(busy) > busy


@pytest.mark.parametrize("options", [lambda port: UpOptions(port=port), lambda port: UpOptions(feature_port=port)])
def test_busy_port_that_was_named_is_refused(tmp_path: Path, busy: int, options: Callable[[int], UpOptions]) -> None:
    with (
        pytest.raises(FailedPrecondition, match=f"{busy} is in use") as caught,
        platform(tmp_path, options(busy)),
    ):
        pass
    assert caught.value.reason == "PORT_IN_USE"


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_number_that_is_no_port_is_refused(tmp_path: Path, port: int) -> None:
    with pytest.raises(InvalidArgument, match="is not 1 to 65535"), platform(tmp_path, UpOptions(port=port)):
        pass


def test_second_platform_on_a_folder_is_refused_with_the_owner(tmp_path: Path) -> None:
    Endpoints(control="127.0.0.1:6570", pid=77).write(tmp_path)
    with locked_folder(tmp_path), pytest.raises(FailedPrecondition) as caught, platform(tmp_path):
        pass
    assert caught.value.reason == "DATA_FOLDER_IN_USE"
    assert "process 77, control plane at 127.0.0.1:6570" in caught.value.message


def test_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition, match="cannot be written"), platform(tmp_path / "file" / "data"):
        pass
