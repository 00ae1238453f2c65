"""Damaged frames, from clients and from the server behind, against the native loop under ASan and UBSan."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fuzz.frames.corpus import FOLDER, inputs

MUTATIONS = 10_000  # 3 to 7 s; compiling takes 5 to 11 s more
MUTATIONS_TLS = 1_000  # a handshake takes a millisecond or two
MUTATIONS_SLOW = 1_000_000
SOURCES = Path(__file__).parent / "frames"
FLAGS = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-pthread"]
FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def driver(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target with the driver around it."""
    return built(repository, tmp_path_factory.mktemp("frames"))


def built(repository: Path, folder: Path, *more: str) -> Path:
    pkg_config = shutil.which("pkg-config") or "false"
    words = [pkg_config, "--libs", "libnghttp2", "libssl", "libcrypto"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("libnghttp2 and libssl are not there, so there is no native loop")
    driver, target, program = (folder / name for name in ("driver.o", "target.o", "frames"))
    traced = ["-fsanitize-coverage=trace-pc", f"-I{repository / 'core_ext/native'}", *more]
    compiler = ["gcc", *FLAGS]
    subprocess.run([*compiler, "-c", str(SOURCES / "driver.c"), "-o", str(driver)], check=True, timeout=120)
    subprocess.run([*compiler, *traced, "-c", str(SOURCES / "target.c"), "-o", str(target)], check=True, timeout=120)
    words = [*compiler, str(driver), str(target), *found.stdout.split(), "-lm", "-o", str(program)]
    subprocess.run(words, check=True, timeout=120)
    return program


def run(driver: Path, mutations: int, seed: int) -> dict[str, int]:
    """What the driver counted; fails where a sanitizer spoke or something of an input was left."""
    # A preloaded sanitizer of another kind must not meet this one.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    environment["ASAN_OPTIONS"] = "detect_leaks=0"
    words = [str(driver), str(mutations), str(seed), "-", *map(str, sorted(FOLDER.iterdir()))]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=3_600, env=environment, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-4000:]
    return {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", ended.stdout)}


def test_corpus_holds_the_first_inputs() -> None:
    assert {name: (FOLDER / name).read_bytes() for name in inputs()} == inputs()


def test_corpus_and_its_mutations_leave_nothing_behind(driver: Path, seed: int) -> None:
    counts = run(driver, MUTATIONS, seed)
    assert counts["seeds"] == len(list(FOLDER.iterdir()))
    assert counts["mutations"] == MUTATIONS


def test_corpus_and_its_mutations_leave_nothing_behind_over_tls(repository: Path, tmp_path: Path, seed: int) -> None:
    counts = run(built(repository, tmp_path, "-DHR_FUZZ_TLS"), MUTATIONS_TLS, seed)
    assert counts["mutations"] == MUTATIONS_TLS


@pytest.mark.slow
def test_many_mutations_leave_nothing_behind(driver: Path, seed: int) -> None:
    assert run(driver, MUTATIONS_SLOW, seed)["mutations"] == MUTATIONS_SLOW
