"""Plans with computed views are values: they cross to workers, open as they were, and tell all that decides a value."""

import pickle
from pathlib import Path
from uuid import UUID

import pyarrow.parquet as pq
import pytest

from batch.spark.computed import CarriedComputation, CarriedView
from batch.spark.inputs import file_rows, history_of_files
from batch.spark.plan import HistoricalPlan, plan_historical
from batch.spark.window_history import WindowHistoryPlan, plan_window_history
from headrace.definitions import Feature, window
from headrace.errors import InvalidArgument
from tests.unit.batch.historical import samples
from tests.unit.batch.historical.test_computed import FEATURES, computation, computed


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    one = samples.sample(1, 30, 90)
    spine, history = tmp_path / "spine.parquet", tmp_path / "history.parquet"
    pq.write_table(one.spine, spine, row_group_size=10)
    pq.write_table(one.history, history, row_group_size=40)
    return str(spine), str(history)


def joined(files: tuple[str, str], features: tuple[Feature, ...] = FEATURES) -> HistoricalPlan:
    history = history_of_files(computed(files[1], features), files[1])
    return plan_historical(
        file_rows(files[0], "spine"),
        [history],
        run_id=UUID(int=1),
        time_column="at",
        cutoff_us=5,
        output="/r",
    )


def windows(files: tuple[str, str], times: tuple[int, ...] = (1, 2), cutoff_us: int = 5) -> WindowHistoryPlan:
    history = history_of_files(computed(files[1]), files[1])
    return plan_window_history(history, run_id=UUID(int=2), times_us=times, cutoff_us=cutoff_us, output="/r/")


def test_computation_opens_as_it_was() -> None:
    one = computation()
    carried: CarriedComputation = pickle.loads(pickle.dumps(CarriedComputation.of(one)))
    opened = carried.open()
    assert opened.windows is not None and one.windows is not None
    assert opened.windows.plan == one.windows.plan
    assert [program.program.source for program in opened.inputs] == [program.program.source for program in one.inputs]
    assert (opened.places, opened.latest, opened.columns) == (one.places, one.latest, one.columns)
    assert CarriedComputation.of(opened).told() == carried.told()


def test_view_leaves_its_rows_behind() -> None:
    assert CarriedView.of(computed("/somewhere.parquet")).open().rows == ()


def test_same_request_makes_the_same_plan_and_crosses_to_workers(files: tuple[str, str]) -> None:
    for plan in (joined, windows):
        assert plan(files) == plan(files)
        assert pickle.loads(pickle.dumps(plan(files))).digest() == plan(files).digest()


def test_another_window_is_another_plan(files: tuple[str, str]) -> None:
    changed = (Feature("events", "i64", window("count", over="10us", hop="2us")), *FEATURES[1:])
    assert joined(files, changed).digest() != joined(files).digest()


def test_times_in_any_order_are_one_plan_and_others_another(files: tuple[str, str]) -> None:
    assert windows(files, (2, 1)).digest() == windows(files).digest()
    assert windows(files, (1, 3)).digest() != windows(files).digest()
    assert windows(files, cutoff_us=6).digest() != windows(files).digest()
    assert windows(files).folder == f"/r/{UUID(int=2)}"
    with pytest.raises(InvalidArgument, match="name a moment twice"):
        windows(files, (1, 1))
