"""One process per data folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.store.lock import locked_folder
from headrace.errors import FailedPrecondition

HOLDER = (
    "import sys\n"
    "from pathlib import Path\n"
    "from control_plane.store.lock import locked_folder\n"
    "with locked_folder(Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


def test_second_holder_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    with locked_folder(tmp_path), pytest.raises(FailedPrecondition) as caught, locked_folder(tmp_path):
        pass
    assert caught.value.reason == "DATA_FOLDER_IN_USE"
    assert caught.value.metadata["pid"] == str(os.getpid())


def test_folder_is_made_and_free_again_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    for _ in range(2):
        with locked_folder(folder):
            assert folder.is_dir()


def test_killed_holder_leaves_no_lock(tmp_path: Path, repository: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=repository,
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(FailedPrecondition), locked_folder(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with locked_folder(tmp_path):
            pass


def test_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition) as caught, locked_folder(tmp_path / "file"):
        pass
    assert caught.value.reason == "DATA_FOLDER_NOT_WRITABLE"
