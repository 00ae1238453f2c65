"""Registered views of a lake in a notebook: with entity rows, and for every entity of a time."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batch.notebook import lake
from headrace import history
from headrace.errors import HeadraceError
from tests.unit.batch.jobs import lakes

START = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=lakes.START_US)
HOUR = timedelta(hours=1)
BASKET = "shop.users.activity@v1:basket"


class Client(lakes.Registry):
    """The shop's registry in the form of a client."""

    def __init__(self, target: str, token: str | None = None) -> None:
        super().__init__()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    lakes.made_lake(tmp_path / "lake").close()
    monkeypatch.setattr(lake, "RegistryClient", Client)
    return {"lake": str(tmp_path / "lake"), "registry": "memory"}


def spine(rows: list[tuple[int, timedelta]]) -> pa.Table:
    times = pa.array([START + row[1] for row in rows], pa.timestamp("us", "UTC"))
    users = pa.array([row[0] for row in rows], pa.int64())
    return pa.table({"user_id": users, "friend_id": users, "event_time": times})


def test_service_and_features_one_by_one_agree(place: dict[str, Any]) -> None:
    rows = spine([(1, HOUR), (1, 3 * HOUR), (9, HOUR)])
    whole = history.get_historical(rows, lakes.SERVICE.name, **place)
    single = history.get_historical(rows, [BASKET], **place)
    assert single[BASKET].to_pylist() == whole["basket"].to_pylist() == [10.0, 12.0, 0.5]
    before = history.get_historical(rows, [BASKET], as_of=START + HOUR, **place)
    assert before[BASKET].to_pylist() == [10.0, 10.0, 0.5]


def test_entities_of_a_time_are_found_without_a_table(place: dict[str, Any]) -> None:
    found = history.entities_at([BASKET], START + 2 * HOUR, **place)
    assert found.to_pylist() == [
        {"user_id": 1, "event_time": START + 2 * HOUR},
        {"user_id": 2, "event_time": START + 2 * HOUR},
    ]
    assert history.get_historical(found, [BASKET], **place)[BASKET].to_pylist() == [12.0, 0.5]


def test_entities_of_a_span_stand_at_each_of_their_events(place: dict[str, Any]) -> None:
    found = history.entities_between([BASKET], START + HOUR, START + 3 * HOUR, **place)
    assert found.to_pylist() == [
        {"user_id": 1, "event_time": START + 2 * HOUR},
        {"user_id": 3, "event_time": START + 3 * HOUR},
    ]


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (lambda place: history.get_historical(spine([(1, HOUR)]), [], **place), "NO_SELECTION"),
        (lambda place: history.get_historical(spine([(1, HOUR)]), [BASKET + "x"], **place), "UNKNOWN_FEATURE"),
        (lambda place: history.get_historical([1], [BASKET], **place), "WRONG_TYPE"),
        (lambda place: history.entities_between([BASKET], START + HOUR, START, **place), "OUT_OF_RANGE"),
        (lambda place: history.entities_at([BASKET], datetime(2026, 1, 1), **place), "NAIVE_TIME"),
        (lambda place: history.entities_at(lakes.SERVICE.name, START, **place), "TWO_ENTITIES"),
        (lambda place: history.entities_at([BASKET], START, **{**place, "lake": "nowhere"}), "NO_LAKE"),
    ],
)
def test_bad_asks_are_one_error(place: dict[str, Any], ask: Any, reason: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        ask(place)
    assert caught.value.reason == reason
