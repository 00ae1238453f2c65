"""Definitions and Arrow rows of the scenarios fit together."""

import numpy as np
import pyarrow as pa
import pytest

from loadtest.dataset import (
    PAIR_VIEWS,
    SCENARIOS,
    SERVICES,
    USER_VIEWS,
    VIEWS,
    arrow_rows,
    definitions,
    item_count_of,
    item_of,
    key_ranges,
)
from loadtest.rows import values


def test_every_service_pins_views_that_the_set_defines() -> None:
    found = definitions()
    views = {view.name for view in found.feature_views}
    pinned = {entry.feature_view.split("@")[0] for service in found.feature_services for entry in service.entries}
    assert pinned <= views


@pytest.mark.parametrize(
    ("name", "columns", "rows"),
    [("1x200", 200, 1), ("10x200", 200, 10), ("100x200", 200, 100), ("1x1000", 1_000, 1), ("cross", 320, 1)],
)
def test_scenario_asks_for_so_many_columns_and_rows(name: str, columns: int, rows: int) -> None:
    assert (SCENARIOS[name].feature_count, SCENARIOS[name].row_count) == (columns, rows)


def test_names_of_one_answer_are_unique() -> None:
    for views in SERVICES.values():
        names = [name for view in views for name in view.features]
        assert len(names) == len(set(names))


def test_arrow_rows_hold_keys_times_and_values() -> None:
    keys = np.array([3, 1], dtype=np.int64)
    table = pa.ipc.open_stream(arrow_rows(USER_VIEWS[2], keys, 100)).read_all()
    assert table.column_names == ["user_id", "event_time", *USER_VIEWS[2].features]
    assert table["user_id"].to_pylist() == [3, 1]
    assert table.schema.field("event_time").type == pa.timestamp("us", tz="UTC")
    assert table["v2_f07"].to_pylist() == values(2, keys)[:, 7].tolist()


def test_pair_rows_carry_the_item_of_their_user() -> None:
    keys = np.arange(50, dtype=np.int64)
    table = pa.ipc.open_stream(arrow_rows(PAIR_VIEWS[0], keys, 1_000)).read_all()
    assert table["item_id"].to_pylist() == item_of(keys, item_count_of(1_000)).tolist()


def test_key_ranges_cover_every_key_once() -> None:
    batches = list(key_ranges(5, 25, batch_rows=10))
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert np.concatenate(batches).tolist() == list(range(5, 30))


def test_indexes_of_views_are_unique() -> None:
    assert len({view.index for view in VIEWS}) == len(VIEWS)
