"""Plans are values: the same request makes the same job, and what is refused is refused before Spark starts."""

import os
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.spark.computed import CarriedView
from batch.spark.inputs import file_rows, history_of_files
from batch.spark.plan import (
    BUNDLE_ROWS,
    GROUP_ROWS,
    GROUP_SPINE_ROWS,
    GROUPS_MAX,
    GROUPS_MIN,
    PART_ROWS,
    PART_ROWS_MIN,
    PARTS_MAX,
    TASK_BYTES,
    TASK_BYTES_MIN,
    TASK_ROWS,
    Bundle,
    FileChunk,
    HistoricalPlan,
    History,
    TableSnapshot,
    bundles_of,
    group_count,
    group_tasks,
    part_rows_of,
    parts_of,
    plan_historical,
    rows_at_once,
    snapshots_of,
)
from batch.spark.sources import BundleRows
from headrace.errors import FailedPrecondition, InvalidArgument
from tests.unit.batch.historical import samples


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    one = samples.sample(1, 30, 90)
    spine, history = tmp_path / "spine.parquet", tmp_path / "history.parquet"
    pq.write_table(one.spine, spine, row_group_size=10)
    pq.write_table(one.history, history, row_group_size=40)
    return str(spine), str(history)


def planned(files: tuple[str, str], run: int = 1, cutoff_us: int = 5, **changes: object) -> HistoricalPlan:
    view = samples.view(files[1], **changes)
    return plan_historical(
        file_rows(files[0], "spine"),
        [history_of_files(view, files[1])],
        run_id=UUID(int=run),
        time_column="at",
        cutoff_us=cutoff_us,
        output="/results/",
    )


def test_same_request_makes_the_same_plan(files: tuple[str, str]) -> None:
    assert planned(files) == planned(files)
    assert planned(files).digest() == planned(files).digest()
    assert planned(files).folder == f"/results/{UUID(int=1)}"


def test_run_id_is_no_part_of_what_is_computed(files: tuple[str, str]) -> None:
    assert planned(files, run=1).digest() == planned(files, run=2).digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"ttl_us": 10},
        {"stale_us": 10},
        {"columns": samples.FEATURES[:2]},
        {"columns": (replace(samples.FEATURES[0], default=2.0),)},
        {"keys": samples.KEYS[:1]},
        {"offset": None},
        {"write_time": None},
        {"include_expired": True},
        {"fallback": 0},
        {"cutoff_us": 6},
    ],
)
def test_whatever_changes_a_value_changes_the_digest(files: tuple[str, str], changes: dict[str, object]) -> None:
    assert planned(files).digest() != planned(files, **changes).digest()  # type: ignore[arg-type]


def test_chunks_count_rows_through_all_files(files: tuple[str, str]) -> None:
    rows = file_rows([files[0], files[0]], "spine")
    assert [chunk.first_row for chunk in rows.chunks] == [0, 10, 20, 30, 40, 50]
    assert rows.row_count == 60


def test_rewritten_file_is_met_before_its_rows_are_read(files: tuple[str, str]) -> None:
    chunk = replace(file_rows(files[0], "spine").chunks[0], mtime_ns=1)
    with pytest.raises(FailedPrecondition, match="vanished or was rewritten"):
        BundleRows(Bundle(0, (chunk,)), b"", (), "spine")


def test_parts_cover_the_spine_once() -> None:
    for rows in (1, PART_ROWS, PART_ROWS + 1, 3 * PART_ROWS - 1):
        parts = parts_of(rows, PART_ROWS)
        assert sum(part.row_count for part in parts) == rows
        assert [part.first_row for part in parts] == [i * PART_ROWS for i in range(len(parts))]
        assert len({part.name for part in parts}) == len(parts)
    assert [part.row_count for part in parts_of(0, PART_ROWS)] == [0]
    with pytest.raises(InvalidArgument, match="split it"):
        parts_of(PARTS_MAX * PART_ROWS + 1, PART_ROWS)


def test_wide_views_have_files_of_fewer_rows(files: tuple[str, str]) -> None:
    assert part_rows_of([samples.view(files[1], columns=samples.FEATURES[:3])], TASK_BYTES) == PART_ROWS
    view = samples.view(files[1])
    assert part_rows_of([view], TASK_BYTES_MIN) < PART_ROWS
    assert part_rows_of([view] * 5_000, TASK_BYTES_MIN) == PART_ROWS_MIN


def test_slot_ranges_grow_with_the_rows_up_to_the_slots() -> None:
    assert group_count(0) == GROUPS_MIN
    assert group_count(GROUPS_MIN * GROUP_ROWS) == GROUPS_MIN
    assert group_count(GROUPS_MIN * GROUP_ROWS + 1) == 2 * GROUPS_MIN
    assert group_count(0, GROUPS_MIN * GROUP_SPINE_ROWS + 1) == 2 * GROUPS_MIN
    assert group_count(2**40) == GROUPS_MAX


def chunk_of(first_row: int, row_count: int) -> FileChunk:
    return FileChunk("f", 1, 1, 0, first_row, row_count)


def test_bundles_hold_every_chunk_once_and_in_order() -> None:
    counts = [BUNDLE_ROWS // 2, BUNDLE_ROWS // 2, 1, 3 * BUNDLE_ROWS, 5, 5]
    chunks = tuple(chunk_of(sum(counts[:at]), count) for at, count in enumerate(counts))
    bundles = bundles_of(chunks)
    assert [len(bundle.chunks) for bundle in bundles] == [2, 1, 1, 2]
    assert tuple(chunk for bundle in bundles for chunk in bundle.chunks) == chunks
    assert [bundle.first_row for bundle in bundles] == [bundle.chunks[0].first_row for bundle in bundles]
    assert bundles_of(()) == []


@pytest.mark.parametrize(("groups", "rows", "count"), [(4, 0, 4), (16, 0, 4), (16, 8 * TASK_ROWS, 8), (16, 2**40, 16)])
def test_tasks_cover_the_slot_ranges_once(groups: int, rows: int, count: int) -> None:
    tasks = group_tasks(groups, rows)
    assert [group for task in tasks for group in task] == list(range(groups))
    assert len(tasks) == count
    assert all(tasks)


def test_memory_decides_how_many_rows_are_joined_at_once(files: tuple[str, str]) -> None:
    view = samples.view(files[1])
    assert rows_at_once(view, 2 * TASK_BYTES) == pytest.approx(2 * rows_at_once(view, TASK_BYTES), abs=1)
    spine, history = file_rows(files[0], "spine"), history_of_files(view, files[1])
    words = {"run_id": UUID(int=1), "time_column": "at", "cutoff_us": 5, "output": "/r"}
    small = plan_historical(spine, [history], memory_bytes=TASK_BYTES_MIN, **words)  # type: ignore[arg-type]
    assert small.digest() == plan_historical(spine, [history], **words).digest()  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="too small for a task"):
        plan_historical(spine, [history], memory_bytes=TASK_BYTES_MIN - 1, **words)  # type: ignore[arg-type]


def test_snapshots_are_told_for_the_record_of_runs(files: tuple[str, str]) -> None:
    view = replace(samples.view(()), name="w")
    history = History(CarriedView.of(view), TableSnapshot("features.w", 42, 10))
    plan = plan_historical(
        file_rows(files[0], "spine"),
        [history],
        run_id=UUID(int=1),
        time_column="at",
        cutoff_us=5,
        output="/results",
    )
    assert snapshots_of(plan) == {"features.w": 42}
    other = replace(plan, histories=(replace(history, rows=TableSnapshot("features.w", 43, 10)),))
    assert other.digest() != plan.digest()


def test_view_named_twice_and_no_view_are_refused(files: tuple[str, str]) -> None:
    spine = file_rows(files[0], "spine")
    view = samples.view(files[1], columns=samples.FEATURES[:1])
    twin = replace(view, columns=(replace(samples.FEATURES[0], output="other"),))
    histories = [history_of_files(one, files[1]) for one in (view, twin)]
    for wanted, message in (([], "name at least one"), (histories, "stand there twice")):
        with pytest.raises(InvalidArgument, match=message):
            plan_historical(spine, wanted, run_id=UUID(int=1), time_column="at", cutoff_us=5, output="/r")


def test_history_without_its_column_is_refused(files: tuple[str, str], tmp_path: Path) -> None:
    bare = tmp_path / "bare.parquet"
    pq.write_table(pa.table({"user": ["a"]}), bare)
    with pytest.raises(InvalidArgument, match="has no column 'shop'"):
        history_of_files(samples.view(str(bare)), str(bare))


@pytest.mark.parametrize("at", [0, 1], ids=["spine", "history"])
def test_a_file_that_was_written_again_is_another_plan(files: tuple[str, str], at: int) -> None:
    before = planned(files).digest()
    status = Path(files[at]).stat()
    os.utime(files[at], ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    assert Path(files[at]).stat().st_size == status.st_size
    assert planned(files).digest() != before
