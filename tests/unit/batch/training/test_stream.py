"""Training streams: every row once, the same order in every run, resumed anywhere, few row groups at once."""

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch.training.stream import StreamPlan, TrainingStream
from headrace.errors import InvalidArgument
from headrace.torch_data import Rows, torch_dataset

ROWS = 97


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("stream") / "result.parquet"
    table = pa.table({"row": list(range(ROWS)), "half": [row / 2 for row in range(ROWS)], "name": ["x"] * ROWS})
    pq.write_table(table, path, row_group_size=10)
    return str(path)


def rows(stream: TrainingStream) -> list[int]:
    return [row for batch in stream for row in batch.column("row").to_pylist()]


def test_without_a_seed_rows_keep_their_order_in_whole_batches(file: str) -> None:
    stream = TrainingStream([file], plan=StreamPlan(batch_rows=30, window_groups=2))
    sizes = [batch.num_rows for batch in stream]
    assert sizes == [30, 30, 30, 7]
    assert rows(stream) == list(range(ROWS))
    assert stream.row_count == ROWS


@given(st.integers(0, 5), st.integers(1, 4), st.integers(1, 40), st.integers(1, 12), st.integers(0, 30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shards_hold_every_row_once_and_a_resumed_stream_goes_on(
    file: str, seed: int, shard_count: int, batch_rows: int, window_groups: int, taken: int
) -> None:
    seen: list[int] = []
    for shard in range(shard_count):
        plan = StreamPlan(batch_rows, seed, shard, shard_count, window_groups)
        stream = TrainingStream([file], plan=plan)
        whole = rows(stream)
        assert whole == rows(TrainingStream([file], plan=plan)), "the same in every run"
        second = rows(stream)
        seen += whole
        broken = TrainingStream([file], plan=plan)
        batches = iter(broken)
        head = [row for _ in range(taken) if (batch := next(batches, None)) for row in batch.column("row").to_pylist()]
        resumed = TrainingStream([file], plan=plan)
        resumed.restore(json.loads(json.dumps(broken.state)))
        if len(head) < len(whole):
            assert head + rows(resumed) == whole
        assert sorted(second) == sorted(whole)
    assert sorted(seen) == list(range(ROWS))


def test_each_pass_has_an_order_of_its_own(file: str) -> None:
    stream = TrainingStream([file], plan=StreamPlan(seed=1, window_groups=9))
    first, second = rows(stream), rows(stream)
    assert first != second
    assert first != list(range(ROWS))


def test_few_row_groups_are_held_at_once(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = TrainingStream([file], ["row"], StreamPlan(batch_rows=1, seed=3, window_groups=2))
    read: list[int] = []
    original = stream._rows.read

    def counted(chunk: Any, columns: Any) -> Any:
        read.append(chunk.first_row)
        return original(chunk, columns)

    monkeypatch.setattr(stream._rows, "read", counted)
    batches = iter(stream)
    next(batches)
    assert len(read) == 2
    taken = 1 + sum(1 for _ in zip(range(40), batches, strict=False))
    assert taken == 41
    assert len(read) <= 6, "two row groups of ten rows at a time"


def test_state_of_another_stream_and_bad_plans_are_refused(file: str) -> None:
    state = TrainingStream([file], plan=StreamPlan(seed=1)).state
    with pytest.raises(InvalidArgument, match="another file, seed"):
        TrainingStream([file], plan=StreamPlan(seed=2)).restore(state)
    with pytest.raises(InvalidArgument):
        StreamPlan(shard=2, shard_count=2)
    with pytest.raises(InvalidArgument):
        StreamPlan(batch_rows=0)
    with pytest.raises(InvalidArgument, match="no column"):
        TrainingStream([file], ["other"])


def test_workers_of_a_loader_read_their_own_shards_and_resume(file: str) -> None:
    """What the PyTorch dataset does, free of PyTorch: its class adds only the base class of the library."""

    def worker_of(number: int) -> Rows:
        def open_shard(shard: int, count: int) -> TrainingStream:
            return TrainingStream([file], plan=StreamPlan(8, 5, shard, count))

        return Rows(open_shard, lambda batch: batch.column("row").to_pylist(), lambda: (number, 2))

    seen = [row for number in range(2) for batch in worker_of(number) for row in batch]
    assert sorted(seen) == list(range(ROWS))
    first = worker_of(0)
    batches = iter(first)
    head = [next(batches), next(batches)]
    again = worker_of(0)
    again.load_state_dict(first.state_dict())
    assert [*head, *again] == list(worker_of(0))


def test_dataset_is_of_the_librarys_class_and_gives_tensors(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in of the three names that are used of PyTorch, which is too large to install for a test."""

    class IterableDataset:
        pass

    data = ModuleType("torch.utils.data")
    data.IterableDataset = IterableDataset  # type: ignore[attr-defined]
    data.get_worker_info = lambda: SimpleNamespace(id=1, num_workers=2)  # type: ignore[attr-defined]
    torch = ModuleType("torch")
    torch.from_numpy = lambda array: ("tensor", array.tolist())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.utils.data", data)

    def open_shard(shard: int, count: int) -> TrainingStream:
        return TrainingStream([file], plan=StreamPlan(10, None, shard, count))

    dataset = torch_dataset(open_shard)
    first = next(iter(dataset))
    assert isinstance(dataset, IterableDataset)
    assert first == {"row": ("tensor", list(range(10, 20))), "half": ("tensor", [row / 2 for row in range(10, 20)])}
