"""Every entity of a history at given times: which rows there are, in which order, and what they hold."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.historical.grid import TIMES_MAX, checked_times, entity_grid
from batch.historical.window_history import window_history
from core_ext.keys import encode_key, slot_of_key
from headrace.errors import InvalidArgument
from headrace.types import Scalar
from tests.unit.batch.historical.samples import START_US, join, sample
from tests.unit.batch.historical.test_computed import computed

TIMES_US = [START_US + offset for offset in (29, 3, 40)]


def expected(history: pa.Table, cutoff_us: int) -> list[dict[str, Any]]:
    """The rows by looking at every event for every entity and time."""
    events = [
        (row["user"], row["shop"], event, written)
        for row, event, written in zip(
            history.select(["user", "shop"]).to_pylist(),
            history["event"].cast(pa.int64()).to_pylist(),
            history["written"].cast(pa.int64()).to_pylist(),
            strict=True,
        )
    ]
    seen = {(user, shop, at) for user, shop, event, written in events for at in TIMES_US
            if event <= at and written <= cutoff_us}  # fmt: skip

    def place(one: tuple[str, int, int]) -> tuple[int, bytes, int]:
        key = encode_key([int(Scalar.STRING), int(Scalar.I64)], one[:2])
        return slot_of_key(key), key, one[2]

    return [{"user_id": user, "shop_id": shop, "event_time": at} for user, shop, at in sorted(seen, key=place)]


@pytest.mark.parametrize("cutoff", [9, 1_000])
def test_rows_are_those_of_entities_with_an_event_by_slot_key_and_time(seed: int, cutoff: int) -> None:
    history = sample(seed, 0, 300, entities=20).history
    view = computed(())
    cutoff_us = START_US + cutoff
    times = checked_times(TIMES_US)
    for rows in (300, 7):
        grid = entity_grid(history.to_batches(max_chunksize=rows), view, times, cutoff_us, "event_time")
        found = grid.set_column(2, "event_time", grid["event_time"].cast(pa.int64())).to_pylist()
        assert found == expected(history, cutoff_us)


def test_values_are_those_of_a_join_with_the_same_rows(tmp_path: Path, seed: int) -> None:
    history = sample(seed, 0, 200).history
    report = window_history(
        computed(()), history, str(tmp_path / "out.parquet"), times_us=TIMES_US, cutoff_us=START_US + 25
    )
    found = pq.read_table(tmp_path / "out.parquet")
    spine = found.select(["user_id", "shop_id", "event_time"]).rename_columns(["user_id", "shop_id", "at"])
    joined = join(spine, [computed(history)], tmp_path / "joined.parquet", cutoff_us=START_US + 25)
    assert report.digest == joined.digest
    assert report.rows == found.num_rows > 0


@pytest.mark.parametrize(
    ("times", "reason"), [([], "OUT_OF_RANGE"), ([1, 1], "TIME_TWICE"), (range(TIMES_MAX + 1), "OUT_OF_RANGE")]
)
def test_times_that_name_no_moments_are_refused(times: list[int], reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked_times(times)
    assert caught.value.reason == reason
