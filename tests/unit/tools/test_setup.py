"""Runs the set-up where something is missing: each lack is told in one line, before anything is downloaded."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASICS = ("bash", "basename", "cat", "cut", "dirname", "env", "find", "flock", "id", "mkdir", "rm", "sha256sum", "sort")
LIMIT_S = 60


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    """The set-up script and the locks, in a folder whose name has a space."""
    folder = tmp_path / "a clone"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(repository / "tools/setup.sh", folder / "tools/setup.sh")
    shutil.copytree(repository / "requirements", folder / "requirements")
    return folder


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The only folder on PATH: no apt-get, so that root cannot install either, and no compiler."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in BASICS:
        (folder / name).symlink_to(str(shutil.which(name)))
    return folder


def set_up(checkout: Path, programs: Path, *arguments: str) -> tuple[int, str]:
    command = [str(checkout / "tools/setup.sh"), *arguments]
    run = subprocess.run(
        command, env={"PATH": str(programs)}, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert not (checkout / ".venv").exists(), "a refusal must come before the environment"
    return run.returncode, run.stdout + run.stderr


def test_no_python_says_what_to_install(checkout: Path, programs: Path) -> None:
    line = (
        "setup: no Python 3.11 or newer: install python3 (Debian: apt-get install python3 python3-venv python3-dev)\n"
    )
    assert set_up(checkout, programs, "demo") == (1, line)


def test_old_python_is_as_none(checkout: Path, programs: Path) -> None:
    old = programs / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    code, said = set_up(checkout, programs, "demo")
    assert code == 1
    assert said.startswith("setup: no Python 3.11 or newer")


def test_no_compiler_says_what_to_install(checkout: Path, programs: Path) -> None:
    (programs / "python3.11").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python3.11").chmod(0o755)
    line = "setup: no C compiler: install gcc (Debian: apt-get install gcc python3-dev)\n"
    assert set_up(checkout, programs, "demo") == (1, line)


def test_missing_programs_fail_the_tests_rather_than_skip(checkout: Path, programs: Path) -> None:
    code, said = set_up(checkout, programs, "test")
    assert code == 1
    packages = "redis-server nghttp2-client nghttp2-server valgrind"
    packages += " openjdk-17-jre-headless openjdk-17-jdk-headless nodejs npm"
    assert said.startswith(f"setup: a program of the tests is missing: install {packages} (Debian, ")
    assert said.count("\n") == 1


def test_present_program_costs_nothing(checkout: Path, programs: Path) -> None:
    (programs / "h2load").symlink_to("/bin/true")
    assert set_up(checkout, programs, "program", "h2load") == (0, "")


def test_old_java_is_refused_by_its_version(checkout: Path, programs: Path) -> None:
    (programs / "java").write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019' >&2\n")
    (programs / "java").chmod(0o755)
    for name in ("sed", "head"):
        (programs / name).symlink_to(str(shutil.which(name)))
    code, said = set_up(checkout, programs, "spark")
    assert code == 1
    assert said.startswith("setup: java on PATH is version 11, Spark needs 17 or later: install ")


def test_unknown_verb_names_the_known(checkout: Path, programs: Path) -> None:
    code, said = set_up(checkout, programs, "everything")
    assert code == 1
    assert said == 'setup: unknown set-up "everything": demo, stubs, check, test, spark, sanitize or program NAME...\n'
