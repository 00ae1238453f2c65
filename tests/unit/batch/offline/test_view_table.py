"""Appends, reads and pins of the table of a view version."""

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from batch.offline.catalogue import Catalogue
from batch.offline.columns import ViewColumns
from batch.offline.positions import Position
from batch.offline.view_table import ReadFilter
from headrace.errors import FailedPrecondition, InvalidArgument, NotFound
from headrace.names import VersionRef
from headrace.types import parse_type
from tests.unit.batch.offline.parts import DAY_US, NOW_US, VIEW, catalogue_of, offsets_of, range_of, rows_of


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    yield opened
    opened.close()


def test_rows_are_read_back_as_they_were_given(catalogue: Catalogue) -> None:
    table = catalogue.view_table(VIEW)
    given = rows_of(range(20))
    assert table.append(given, [range_of(0, 20)])[:2] == (20, 0)
    found = table.read().read_all()
    assert found.schema == VIEW.arrow
    assert found.sort_by("_offset").equals(given)


def test_empty_table_reads_as_no_rows(catalogue: Catalogue) -> None:
    assert catalogue.view_table(VIEW).read().read_all().equals(VIEW.arrow.empty_table())


def test_range_that_is_taken_is_skipped_and_one_half_taken_is_cut(catalogue: Catalogue) -> None:
    table = catalogue.view_table(VIEW)
    first = table.append(rows_of(range(5)), [range_of(0, 5)])
    assert table.append(rows_of(range(5)), [range_of(0, 5)]) == (0, 5, first.snapshot_id)
    assert table.append(rows_of(range(3, 9)), [range_of(3, 9)])[:2] == (4, 2)
    assert offsets_of(table.read()) == list(range(9))
    assert table.position(range_of(0, 0)) == Position(1, 9)


def test_new_epoch_may_use_offsets_again_and_an_older_one_is_over(catalogue: Catalogue) -> None:
    table = catalogue.view_table(VIEW)
    table.append(rows_of(range(5)), [range_of(0, 5)])
    assert table.append(rows_of([3, 4]), [range_of(3, 5, epoch=2)])[:2] == (2, 0)
    assert table.append(rows_of([5, 6]), [range_of(5, 7, epoch=1)])[:2] == (0, 2)
    assert offsets_of(table.read()) == [0, 1, 2, 3, 3, 4, 4]


def test_partitions_of_a_log_have_positions_of_their_own(catalogue: Catalogue) -> None:
    table = catalogue.view_table(VIEW)
    rows = pa.concat_tables([rows_of(range(4)), rows_of(range(2), partition=7)])
    assert table.append(rows, [range_of(0, 4), range_of(0, 2, partition=7)]).row_count == 6
    assert table.append(rows_of(range(4), partition=7), [range_of(0, 4, partition=7)]).row_count == 2


def test_random_repeats_and_overlaps_take_every_row_once(catalogue: Catalogue, seed: int) -> None:
    source = random.Random(seed)
    table = catalogue.view_table(VIEW)
    end = 0
    while end < 60:
        first = source.randint(max(0, end - 8), end)
        last = first + source.randint(0, 12)
        table.append(rows_of(range(first, last)), [range_of(first, last)])
        end = max(end, last)
    assert offsets_of(table.read()) == list(range(end))


def test_writers_of_one_range_at_once_add_it_once(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.view_table(VIEW)
    failures: list[Exception] = []

    def write() -> None:
        own = catalogue_of(tmp_path)
        try:
            own.view_table(VIEW).append(rows_of(range(10)), [range_of(0, 10)])
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert offsets_of(catalogue.view_table(VIEW).read()) == list(range(10))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (rows_of([5]), "ROWS_OUTSIDE_RANGES"),
        (rows_of([0], partition=3), "ROWS_OUTSIDE_RANGES"),
        (rows_of([0]).drop_columns(["age"]), "BAD_ROWS"),
        (rows_of([0]).set_column(0, "user_id", pa.array(["x"])), "BAD_ROWS"),
        (rows_of([0]).set_column(0, "user_id", pa.array([None], pa.int64())), "NULL_VALUE"),
    ],
    ids=["offset outside", "partition outside", "column missing", "wrong type", "null key"],
)
def test_rows_that_do_not_fit_are_refused_and_change_nothing(catalogue: Catalogue, rows: pa.Table, reason: str) -> None:
    table = catalogue.view_table(VIEW)
    with pytest.raises(InvalidArgument) as caught:
        table.append(rows, [range_of(0, 5)])
    assert caught.value.reason == reason
    assert table.snapshot_id is None


def test_two_ranges_of_one_partition_are_refused(catalogue: Catalogue) -> None:
    with pytest.raises(InvalidArgument) as caught:
        catalogue.view_table(VIEW).append(rows_of(range(4)), [range_of(0, 2), range_of(2, 4)])
    assert caught.value.reason == "BAD_LOG_RANGE"


def test_read_keeps_to_its_snapshot_times_and_cut_off(catalogue: Catalogue) -> None:
    table = catalogue.view_table(VIEW)
    old = table.append(rows_of(range(3)), [range_of(0, 3)]).snapshot_id
    reader = table.read()
    table.append(rows_of([3, 4], day=2, write_us=NOW_US + 5), [range_of(3, 5)])
    assert offsets_of(reader) == [0, 1, 2]
    assert offsets_of(table.read(snapshot_id=old)) == [0, 1, 2]
    assert offsets_of(table.read(ReadFilter(event_first_us=NOW_US + 1, event_end_us=NOW_US + DAY_US))) == [1, 2]
    assert offsets_of(table.read(ReadFilter(event_first_us=NOW_US + 2 * DAY_US + 4))) == [4]
    assert offsets_of(table.read(ReadFilter(write_last_us=NOW_US + 4))) == [0, 1, 2]
    assert offsets_of(table.read(ReadFilter(write_last_us=NOW_US + 5))) == [0, 1, 2, 3, 4]
    assert table.read(names=["age", "_offset"]).read_all().column_names == ["age", "_offset"]


def test_unknown_snapshot_is_named(catalogue: Catalogue) -> None:
    table = catalogue.view_table(VIEW)
    for call in (lambda: table.read(snapshot_id=5), lambda: table.pin("a", 5)):
        with pytest.raises(NotFound) as caught:
            call()
        assert caught.value.reason == "UNKNOWN_SNAPSHOT"


def test_days_lie_in_hidden_partitions(catalogue: Catalogue) -> None:
    table = catalogue.view_table(VIEW)
    rows = pa.concat_tables([rows_of([0]), rows_of([1], day=1), rows_of([2], day=1)])
    table.append(rows, [range_of(0, 3)])
    days = catalogue.load(VIEW.identifier).inspect.partitions()["partition"].to_pylist()
    assert sorted(day["_event_day"].isoformat() for day in days) == ["2025-10-09", "2025-10-10"]


def test_versions_lie_side_by_side(catalogue: Catalogue) -> None:
    second = ViewColumns(VersionRef("shop.web.profile", 2), VIEW.keys, [*VIEW.features, ("extra", parse_type("bool"))])
    catalogue.view_table(VIEW)
    catalogue.view_table(second)
    assert catalogue.identifiers() == [("shop", "web", "profile_v1"), ("shop", "web", "profile_v2")]


def test_table_of_an_older_platform_gains_the_system_column(catalogue: Catalogue) -> None:
    catalogue.view_table(VIEW).append(rows_of([0]), [range_of(0, 1)])
    older = catalogue.load(VIEW.identifier)
    with older.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("_tombstone")
    catalogue.view_table(VIEW)
    fields = catalogue.load(VIEW.identifier).schema().fields
    assert "_tombstone" in [item.name for item in fields]


def test_table_of_another_registry_is_refused(catalogue: Catalogue) -> None:
    catalogue.view_table(VIEW)
    other = ViewColumns(VIEW.ref, VIEW.keys, [("age", parse_type("string"))])
    with pytest.raises(FailedPrecondition) as caught:
        catalogue.view_table(other)
    assert caught.value.metadata["columns"] == "age"


def test_first_users_of_a_namespace_do_not_hinder_one_another(tmp_path: Path) -> None:
    catalogues = [catalogue_of(tmp_path) for _ in range(4)]
    failed: list[Exception] = []

    def make(catalogue: Catalogue, columns: ViewColumns, barrier: threading.Barrier) -> None:
        barrier.wait(30)
        try:
            assert catalogue.view_table(columns).snapshot_id is None
        except Exception as error:  # noqa: BLE001 - shown below
            failed.append(error)

    for number in range(12):
        columns, barrier = replace(VIEW, ref=VersionRef(f"team{number}.web.profile", 1)), threading.Barrier(4)
        threads = [threading.Thread(target=make, args=(one, columns, barrier)) for one in catalogues]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    for one in catalogues:
        one.close()
    assert failed == []


def test_pin_is_kept_and_never_moved(catalogue: Catalogue) -> None:
    table = catalogue.view_table(VIEW)
    first = table.append(rows_of([0]), [range_of(0, 1)]).snapshot_id
    second = table.append(rows_of([1]), [range_of(1, 2)]).snapshot_id
    assert first is not None and second is not None
    table.pin("set-a", first)
    table.pin("set-a", first)
    with pytest.raises(InvalidArgument) as caught:
        table.pin("set-a", second)
    assert caught.value.reason == "PIN_TAKEN"
    assert table.pins() == {"set-a": first}
    table.release("set-a")
    table.release("set-a")
    assert table.pins() == {}
