"""The row table under ThreadSanitizer from many threads, and under AddressSanitizer with memory running short."""

import os
import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
RUN_SECONDS = 4.0  # finds a missing fence within one; the whole file stays below 15 s
SHORT_STEPS = 200_000
HELD_STEPS = 1_000  # fills while one read lasts
SANITIZERS = {"thread": ["-Wno-tsan"], "address,undefined": ["-fno-sanitize-recover=all"]}


def compiled(sanitizer: str, repository: Path, folder: Path) -> Path:
    program = folder / "race_table"
    flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-pthread"]
    flags += [f"-fsanitize={sanitizer}", *SANITIZERS[sanitizer], f"-I{repository / 'core_ext/native'}"]
    subprocess.run(["gcc", *flags, str(FOLDER / "race_table.c"), "-o", str(program)], check=True, timeout=60)
    return program


def run(program: Path, *arguments: object) -> dict[str, int]:
    """The counts that the program prints; fails when it saw a fault or a sanitizer spoke."""
    # A preloaded sanitizer of another kind must not meet this one.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    environment["ASAN_OPTIONS"] = "detect_leaks=0"
    environment["TSAN_OPTIONS"] = "ignore_noninstrumented_modules=1"  # OpenSSL's own order is not to be seen
    words = [str(program), *map(str, arguments)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-4000:]
    return {name.strip(): int(count) for name, count in re.findall(r"([a-z ]+?) (\d+)", ended.stdout)}


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_readers_never_see_a_torn_an_old_or_another_row(
    sanitizer: str, repository: Path, tmp_path: Path, seed: int
) -> None:
    counts = run(compiled(sanitizer, repository, tmp_path), RUN_SECONDS, seed, 4)
    assert counts["faults"] == 0


def test_a_table_short_of_memory_forgets_but_never_lies(repository: Path, tmp_path: Path, seed: int) -> None:
    counts = run(compiled("address,undefined", repository, tmp_path), "short", seed, SHORT_STEPS)
    assert counts["faults"] == 0


def test_a_long_read_does_not_empty_a_full_table(repository: Path, tmp_path: Path, seed: int) -> None:
    counts = run(compiled("address,undefined", repository, tmp_path), "held", seed, HELD_STEPS)
    assert counts["faults"] == 0
