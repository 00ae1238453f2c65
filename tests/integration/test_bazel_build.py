"""Builds every Bazel target without the network and runs one of its tests: `make test-slow`."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

BUILD_LIMIT_S = 900
# A second Bazel beside a person's own must not take the memory that one was given.
STARTUP = ("--host_jvm_args=-Xmx512m", "--max_idle_secs=60")
NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv", ".venvs", "build", "dist", ".*_cache", "__pycache__", "*.so", "*_pb2*"
)


@pytest.fixture
def workspace(tmp_path: Path, repository: Path) -> Iterator[Path]:
    """A copy of the sources, as Bazel refuses a checkout whose path has a space."""
    folder = tmp_path / "workspace"
    shutil.copytree(repository, folder, ignore=NOT_SOURCES, symlinks=True)
    (folder / ".venv").symlink_to(repository / ".venv")
    yield folder
    bazel(folder, "shutdown")


def bazel(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bazel", f"--output_user_root={workspace.parent / 'bazel'}", *STARTUP, *arguments]
    # An address that nobody serves: what asks for a download fails at once.
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    return subprocess.run(
        command, cwd=workspace, env=environment, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(2 * BUILD_LIMIT_S)
def test_every_target_builds_and_a_test_passes_without_network(workspace: Path) -> None:
    build = bazel(workspace, "build", "//...")
    assert build.returncode == 0, build.stderr
    test = bazel(workspace, "test", "//:tests_unit_protos")
    assert test.returncode == 0, test.stdout + test.stderr
    assert "PASSED" in test.stdout + test.stderr
    help_page = subprocess.run(
        [str(workspace / "build/bazel-bin/command_headrace"), "--help"],
        capture_output=True,
        text=True,
        timeout=BUILD_LIMIT_S,
        check=False,
    )
    assert help_page.returncode == 0, help_page.stderr
