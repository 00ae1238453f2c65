"""The native loop with clients, workers and writers at once, under ThreadSanitizer and AddressSanitizer."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.race.test_race_table import FOLDER, SANITIZERS, run

RUN_SECONDS = 3.0
CLIENTS = 4
LIBRARIES = ("libnghttp2", "libssl", "libcrypto")


def compiled(sanitizer: str, repository: Path, folder: Path) -> Path:
    pkg_config = shutil.which("pkg-config") or "false"
    found = subprocess.run([pkg_config, "--libs", *LIBRARIES], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("libnghttp2 and libssl are not there, so there is no native loop")
    program = folder / "race_loop"
    flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-pthread"]
    flags += [f"-fsanitize={sanitizer}", *SANITIZERS[sanitizer], f"-I{repository / 'core_ext/native'}"]
    words = ["gcc", *flags, str(FOLDER / "race_loop.c"), *found.stdout.split(), "-lm", "-o", str(program)]
    subprocess.run(words, check=True, timeout=120)
    return program


@pytest.mark.parametrize("line", ["plain", "tls"])
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_clients_see_whole_and_current_values_beside_workers_and_writers(
    sanitizer: str, line: str, repository: Path, tmp_path: Path, seed: int
) -> None:
    more = ["tls"] if line == "tls" else []
    counts = run(compiled(sanitizer, repository, tmp_path), RUN_SECONDS, seed, CLIENTS, *more)
    assert counts["faults"] == 0
    assert counts["hits"] > 0
    assert counts["jobs"] > 0
