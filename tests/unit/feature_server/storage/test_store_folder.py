"""Data folders: one process, one shard count, for ever."""

import io
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from core_ext.row_table import RowTable
from feature_server.domain.shard import Shard
from feature_server.storage.files import read_file, write_file
from feature_server.storage.packed_rows import Packing, StoreLayout, write_layout
from feature_server.storage.rocks_options import StoreBudget
from feature_server.storage.store_folder import IDENTITY_NAME, PACKED_LAYOUT, StoreFolder
from headrace.errors import DataLoss, FailedPrecondition, HeadraceError, InvalidArgument, Unavailable
from headrace.serving.logging import EventLog

TIMEOUT_S = 60


def refused(path: Path, shard_count: int | None = None) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        StoreFolder(path, shard_count)
    return caught.value


def test_identity_outlives_the_process(tmp_path: Path) -> None:
    first = StoreFolder(tmp_path / "a" / "store", 4)
    first.close()
    second = StoreFolder(tmp_path / "a" / "store")
    assert second.identity == first.identity
    assert second.identity.shard_count == 4
    second.close()


def test_another_shard_count_is_refused_and_the_lock_given_back(tmp_path: Path) -> None:
    StoreFolder(tmp_path, 4).close()
    error = refused(tmp_path, 8)
    assert (type(error), error.reason) == (FailedPrecondition, "SHARD_COUNT")
    assert "--shards 4" in error.message
    StoreFolder(tmp_path, 4).close()


@pytest.mark.parametrize("shard_count", [0, 3, -8, 2048])
def test_shard_count_is_a_power_of_two_within_the_slots(tmp_path: Path, shard_count: int) -> None:
    assert isinstance(refused(tmp_path, shard_count), InvalidArgument)


def test_second_process_is_refused_with_one_clear_error(tmp_path: Path) -> None:
    held = StoreFolder(tmp_path)
    program = (
        "import sys; from pathlib import Path; from feature_server.storage.store_folder import StoreFolder\n"
        "from headrace.errors import HeadraceError\n"
        "try:\n    StoreFolder(Path(sys.argv[1]))\n"
        "except HeadraceError as error:\n    sys.stdout.write(error.reason)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert done.stdout == "DATA_FOLDER_IN_USE"
    held.close()
    StoreFolder(tmp_path).close()


def test_damaged_missing_or_newer_identity_is_refused(tmp_path: Path) -> None:
    StoreFolder(tmp_path, 4).close()
    identity = tmp_path / IDENTITY_NAME
    stored = read_file(identity)
    assert stored is not None
    write_file(identity, stored.replace(b'"layout": 1', b'"layout": 3'))
    assert refused(tmp_path).reason == "STORE_LAYOUT"
    identity.write_bytes(b"nothing")
    assert isinstance(refused(tmp_path), DataLoss)
    identity.unlink()
    (tmp_path / "shard-0000").mkdir()
    assert refused(tmp_path).reason == "IDENTITY_MISSING"


def test_leftover_temporary_identity_is_tolerated(tmp_path: Path) -> None:
    (tmp_path / f"{IDENTITY_NAME}.tmp").write_bytes(b"half")
    StoreFolder(tmp_path).close()


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert isinstance(refused(tmp_path / "file"), Unavailable)


def test_store_whose_rows_are_on_their_way_is_not_opened(tmp_path: Path) -> None:
    def shards(folder: StoreFolder) -> list[Shard]:
        return folder.shards(RowTable(1 << 20), StoreBudget(), lambda: 0, EventLog("test", time.time, io.StringIO()))

    with closing(StoreFolder(tmp_path, 4)) as folder:
        write_layout(tmp_path, StoreLayout((Packing(1, (2, 3)),), is_whole=False))
        with pytest.raises(FailedPrecondition) as caught:
            shards(folder)
        assert caught.value.reason == "LAYOUT_UNFINISHED"
        write_layout(tmp_path, StoreLayout((Packing(1, (2, 3)),)))
        folder.allow_packs()
        assert len(shards(folder)) == 4
    with closing(StoreFolder(tmp_path)) as folder:
        assert folder.identity.layout == PACKED_LAYOUT
