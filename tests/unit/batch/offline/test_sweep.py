"""The sweep takes what no snapshot names once it is old, and nothing else."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from batch.offline.catalogue import Catalogue
from batch.offline.maintenance import compact, expire
from batch.offline.sweep import AGE_S_MIN, sweep
from batch.offline.view_table import ViewTable
from headrace.errors import InvalidArgument
from tests.unit.batch.offline.parts import VIEW, catalogue_of, offsets_of, range_of, rows_of

DAY_S = 86_400


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    for number in range(5):
        opened.view_table(VIEW).append(rows_of([number]), [range_of(number, number + 1)])
    yield opened
    opened.close()


def load(catalogue: Catalogue) -> Table:
    return catalogue.load(VIEW.identifier)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "warehouse").rglob("data/**/*.parquet"))


def refused_append(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append whose commit is refused for good: its file is written, and nothing names it."""

    def refuse(*_: object, **__: object) -> None:
        raise CommitFailedException("another writer came first")

    with monkeypatch.context() as patched:
        patched.setattr(catalogue._catalogue, "commit_table", refuse)
        patched.setattr("batch.offline.view_table.COMMIT_TRIES_MAX", 1)
        with pytest.raises(Exception, match="try again"):
            ViewTable(VIEW, lambda: load(catalogue)).append(rows_of([9]), [range_of(9, 10)])


def age(paths: list[Path], age_s: int) -> None:
    for path in paths:
        os.utime(path, (time.time() - age_s, time.time() - age_s))


def now_us() -> int:
    return time.time_ns() // 1_000


def test_orphan_of_a_refused_append_is_taken_when_it_is_old(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = files(tmp_path)
    refused_append(catalogue, monkeypatch)
    [orphan] = set(files(tmp_path)) - set(named)
    assert sweep(lambda: load(catalogue), DAY_S, now_us()).files == (), "a writer may still commit it"
    age(files(tmp_path), 2 * DAY_S)
    found = sweep(lambda: load(catalogue), DAY_S, now_us(), dry_run=True)
    assert [Path(name).name for name in found.files] == [orphan.name]
    assert found.byte_count == orphan.stat().st_size
    assert sweep(lambda: load(catalogue), DAY_S, now_us()).files == found.files
    assert files(tmp_path) == named
    assert offsets_of(catalogue.view_table(VIEW).read()) == [0, 1, 2, 3, 4]


def test_files_of_pinned_and_older_snapshots_are_kept(catalogue: Catalogue, tmp_path: Path) -> None:
    view = catalogue.view_table(VIEW)
    pinned = view.snapshot_id
    assert pinned is not None
    view.pin("set", pinned)
    compact(lambda: load(catalogue))
    expire(lambda: load(catalogue), 2**52)
    age(files(tmp_path), 2 * DAY_S)
    assert sweep(lambda: load(catalogue), DAY_S, now_us()).files == ()
    assert offsets_of(view.read(snapshot_id=pinned)) == [0, 1, 2, 3, 4]


def test_table_without_rows_has_nothing_to_sweep(tmp_path: Path) -> None:
    opened = catalogue_of(tmp_path)
    opened.view_table(VIEW)
    assert sweep(lambda: load(opened), DAY_S, now_us()).files == ()
    opened.close()


def test_age_that_a_running_writer_may_reach_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(InvalidArgument, match="below"):
        sweep(lambda: load(catalogue), AGE_S_MIN - 1, now_us())


def test_foreign_parquet_beside_the_data_is_an_orphan_too(catalogue: Catalogue, tmp_path: Path) -> None:
    stray = files(tmp_path)[0].with_name("stray.parquet")
    pq.write_table(pa.table({"x": [1]}), stray)
    age([stray], 2 * DAY_S)
    assert len(sweep(lambda: load(catalogue), DAY_S, now_us()).files) == 1
    assert not stray.exists()
