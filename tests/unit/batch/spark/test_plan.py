"""Plans are values: the same request makes the same job, and what is refused is refused before Spark starts."""

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.spark.inputs import file_rows, history_of_files, history_of_table
from batch.spark.plan import (
    GROUP_ROWS,
    GROUPS_MAX,
    GROUPS_MIN,
    PART_ROWS,
    PARTS_MAX,
    HistoricalPlan,
    TableSnapshot,
    group_count,
    parts_of,
    plan_historical,
    snapshots_of,
)
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
    from batch.spark.inputs import read_chunk  # beside its only test

    chunk = replace(file_rows(files[0], "spine").chunks[0], mtime_ns=1)
    with pytest.raises(FailedPrecondition, match="vanished or was rewritten"):
        next(read_chunk(chunk, ["at"], "spine"))


def test_parts_cover_the_spine_once() -> None:
    for rows in (1, PART_ROWS, PART_ROWS + 1, 3 * PART_ROWS - 1):
        parts = parts_of(rows)
        assert sum(part.row_count for part in parts) == rows
        assert [part.first_row for part in parts] == [i * PART_ROWS for i in range(len(parts))]
        assert len({part.name for part in parts}) == len(parts)
    assert [part.row_count for part in parts_of(0)] == [0]
    with pytest.raises(InvalidArgument, match="split it"):
        parts_of(PARTS_MAX * PART_ROWS + 1)


def test_slot_ranges_grow_with_the_rows_up_to_the_slots() -> None:
    assert group_count(0) == GROUPS_MIN
    assert group_count(GROUPS_MIN * GROUP_ROWS) == GROUPS_MIN
    assert group_count(GROUPS_MIN * GROUP_ROWS + 1) == 2 * GROUPS_MIN
    assert group_count(2**40) == GROUPS_MAX


def test_snapshots_are_told_for_the_record_of_runs(files: tuple[str, str]) -> None:
    view = replace(samples.view(()), name="w")
    history = history_of_table(view, TableSnapshot("features.w", 42, 10))
    plan = plan_historical(
        file_rows(files[0], "spine"),
        [history],
        run_id=UUID(int=1),
        time_column="at",
        cutoff_us=5,
        output="/results",
    )
    assert snapshots_of(plan) == {"features.w": 42}
    other = replace(plan, histories=(history_of_table(view, TableSnapshot("features.w", 43, 10)),))
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
