"""Computed labels against plain Python: windows, filters and expressions over what came after each row, and no more."""

import math
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.notebook import computed_labels
from core_ext import rules
from headrace.errors import HeadraceError
from headrace.history import label
from tests.unit.batch.jobs.lakes import EVENTS, HOUR_US, START_US, USER
from tests.unit.batch.notebook.test_preview import COMPUTED, asked, events

MINUTE_US = HOUR_US // 60
EVENT = st.tuples(st.integers(1, 3), st.integers(0, 300), st.none() | st.integers(0, 100).map(float))
KNOWN = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=START_US + 400 * MINUTE_US)


def at(minutes: int) -> int:
    return minutes * MINUTE_US


def labels(history: list[tuple[int, int, float | None]], rows: list[tuple[int, int]], horizon: timedelta) -> pa.Table:
    given_events = events([(user, at(minute), basket) for user, minute, basket in history])
    spine = asked([(user, at(minute)) for user, minute in rows]).append_column("n", pa.array(range(len(rows))))
    return label(spine, COMPUTED, given_events, entity=USER, source=EVENTS, horizon=horizon, known_until=KNOWN).sort_by(
        "n"
    )


@given(
    st.lists(EVENT, max_size=15),
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 300)), min_size=1, max_size=6),
    st.integers(1, 119),
)
def test_labels_see_the_events_after_the_row_and_within_the_horizon(
    history: list[tuple[int, int, float | None]], rows: list[tuple[int, int]], horizon: int
) -> None:
    found = labels(history, rows, timedelta(minutes=horizon))
    for (user, minute), row in zip(rows, found.to_pylist(), strict=True):
        seen = [
            (time, place, basket)
            for place, (owner, time, basket) in enumerate(history)
            if owner == user and minute < time <= minute + horizon and (basket is None or basket < 90)
        ]
        if minute + horizon > 400:
            assert row["visits"] is None and row["visits__status"] == rules.UNAVAILABLE
            continue
        baskets = [basket for _, _, basket in seen if basket is not None]
        # The windows are of 2 hours, longer than any horizon here: nothing before the row may come in by them.
        assert (row["visits"], row["visits__status"]) == (len(seen), rules.PRESENT)
        assert row["spent"] == pytest.approx(math.fsum(baskets))
        busiest = row["busiest"]
        newest = max((time for time, _, _ in seen), default=None)
        wanted = None if newest is None else START_US + at(newest)
        assert (None if busiest is None else int(busiest.timestamp() * 1e6 + 0.5)) == wanted
        assert row["mean"] == (None if not seen else pytest.approx(math.fsum(baskets) / len(seen)))
        if not seen:
            assert (row["basket"], row["basket__status"]) == (None, rules.MISSING)
        else:
            last = max(seen, key=lambda event: event[0])[2]  # of equal ones, the first in the table
            assert row["basket"] == last


def test_shorter_window_sees_the_end_of_the_horizon() -> None:
    history = [(1, 10, 1.0), (1, 170, 2.0), (1, 240, 4.0)]
    found = labels([(user, minute, basket) for user, minute, basket in history], [(1, 0)], timedelta(hours=4))
    assert found["spent"].to_pylist() == [6.0], "2 hours before the fourth"


def test_rows_keep_their_columns_and_tables_without_rows_work() -> None:
    assert labels([], [(1, 0)], timedelta(hours=1))["visits"].to_pylist() == [0]
    found = labels([(1, 10, 1.0)], [], timedelta(hours=1))
    assert found.num_rows == 0
    assert {"user_id", "event_time", "n", "visits", "visits__status"} <= set(found.column_names)
    assert not [name for name in found.column_names if "\t" in name or name.startswith("__")]


def test_too_many_events_in_the_horizons_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computed_labels, "PAIRS_MAX", 3)
    with pytest.raises(HeadraceError, match="take fewer rows"):
        labels([(1, 1, 1.0), (1, 2, 1.0)], [(1, 0), (1, 0)], timedelta(hours=1))


@pytest.mark.parametrize(
    ("spine", "reason"),
    [
        (pa.table({"event_time": asked([(1, 0)])["event_time"]}), "MISSING_COLUMN"),
        (pa.table({"user_id": pa.array([None], pa.int64()), "event_time": asked([(1, 0)])["event_time"]}), "NULL_KEY"),
    ],
)
def test_entity_rows_without_keys_are_refused(spine: pa.Table, reason: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        label(spine, COMPUTED, events([(1, 1, 1.0)]), entity=USER, source=EVENTS, horizon=timedelta(hours=1))
    assert caught.value.reason == reason
