"""Merging of files and expiry of snapshots."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.table import Table

from batch.offline.catalogue import Catalogue
from batch.offline.maintenance import compact, expire
from headrace.errors import Aborted, NotFound
from tests.unit.batch.offline.parts import VIEW, catalogue_of, offsets_of, range_of, rows_of

LATER_US = 2**52


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    yield opened
    opened.close()


def fill(catalogue: Catalogue, count: int = 5) -> list[int]:
    table = catalogue.view_table(VIEW)
    appended = [table.append(rows_of([number]), [range_of(number, number + 1)]) for number in range(count)]
    return [item.snapshot_id or 0 for item in appended]


def data_files(folder: Path) -> int:
    return len(list((folder / "warehouse").rglob("*.parquet")))


def load_of(catalogue: Catalogue) -> Table:
    return catalogue.load(VIEW.identifier)


def test_small_files_of_a_day_become_one_with_the_same_rows(catalogue: Catalogue) -> None:
    old = fill(catalogue)
    table = catalogue.view_table(VIEW)
    before = table.read().read_all().sort_by("_offset")
    assert compact(lambda: load_of(catalogue)) == (5, 1, 0)
    assert table.read().read_all().sort_by("_offset").equals(before)
    assert offsets_of(table.read(snapshot_id=old[1])) == [0, 1]
    assert compact(lambda: load_of(catalogue)) == (0, 0, 0)


def test_positions_outlive_a_merge_and_an_expiry(catalogue: Catalogue) -> None:
    fill(catalogue)
    compact(lambda: load_of(catalogue))
    expire(lambda: load_of(catalogue), LATER_US)
    assert catalogue.view_table(VIEW).append(rows_of(range(7)), [range_of(0, 7)])[:2] == (2, 5)
    assert offsets_of(catalogue.view_table(VIEW).read()) == list(range(7))


def test_merge_beside_an_append_is_given_up_and_leaves_no_file(catalogue: Catalogue, tmp_path: Path) -> None:
    fill(catalogue)
    loads: list[Table] = []

    def load() -> Table:
        loads.append(load_of(catalogue))
        if len(loads) == 2:  # the merge has its table; now another writer commits
            catalogue.view_table(VIEW).append(rows_of([5]), [range_of(5, 6)])
        return loads[-1]

    with pytest.raises(Aborted):
        compact(load)
    assert data_files(tmp_path) == 6
    assert offsets_of(catalogue.view_table(VIEW).read()) == list(range(6))


def test_expiry_removes_snapshots_and_files_that_nobody_holds(catalogue: Catalogue, tmp_path: Path) -> None:
    old = fill(catalogue)
    compact(lambda: load_of(catalogue))
    assert data_files(tmp_path) == 6
    assert expire(lambda: load_of(catalogue), LATER_US).snapshot_count == 5
    assert data_files(tmp_path) == 1
    table = catalogue.view_table(VIEW)
    assert offsets_of(table.read()) == list(range(5))
    with pytest.raises(NotFound):
        table.read(snapshot_id=old[0])


def test_pinned_snapshot_keeps_its_files(catalogue: Catalogue, tmp_path: Path) -> None:
    old = fill(catalogue)
    table = catalogue.view_table(VIEW)
    table.pin("training-set", old[2])
    compact(lambda: load_of(catalogue))
    expire(lambda: load_of(catalogue), LATER_US)
    assert offsets_of(table.read(snapshot_id=old[2])) == [0, 1, 2]
    assert data_files(tmp_path) == 4
    table.release("training-set")
    expire(lambda: load_of(catalogue), LATER_US)
    assert data_files(tmp_path) == 1


def test_young_snapshots_stay(catalogue: Catalogue) -> None:
    fill(catalogue, 2)
    assert expire(lambda: load_of(catalogue), 0) == (0, 0)
