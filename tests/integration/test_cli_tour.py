"""Runs every command of docs/tour.md in order, as a reader would."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.platforms import environment, running

BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REFUSED, BACKGROUND = "is refused", "in the background"


def blocks(text: str) -> list[tuple[str, str, str]]:
    """Language, remark and body of each fenced block."""
    return [(language, remark.strip(), body) for language, remark, body in BLOCK.findall(text)]


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """The environment of a reader, with `headrace` and `python` on the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in (("headrace", "-m control_plane.cli.app"), ("python", "")):
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {command} "$@"\n')
        script.chmod(0o755)
    return environment(PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")


def test_every_command_of_the_tour_does_what_the_tour_says(
    repository: Path, tmp_path: Path, shell: dict[str, str]
) -> None:
    found = blocks((repository / "docs" / "tour.md").read_text())
    (start,) = [number for number, block in enumerate(found) if block[1] == BACKGROUND]
    assert found[start][2].split() == ["headrace", "up"]
    _run(found[:start], tmp_path, shell)
    project = tmp_path / "shop"
    with running(project):
        _run(found[start + 1 :], project, shell)
    assert len([block for block in found if block[1] == REFUSED]) == 1


def test_readme_repeats_no_command_that_the_tour_does_not_run(repository: Path) -> None:
    toured = "\n".join(body for _, _, body in blocks((repository / "docs" / "tour.md").read_text()))
    for language, _, body in blocks((repository / "README.md").read_text()):
        for line in body.splitlines() if language == "bash" else ():
            words = re.sub(r"\s+#.*", "", line).replace("cd shop", "").replace("&&", "").split()
            assert words[0] in ("make", "headrace"), line
            if words[0] == "headrace":
                assert " ".join(words[:2]) in toured, line


def _run(found: list[tuple[str, str, str]], folder: Path, shell: dict[str, str]) -> None:
    for language, remark, body in found:
        if language == "python":
            _check(["python", "-c", body], folder, shell, is_refused=False)
            continue
        assert language == "bash"
        for line in body.splitlines():
            words = shlex.split(line)
            assert words[0] in ("headrace", "cd"), line
            if words[0] == "headrace":
                _check(words, folder, shell, is_refused=remark == REFUSED)


def _check(words: list[str], folder: Path, shell: dict[str, str], is_refused: bool) -> None:
    done = subprocess.run(words, cwd=folder, env=shell, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (1 if is_refused else 0), f"{words}: {done.stdout}{done.stderr}"
    assert bool(done.stderr) is is_refused, f"{words}: {done.stderr}"
