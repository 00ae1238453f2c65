"""Runs the fetching of jars against a small set: what is held is kept, what differs from the lock is never used."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_S = 60
GOOD = b"bytes of a jar"
LINE = f"{hashlib.sha256(GOOD).hexdigest()}  one-1.0.jar\n"


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    """The script and a set of one jar, in a folder whose name has a space."""
    folder = tmp_path / "a clone"
    (folder / "tools/jars").mkdir(parents=True)
    shutil.copy(repository / "tools/jars.py", folder / "tools/jars.py")
    (folder / "tools/jars/small.xml").write_text("<ivy-module/>")
    (folder / "tools/jars/small.lock").write_text(LINE)
    return folder


def java(checkout: Path, script: str) -> None:
    """A `java` whose last argument but for the pattern does not matter: it does what the script says."""
    program = checkout / "bin/java"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def fetch(checkout: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, str(checkout / "tools/jars.py"), *arguments]
    path = {"PATH": f"{checkout}/bin:/usr/bin:/bin"} if (checkout / "bin").exists() else {"PATH": str(checkout)}
    run = subprocess.run(command, env=path, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return run.returncode, run.stdout + run.stderr


def held(checkout: Path) -> Path:
    folder = checkout / ".cache/jars/small"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "one-1.0.jar"


def brings(content: str) -> str:
    return f"mkdir -p .cache/jars/small.part && printf '{content}' > .cache/jars/small.part/one-1.0.jar"


def test_held_jars_need_neither_java_nor_network(checkout: Path) -> None:
    held(checkout).write_bytes(GOOD)
    assert fetch(checkout, "small") == (0, "")


def test_missing_java_says_what_to_install(checkout: Path) -> None:
    code, said = fetch(checkout, "small")
    assert code == 1
    assert said.splitlines()[-1] == "jars: no java: install openjdk-17-jre-headless, then run this again"


def test_unreachable_repository_says_what_to_do(checkout: Path) -> None:
    java(checkout, "echo 'UNRESOLVED DEPENDENCIES' >&2; exit 1")
    code, said = fetch(checkout, "small")
    assert code == 1
    assert "UNRESOLVED DEPENDENCIES" in said
    assert "put the files of tools/jars/small.lock into .cache/jars/small by hand" in said


def test_damaged_jar_is_fetched_again(checkout: Path) -> None:
    held(checkout).write_bytes(GOOD[:-1])
    java(checkout, f'cd "{checkout}" && {brings(GOOD.decode())}')
    assert fetch(checkout, "small")[0] == 0
    assert held(checkout).read_bytes() == GOOD


def test_other_bytes_than_the_lock_are_not_used(checkout: Path) -> None:
    java(checkout, f'cd "{checkout}" && {brings("other bytes")}')
    code, said = fetch(checkout, "small")
    assert code == 1
    assert said.splitlines()[-1].startswith("jars: one-1.0.jar has SHA-256 ")
    assert not (checkout / ".cache/jars/small").exists()


def test_unknown_set_names_the_known(checkout: Path) -> None:
    assert fetch(checkout, "big") == (1, "jars: usage: tools/jars.py SET [--lock]; sets: small\n")


def test_sets_of_the_checkout_are_locked(repository: Path) -> None:
    folder = repository / "tools/jars"
    sets = {path.stem for path in folder.glob("*.xml")}
    assert {path.stem for path in folder.glob("*.lock")} == sets
    for name in sets:
        wanted = (folder / f"{name}.xml").read_text().count("<dependency ")
        assert len((folder / f"{name}.lock").read_text().splitlines()) == wanted
