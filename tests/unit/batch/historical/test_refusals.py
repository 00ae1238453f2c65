"""Bad input of a historical join: one clear error, no result, and a retry that works."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.historical import memory
from headrace.errors import (
    DataLoss,
    FailedPrecondition,
    HeadraceError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from tests.unit.batch.historical.samples import Sample, join, sample, view, written

FILE_BYTES_MAX = 20_000
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from headrace.errors import ResourceExhausted
from tests.unit.batch.historical.samples import join, sample, view
one = sample(1, 5_000, 100)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    join(one.spine, [view(one.history)], Path(sys.argv[1]))
except ResourceExhausted as error:
    print(error.reason)
"""


@pytest.fixture
def one(seed: int) -> Sample:
    return sample(seed, 30, 300)


def changed(table: pa.Table, name: str, values: Any) -> pa.Table:  # an array or a function
    at = table.schema.get_field_index(name)
    return table.set_column(at, name, values(table[name]) if callable(values) else values)


def one_null(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([*column.to_pylist()[:-1], None], column.type)


def in_zone(zone: str | None) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
    return lambda column: column.cast(pa.timestamp("us", zone))


def refuse(error: type[HeadraceError], reason: str, spine: Any, rows: Any, folder: Path, **changes: Any) -> str:
    """Checks the error of a join, and that it leaves nothing but its inputs."""
    before = sorted(folder.iterdir())
    with pytest.raises(error) as caught:
        join(spine, [view(rows, **changes)], folder / "out.parquet")
    assert caught.value.reason == reason
    assert sorted(folder.iterdir()) == before
    return str(caught.value)


HISTORY_CASES = [
    ("user", one_null, "NULL_KEY", "'user'"),
    ("shop", one_null, "NULL_KEY", "'shop'"),
    ("event", one_null, "NULL_TIME", "'event'"),
    ("written", one_null, "NULL_TIME", "'written'"),
    ("position", one_null, "NULL_ORDER", "'position'"),
    ("event", in_zone(None), "NAIVE_TIME", "'event' has no time zone"),
    ("available", in_zone("America/New_York"), "MIXED_TIME_ZONES", "America/New_York"),
    ("event", lambda column: column.cast(pa.int64()), "WRONG_TYPE", "times are timestamps"),
    ("shop", lambda column: column.cast(pa.int32()), "WRONG_TYPE", "i64 is int64"),
    ("amount", lambda column: column.cast(pa.float64()), "WRONG_TYPE", "f32 is float"),
    ("gone", lambda column: column.cast(pa.int8()), "WRONG_TYPE", "cast it to bool"),
]


@pytest.mark.parametrize(("name", "values", "reason", "words"), HISTORY_CASES)
def test_bad_columns_of_a_history_are_refused(
    tmp_path: Path, one: Sample, name: str, values: Any, reason: str, words: str
) -> None:
    bad = written(changed(one.history, name, values), tmp_path / "history.parquet")
    said = refuse(InvalidArgument, reason, one.spine, bad, tmp_path)
    assert words in said
    assert "history v" in said


@pytest.mark.parametrize(("name", "values", "reason", "words"), HISTORY_CASES[:1] + HISTORY_CASES[5:6])
def test_bad_columns_of_a_reader_are_refused(
    tmp_path: Path, one: Sample, name: str, values: Any, reason: str, words: str
) -> None:
    reader = changed(one.history, name, values).to_reader()
    assert words in refuse(InvalidArgument, reason, one.spine, reader, tmp_path)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("user_id", one_null, "NULL_KEY"),
        ("at", one_null, "NULL_TIME"),
        ("at", in_zone(None), "NAIVE_TIME"),
        ("at", in_zone("Europe/Zurich"), "MIXED_TIME_ZONES"),
        ("shop_id", lambda column: column.cast(pa.int32()), "WRONG_TYPE"),
    ],
)
def test_bad_columns_of_a_spine_are_refused(tmp_path: Path, one: Sample, name: str, values: Any, reason: str) -> None:
    assert f"'{name}'" in refuse(InvalidArgument, reason, changed(one.spine, name, values), one.history, tmp_path)


def test_missing_columns_and_names_that_clash_are_refused(tmp_path: Path, one: Sample) -> None:
    said = refuse(InvalidArgument, "MISSING_COLUMN", one.spine, one.history.drop_columns(["text"]), tmp_path)
    assert "history v: has no column 'text'; it has user, shop" in said
    refuse(InvalidArgument, "MISSING_COLUMN", one.spine.drop_columns(["at"]), one.history, tmp_path)
    spine = one.spine.rename_columns(["user_id", "shop_id", "at", "v__text"])
    assert "'v__text'" in refuse(InvalidArgument, "NAME_TAKEN", spine, one.history, tmp_path)
    with pytest.raises(InvalidArgument, match="name at least one history"):
        join(one.spine, [], tmp_path / "out.parquet")
    refuse(InvalidArgument, "NO_FILES", one.spine, [], tmp_path)


def test_an_empty_key_and_a_time_too_fine_are_refused(tmp_path: Path, one: Sample) -> None:
    empty = changed(one.history, "user", pa.array([""] * 300))
    assert "empty" in refuse(InvalidArgument, "BAD_KEY", one.spine, empty, tmp_path)
    fine = changed(one.history, "event", pa.array([1] * 300, pa.timestamp("ns", "UTC")))
    assert "microsecond" in refuse(InvalidArgument, "TIME_TOO_FINE", one.spine, fine, tmp_path)


def test_files_of_two_schemas_are_refused(tmp_path: Path, one: Sample) -> None:
    first = written(one.history, tmp_path / "a.parquet")
    second = written(changed(one.history, "event", in_zone("Asia/Tokyo")), tmp_path / "b.parquet")
    assert "b.parquet" in refuse(InvalidArgument, "FILES_DIFFER", one.spine, [first, second], tmp_path)


def test_a_corrupt_file_is_refused_and_a_retry_works(tmp_path: Path, one: Sample) -> None:
    whole = (tmp_path / "history.parquet", written(one.history, tmp_path / "history.parquet"))
    good = whole[0].read_bytes()
    for bad in (b"no parquet", good[: len(good) // 2], good[:200] + bytes(len(good) - 600) + good[-400:]):
        whole[0].write_bytes(bad)
        assert "history.parquet" in refuse(DataLoss, "CORRUPT_FILE", one.spine, whole[1], tmp_path)
    whole[0].write_bytes(good)
    assert join(one.spine, [view(whole[1])], tmp_path / "out.parquet").rows == 30


@pytest.mark.parametrize("rewrite", [False, True])
def test_a_file_that_vanishes_midway_is_told(tmp_path: Path, one: Sample, rewrite: bool) -> None:
    path = tmp_path / "history.parquet"
    name, output = written(one.history, path, row_group_size=50), tmp_path / "out.parquet"

    def vanish(stage: str, done: int, total: int) -> None:
        if stage == "v" and path.exists():
            path.unlink()
            if rewrite:
                written(one.history.slice(1), path)

    with pytest.raises(FailedPrecondition, match=r"history.parquet vanished or was rewritten"):
        join(one.spine, [view(name)], output, progress=vanish)
    assert not output.exists()
    assert [one.name for one in tmp_path.iterdir()] == (["history.parquet"] if rewrite else [])


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path, one: Sample) -> None:
    refuse(NotFound, "FILE_NOT_FOUND", one.spine, str(tmp_path / "none.parquet"), tmp_path)
    refuse(NotFound, "FILE_NOT_FOUND", one.spine, str(tmp_path), tmp_path)
    refuse(InvalidArgument, "BAD_URI", one.spine, "nowhere://bucket/file", tmp_path)


def test_an_output_folder_that_is_not_there_is_told(tmp_path: Path, one: Sample) -> None:
    with pytest.raises(FailedPrecondition, match="cannot be written"):
        join(one.spine, [view(one.history)], tmp_path / "none" / "out.parquet", temp_folder=None)


def test_a_memory_limit_that_cannot_be_kept_is_refused(tmp_path: Path, one: Sample) -> None:
    with pytest.raises(ResourceExhausted, match="give at least") as caught:
        join(one.spine, [view(one.history)], tmp_path / "out.parquet", memory_limit_bytes=1 << 20)
    least = int(caught.value.metadata["least_bytes"])
    assert join(one.spine, [view(one.history)], tmp_path / "out.parquet", memory_limit_bytes=least).rows == 30
    assert least > memory.FIXED_BYTES


def test_a_full_disk_leaves_no_result(tmp_path: Path, repository: Path) -> None:
    words = [sys.executable, "-c", FULL_DISK, str(tmp_path / "out.parquet"), str(FILE_BYTES_MAX)]
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.returncode) == ("DISK_FULL\n", 0), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_callback_leaves_no_result(tmp_path: Path, one: Sample) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        join(one.spine, [view(one.history)], tmp_path / "out.parquet", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_table_is_read_back_as_parquet(tmp_path: Path, one: Sample) -> None:
    join(one.spine, [view(one.history)], tmp_path / "out.parquet")
    assert pq.read_metadata(tmp_path / "out.parquet").num_rows == 30
