"""The preloaded shims do what the fault tests rely on, seen from a small program."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.faults import Action, Fault, FaultRule, Op, When, compile_shim
from tests.cluster.power import Journal, Tail

LIMIT_S = 30


def run(script: str, environment: dict[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs a script in the folder `f`, with the environment on top of ours."""
    return subprocess.run(
        [sys.executable, "-S", "-c", f"import os\nf = {str(folder)!r}\n{script}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.fixture(scope="module")
def faults_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_shim("faults", tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def journal_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_shim("journal", tmp_path_factory.mktemp("shim"))


@pytest.fixture
def rule(tmp_path: Path) -> FaultRule:
    return FaultRule(tmp_path / "rule")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


SYNC_FOUR_TIMES = """
file = os.open(f + "/000012.log", os.O_WRONLY | os.O_CREAT)
for _ in range(4):
    try:
        os.fsync(file)
        print("ok")
    except OSError as error:
        print(error.errno)
"""


def test_unarmed_rule_lets_everything_pass(faults_library: Path, rule: FaultRule, folder: Path) -> None:
    done = run(SYNC_FOUR_TIMES, rule.environment(faults_library), folder)
    assert done.stdout.split() == ["ok"] * 4
    assert rule.hits == 0


def test_sync_fails_once_at_the_nth_time(faults_library: Path, rule: FaultRule, folder: Path) -> None:
    rule.arm(Fault(Op.SYNC, Action.EIO, match=".log", nth=2))
    done = run(SYNC_FOUR_TIMES, rule.environment(faults_library), folder)
    assert done.stdout.split() == ["ok", "ok", str(int(Action.EIO)), "ok"]
    assert rule.hits == 1


def test_other_paths_do_not_count(faults_library: Path, rule: FaultRule, folder: Path) -> None:
    rule.arm(Fault(Op.SYNC, Action.EIO, match="MANIFEST"))
    assert run(SYNC_FOUR_TIMES, rule.environment(faults_library), folder).stdout.split() == ["ok"] * 4


@pytest.mark.parametrize("when", When)
def test_kill_on_one_side_of_a_rename(faults_library: Path, rule: FaultRule, folder: Path, when: When) -> None:
    rule.arm(Fault(Op.RENAME, Action.KILL, match="CURRENT", when=when))
    script = 'open(f + "/1.dbtmp", "w").close()\nos.rename(f + "/1.dbtmp", f + "/CURRENT")'
    assert run(script, rule.environment(faults_library), folder).returncode == -signal.SIGKILL
    assert (folder / "CURRENT").exists() == (when is When.AFTER)


def test_torn_write_leaves_half_and_kills(faults_library: Path, rule: FaultRule, folder: Path) -> None:
    rule.arm(Fault(Op.WRITE, Action.TEAR, match=".log", nth=1))
    script = 'file = os.open(f + "/1.log", os.O_WRONLY | os.O_CREAT)\nfor _ in "ab": os.write(file, b"x" * 100)'
    assert run(script, rule.environment(faults_library), folder).returncode == -signal.SIGKILL
    assert (folder / "1.log").stat().st_size == 150


def test_open_fails_for_ever(faults_library: Path, rule: FaultRule, folder: Path) -> None:
    rule.arm(Fault(Op.OPEN | Op.CREATE, Action.EMFILE, match="/data/", times=-1))
    script = 'for name in "ab":\n try: os.open(f + "/" + name, os.O_CREAT)\n except OSError as e: print(e.errno)'
    done = run(script, rule.environment(faults_library), folder)
    assert done.stdout.split() == [str(int(Action.EMFILE))] * 2


def life(script: str, library: Path, tmp_path: Path, folder: Path, tail: Tail = Tail.NOTHING) -> str:
    """Runs a script under the journal and cuts the power after it."""
    journal = Journal.begin(tmp_path / "journal", folder)
    done = run(script, journal.environment(library), folder)
    assert done.returncode == 0, done.stderr
    return journal.cut_power(random.Random(0), tail)


def test_synced_bytes_stay_and_later_ones_go(journal_library: Path, tmp_path: Path, folder: Path) -> None:
    script = """
file = os.open(f + "/1.log", os.O_WRONLY | os.O_CREAT)
os.fsync(os.open(f, os.O_RDONLY))
os.write(file, b"stable"); os.fdatasync(file); os.write(file, b" lost")
"""
    life(script, journal_library, tmp_path, folder)
    assert (folder / "1.log").read_bytes() == b"stable"


def test_file_goes_whose_name_was_not_synced(journal_library: Path, tmp_path: Path, folder: Path) -> None:
    script = 'file = os.open(f + "/1.log", os.O_WRONLY | os.O_CREAT)\nos.write(file, b"x"); os.fsync(file)'
    life(script, journal_library, tmp_path, folder)
    assert list(folder.iterdir()) == []


def test_rename_is_undone_until_the_folder_is_synced(journal_library: Path, tmp_path: Path, folder: Path) -> None:
    (folder / "CURRENT").write_bytes(b"old")
    script = """
file = os.open(f + "/1.dbtmp", os.O_WRONLY | os.O_CREAT); os.write(file, b"new"); os.fsync(file)
os.rename(f + "/1.dbtmp", f + "/CURRENT")
"""
    life(script, journal_library, tmp_path, folder)
    assert (folder / "CURRENT").read_bytes() == b"old"
    life(script + "os.fsync(os.open(f, os.O_RDONLY))", journal_library, tmp_path, folder)
    assert (folder / "CURRENT").read_bytes() == b"new"


def test_removed_file_comes_back_until_the_folder_is_synced(
    journal_library: Path, tmp_path: Path, folder: Path
) -> None:
    (folder / "1.log").write_bytes(b"old")
    life('os.unlink(f + "/1.log")', journal_library, tmp_path, folder)
    assert (folder / "1.log").read_bytes() == b"old"
    life('os.unlink(f + "/1.log"); os.fsync(os.open(f, os.O_RDONLY))', journal_library, tmp_path, folder)
    assert list(folder.iterdir()) == []


def test_file_of_an_earlier_life_stays_whole(journal_library: Path, tmp_path: Path, folder: Path) -> None:
    (folder / "1.sst").write_bytes(b"old")
    life(
        'file = os.open(f + "/1.sst", os.O_WRONLY | os.O_APPEND); os.write(file, b"x")',
        journal_library,
        tmp_path,
        folder,
    )
    assert (folder / "1.sst").read_bytes() == b"old"


def test_rewritten_file_is_empty_after_the_cut(journal_library: Path, tmp_path: Path, folder: Path) -> None:
    """Writing over a file in place is not a safe change of it, and the cut shows that."""
    (folder / "state").write_bytes(b"old")
    life('open(f + "/state", "wb").write(b"new")', journal_library, tmp_path, folder)
    assert (folder / "state").read_bytes() == b""


def test_tail_of_zeros_follows_the_stable_bytes(journal_library: Path, tmp_path: Path, folder: Path) -> None:
    (folder / "1.log").write_bytes(b"stable")
    script = 'file = os.open(f + "/1.log", os.O_WRONLY | os.O_APPEND); os.write(file, b"lost")'
    life(script, journal_library, tmp_path, folder, Tail.ZEROS)
    assert (folder / "1.log").read_bytes() == b"stable" + bytes(4)
