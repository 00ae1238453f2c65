"""Logs written by RocksDB itself, torn and damaged at places of all kinds."""

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from feature_server.storage.wal_check import BLOCK_BYTES, check_logs, check_manifest, read_log
from headrace.errors import DataLoss

BATCH_COUNT = 400


WRITE = """
import os, signal, sys
from rocksdict import Options, Rdict, WriteBatch
options = Options(raw_mode=True)
options.create_if_missing(True)
rows = Rdict(sys.argv[1], options)
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    batch = WriteBatch(raw_mode=True)
    batch.put(b"%06d" % number, b"v" * (3 * 32_768 if number % 50 == 7 else 300))
    batch.put(b"last", b"%06d" % number)
    rows.write(batch)
os.kill(os.getpid(), signal.SIGKILL)
"""


def write_and_die(folder: Path, first: int, end: int) -> None:
    """Writes batches, some of them larger than a block, in a process that is killed, so that the log stays."""
    done = subprocess.run([sys.executable, "-c", WRITE, str(folder), str(first), str(end)], check=False)
    assert done.returncode == -signal.SIGKILL


def the_log(folder: Path) -> Path:
    (log,) = (path for path in folder.glob("*.log"))
    return log


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("rows") / "shard"
    write_and_die(folder, 0, BATCH_COUNT)
    return the_log(folder).read_bytes()


@pytest.fixture
def log_of(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        (tmp_path / "000004.log").write_bytes(data)
        return tmp_path

    return write


def test_log_of_a_killed_process_is_whole(written: bytes, log_of: Callable[[bytes], Path]) -> None:
    end = read_log(written)
    assert end.whole_bytes == len(written)
    assert (end.next_sequence or 0) - (end.first_sequence or 0) == 2 * BATCH_COUNT
    check_logs(log_of(written))


def test_log_cut_anywhere_is_only_torn(written: bytes, log_of: Callable[[bytes], Path], seed: int) -> None:
    source = random.Random(seed)
    cuts = [*range(40), *range(BLOCK_BYTES - 20, BLOCK_BYTES + 20), *source.sample(range(len(written)), 60)]
    for cut in cuts:
        assert read_log(written[:cut]).whole_bytes <= cut
        check_logs(log_of(written[:cut]))


@pytest.mark.parametrize("tail", [bytes(3), bytes(2 * BLOCK_BYTES), b"\xff" * 5_000])
def test_rubbish_after_the_end_is_no_damage(written: bytes, log_of: Callable[[bytes], Path], tail: bytes) -> None:
    check_logs(log_of(written + tail))
    assert read_log(written + tail).next_sequence == read_log(written).next_sequence


def test_flip_before_the_last_batch_is_damage(written: bytes, log_of: Callable[[bytes], Path], seed: int) -> None:
    source = random.Random(seed)
    last_batches = 2_000
    for _ in range(60):
        damaged = bytearray(written)
        damaged[source.randrange(len(written) - last_batches)] ^= 1 << source.randrange(8)
        with pytest.raises(DataLoss, match="damaged at byte") as caught:
            check_logs(log_of(bytes(damaged)))
        assert caught.value.reason == "LOG_CORRUPT"


def test_zeroed_block_in_the_middle_is_damage(written: bytes, log_of: Callable[[bytes], Path]) -> None:
    damaged = bytearray(written)
    damaged[2 * BLOCK_BYTES : 3 * BLOCK_BYTES] = bytes(BLOCK_BYTES)
    with pytest.raises(DataLoss):
        check_logs(log_of(bytes(damaged)))


def test_torn_log_left_beside_the_next_one_is_no_damage(tmp_path: Path) -> None:
    """A recovery reads a torn log, starts the next and dies before it removes the first."""
    folder = tmp_path / "shard"
    write_and_die(folder, 0, 40)
    torn_log = the_log(folder)
    torn = torn_log.read_bytes()[:-9]
    torn_log.write_bytes(torn)
    write_and_die(folder, 40, 50)
    torn_log.write_bytes(torn)
    assert len(list(folder.glob("*.log"))) == 2
    check_logs(folder)


def test_hole_between_two_logs_is_damage(tmp_path: Path) -> None:
    """The first of two live logs lost its end, and the second goes on after what was lost."""
    folder = tmp_path / "shard"
    write_and_die(folder, 0, 40)
    first_log = the_log(folder)
    whole = first_log.read_bytes()
    write_and_die(folder, 40, 50)
    first_log.write_bytes(whole[:-2_000])
    with pytest.raises(DataLoss, match="damaged at byte"):
        check_logs(folder)


def test_empty_and_missing_folders_are_whole(tmp_path: Path) -> None:
    assert check_logs(tmp_path) is None
    (tmp_path / "000004.log").write_bytes(b"")
    assert check_logs(tmp_path) is None
    assert check_logs(tmp_path / "absent") is None


def test_missing_log_between_two_others_is_damage(tmp_path: Path) -> None:
    """Three lives, each of whose logs was put back, and the one in the middle is gone."""
    folder = tmp_path / "shard"
    kept = []
    for first in (0, 10, 20):
        write_and_die(folder, first, first + 10)
        log = max(folder.glob("*.log"))
        kept.append((log, log.read_bytes()))
    kept[0][0].write_bytes(kept[0][1])
    with pytest.raises(DataLoss):
        check_logs(folder)
    kept[1][0].write_bytes(kept[1][1])
    held = check_logs(folder)
    assert held is not None and (held.first_sequence, held.next_sequence) == (1, 61)


def test_flip_inside_a_manifest_is_damage(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    folder = tmp_path / "shard"
    for first in range(3):
        write_and_die(folder, first, first + 1)
    manifest = folder / (folder / "CURRENT").read_text().strip()
    check_manifest(manifest)
    data = manifest.read_bytes()
    length_of_first = 4
    for at in [length_of_first, *source.sample(range(len(data) // 2), 20)]:
        manifest.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with pytest.raises(DataLoss):
            check_manifest(manifest)
