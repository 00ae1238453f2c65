"""The stages of a join give the rows and the digest of the local engine, however their work is cut."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.historical import HistoryInput, join_to_parquet
from batch.historical.inputs import FeatureColumn
from batch.historical.on_demand import HistoryProgram, OnDemandJoin
from batch.historical.window_history import window_history
from batch.spark import matching, parts, pieces, plan, values
from batch.spark.historical import run_historical
from batch.spark.inputs import file_rows, history_of_files
from batch.spark.plan import HistoricalPlan, plan_historical
from batch.spark.result import SCRATCH
from batch.spark.window_history import plan_window_history, run_window_history
from core_ext import rules
from core_ext.expressions import Program
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.expressions import compile_expression
from headrace.on_demand import From
from headrace.types import parse_type
from tests.unit.batch.historical import samples
from tests.unit.batch.historical.test_computed import computed
from tests.unit.batch.spark.inline import Inline

CUTOFF_US = samples.START_US + 20
SESSION: Any = None  # tasks run here
CUTS = {  # bundle, spine rows at once, flush, part
    "whole": (1 << 21, 1 << 20, 1 << 18, 1 << 18),
    "small": (100, 40, 30, 1 << 18),
    "odd": (333, 7, 100, 1 << 18),
}


def write(table: pa.Table, path: Path, group_rows: int) -> str:
    pq.write_table(table, path, row_group_size=group_rows)
    return str(path)


def cut(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    bundle, at_once, flush, _ = CUTS[name]
    monkeypatch.setattr(plan, "BUNDLE_ROWS", bundle)
    monkeypatch.setattr(pieces, "FLUSH_ROWS_MIN", flush)
    monkeypatch.setattr(pieces, "BATCH_ROWS", 1)
    for module in (matching, values):
        monkeypatch.setattr(module, "rows_at_once", lambda view, memory: at_once)


def planned(folder: Path, spine: str, views: list[HistoryInput], **changes: Any) -> HistoricalPlan:
    histories = [history_of_files(view, view.rows) for view in views]
    words: dict[str, Any] = {"run_id": UUID(int=7), "time_column": "at", "cutoff_us": CUTOFF_US}
    return plan_historical(file_rows(spine, "spine"), histories, output=str(folder / "results"), **(words | changes))


def rows_of(files: list[str]) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in files])


@pytest.mark.parametrize("name", CUTS)
def test_plain_and_computed_views_are_those_of_the_local_engine(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    one = samples.sample(seed, 700, 3_000)
    spine = write(one.spine, tmp_path / "spine.parquet", 90)
    history = write(one.history, tmp_path / "history.parquet", 250)
    second = samples.view(history, name="w", keys=samples.KEYS[:1], ttl_us=0, columns=samples.FEATURES[:3])
    views = [samples.view(history), second, replace(computed(history), name="c")]
    local = join_to_parquet(spine, views, str(tmp_path / "local.parquet"), time_column="at", cutoff_us=CUTOFF_US)
    cut(monkeypatch, name)
    session = Inline(monkeypatch, tries=2)
    result = run_historical(SESSION, planned(tmp_path, spine, views))
    assert result.digest == local.digest
    assert (
        rows_of(result.files)
        .drop_columns(_floats(result.files))
        .equals(pq.read_table(tmp_path / "local.parquet").drop_columns(_floats(result.files)))
    )
    stages = [what for what, _ in session.stages]
    assert stages.count("reads spine") == 2, "views of the same keys share it"
    assert not (Path(result.folder) / SCRATCH).exists()
    assert {path.suffix for path in Path(result.folder).iterdir()} == {".parquet", ".json"}


def _floats(files: list[str]) -> list[str]:
    """Columns that may hold NaN, of which the digest tells."""
    schema = pq.read_schema(files[0])
    return [field.name for field in schema if pa.types.is_floating(field.type) or pa.types.is_nested(field.type)]


def test_keys_of_one_integer_meet_in_groups_of_their_own(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = samples.sample(seed, 500, 2_000)
    spine = write(one.spine, tmp_path / "spine.parquet", 100)
    history = write(one.history, tmp_path / "history.parquet", 300)
    view = samples.view(history, keys=samples.KEYS[1:])
    local = join_to_parquet(spine, [view], str(tmp_path / "local.parquet"), time_column="at", cutoff_us=CUTOFF_US)
    cut(monkeypatch, "small")
    Inline(monkeypatch)
    assert run_historical(SESSION, planned(tmp_path, spine, [view])).digest == local.digest


def test_result_of_several_files_is_in_spine_order(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    one = samples.sample(seed, 700, 900)
    spine = write(one.spine, tmp_path / "spine.parquet", 90)
    view = samples.view(write(one.history, tmp_path / "history.parquet", 300))
    local = join_to_parquet(spine, [view], str(tmp_path / "local.parquet"), time_column="at", cutoff_us=CUTOFF_US)
    monkeypatch.setattr(plan, "PART_ROWS", 128)
    monkeypatch.setattr(parts, "WRITE_ROWS_MAX", 50)
    monkeypatch.setattr(parts, "WRITE_ROWS_MIN", 1)
    Inline(monkeypatch)
    result = run_historical(SESSION, planned(tmp_path, spine, [view]))
    assert [pq.read_metadata(file).num_rows for file in result.files] == [128] * 5 + [60]
    assert rows_of(result.files)["label"].to_pylist() == list(range(700))
    assert result.digest == local.digest


def on_demand() -> OnDemandJoin:
    expression = compile_expression("amount + x", {"amount": parse_type("f32"), "x": parse_type("f32")})
    column = FeatureColumn("sum", parse_type("f32"), -5.0, "sum")
    program = HistoryProgram(
        Program(expression.program),
        tuple({"amount": (From.FEATURE, 0), "x": (From.REQUEST, 0)}[name] for name in expression.columns),
        column,
        rules.FALLBACK_DEFAULT,
    )
    return OnDemandJoin(("v__amount",), (("x", parse_type("f32")),), (program,), ("sum", "v__seen"))


def test_on_demand_features_are_computed_beside_the_spine(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = samples.sample(seed, 300, 900)
    extra = pa.array([None if number % 7 == 0 else number / 4 for number in range(300)], pa.float32())
    spine = write(one.spine.append_column("x", extra), tmp_path / "spine.parquet", 90)
    view = samples.view(write(one.history, tmp_path / "history.parquet", 300))
    words: dict[str, Any] = {"time_column": "at", "cutoff_us": CUTOFF_US, "on_demand": on_demand()}
    local = join_to_parquet(spine, [view], str(tmp_path / "local.parquet"), **words)
    Inline(monkeypatch)
    wanted = planned(tmp_path, spine, [view], on_demand=on_demand())
    assert wanted.digest() != planned(tmp_path, spine, [view]).digest()
    result = run_historical(SESSION, wanted)
    assert result.digest == local.digest
    assert rows_of(result.files).equals(pq.read_table(tmp_path / "local.parquet"))
    with pytest.raises(InvalidArgument, match="has no column 'x'"):
        planned(tmp_path, write(one.spine, tmp_path / "bare.parquet", 90), [view], on_demand=on_demand())


@pytest.mark.parametrize("name", CUTS)
def test_window_history_is_that_of_the_local_engine(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    one = samples.sample(seed, 1, 2_000)
    history = write(one.history, tmp_path / "history.parquet", 250)
    times = [samples.START_US + at for at in range(0, 30, 3)]
    local = window_history(
        computed(()), one.history, str(tmp_path / "local.parquet"), times_us=times, cutoff_us=CUTOFF_US
    )
    cut(monkeypatch, name)
    monkeypatch.setattr("batch.spark.window_history.rows_at_once", lambda view, memory: CUTS[name][1])
    Inline(monkeypatch)
    wanted = plan_window_history(
        history_of_files(computed(history), history),
        run_id=UUID(int=3),
        times_us=times,
        cutoff_us=CUTOFF_US,
        output=str(tmp_path / "results"),
    )
    result = run_window_history(SESSION, wanted)
    assert (result.digest, result.row_count) == (local.digest, local.rows)


def test_file_rewritten_between_two_stages_is_met(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    one = samples.sample(seed, 300, 900)
    spine = write(one.spine, tmp_path / "spine.parquet", 90)
    history = write(one.history, tmp_path / "history.parquet", 300)
    session = Inline(monkeypatch)
    run = session.run

    def rewriting(given: object, what: str, work: Any, tasks: Any) -> list[Any]:
        if what.startswith("gathers"):
            write(one.history.slice(0, 800), Path(history), 300)
        return run(given, what, work, tasks)

    monkeypatch.setattr("batch.spark.historical.run_tasks", rewriting)
    wanted = planned(tmp_path, spine, [samples.view(history)])
    with pytest.raises(FailedPrecondition, match="vanished or was rewritten"):
        run_historical(SESSION, wanted)
    assert list(Path(wanted.folder).glob("*.json")) == []
    assert list((Path(wanted.folder) / SCRATCH).iterdir()) == [], "nothing is left between stages"
