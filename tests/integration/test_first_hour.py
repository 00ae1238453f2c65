"""A newcomer's first hour: a clone, one command, without root and in a folder whose name has a space."""

import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

FIRST_LIMIT_S: Final = 600
AGAIN_LIMIT_S: Final = 60
PERSON: Final = "nobody"
KEPT: Final = ("PIP_", "SSL_", "REQUESTS_", "http", "HTTP")  # how a machine reaches its package index


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that is the person's own, outside the folders of pytest, which only their owner may enter."""
    with TemporaryDirectory(prefix="first hour ") as folder:
        os.chown(folder, pwd.getpwnam(PERSON).pw_uid, -1)
        yield Path(folder)


def as_person(home: Path, *words: str, limit_s: float = FIRST_LIMIT_S) -> tuple[int, str, float]:
    """Exit code, output and seconds of a command of a person without root."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
    environment |= {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    begun_s = time.monotonic()
    command = [*("setpriv", "--reuid", PERSON, "--regid", "nogroup", "--clear-groups"), *words]
    run = subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, timeout=2 * limit_s, check=False
    )
    return run.returncode, run.stdout + run.stderr, time.monotonic() - begun_s


@pytest.mark.slow
@pytest.mark.timeout(4 * FIRST_LIMIT_S)
def test_make_demo_in_a_clone_takes_ten_minutes_and_then_one(home: Path, repository: Path) -> None:
    assert os.geteuid() == 0 and shutil.which("setpriv"), "run as root: the test becomes another person by setpriv"
    copy = subprocess.run(
        ["git", "clone", "--quiet", "--no-hardlinks", str(repository), str(home / "a clone")], check=False
    )
    assert copy.returncode == 0
    subprocess.run(["chown", "-R", PERSON, str(home)], check=True)
    code, said, first_s = as_person(home, "make", "-C", "a clone", "demo")
    assert code == 0 and "DEMO OK" in said.splitlines(), said
    assert re.search(r"download about \d+ MB, disk about \d+ MB", said), "the sizes are said"
    assert said.index("download about") < said.index("compiling the cores"), "before anything is fetched"
    code, said, again_s = as_person(home, "make", "-C", "a clone", "demo", limit_s=AGAIN_LIMIT_S)
    assert code == 0 and "DEMO OK" in said.splitlines(), said
    assert "setup:" not in said, "what is done is not done again"
    assert first_s <= FIRST_LIMIT_S
    assert again_s <= AGAIN_LIMIT_S
