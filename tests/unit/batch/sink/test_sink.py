"""Cycles of the sink over librdkafka's mock cluster: each event once, whatever is killed, late, early or wrong."""

import io
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.table import Transaction

from batch.offline.catalogue import Catalogue
from batch.offline.event_columns import NAMESPACE
from batch.offline.positions import RANGES_PROPERTY
from batch.offline.sweep import AGE_S_MIN, sweep
from batch.offline.view_table import ViewTable
from batch.sink.sink import Sink
from batch.sink.streams import stream_of
from headrace.definitions import Column
from headrace.errors import DataLoss, FailedPrecondition, InvalidArgument
from tests.unit.batch.offline.parts import catalogue_of
from tests.unit.batch.sink.mock_topic import NOW_US, TYPES, Mock, order, places, sink_all, source

IDENTIFIER = (*NAMESPACE, "shop", "web", "orders")
US_A_DAY = 86_400_000_000
COMMIT = Transaction.commit_transaction


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def mock() -> Mock:
    return Mock()


@pytest.fixture
def sinks() -> Iterator[list[Sink]]:
    made: list[Sink] = []
    yield made
    for one in made:
        one.close()


def rows_of(catalogue: Catalogue, types: dict[str, str] | None = None) -> list[dict[str, Any]]:
    table = catalogue.event_table(stream_of(source(types=types)).columns)
    found: list[dict[str, Any]] = table.read().read_all().to_pylist()
    return sorted(found, key=lambda row: (row["_log_partition"], row["_offset"], row["_row"]))


def started(mock: Mock, catalogue: Catalogue, sinks: list[Sink], **more: Any) -> Sink:
    sinks.append(mock.sink(catalogue, **more))
    return sinks[-1]


def test_every_type_of_json_is_kept_with_its_place(mock: Mock, catalogue: Catalogue, sinks: list[Sink]) -> None:
    full = {
        "score": 1.5, "shop": "ä", "raw": "AAEC", "day": "2026-01-02", "is_new": True, "tags": ["a", ""],
        "place": [1.0, -2.0],
    }  # fmt: skip
    mock.send(1, order(7, **full), order(8))
    (done,) = sink_all(started(mock, catalogue, sinks))
    assert (done.row_count, done.skipped_count, done.rejected) == (2, 0, [])
    first, second = rows_of(catalogue)
    assert first["_event_time"] == first["at"] == datetime.fromtimestamp((NOW_US - 7) / 1e6, UTC)
    assert {name: first[name] for name in full} == {
        "score": 1.5, "shop": "ä", "raw": b"\0\1\2", "day": date(2026, 1, 2), "is_new": True,
        "tags": ["a", ""], "place": [1.0, -2.0],
    }  # fmt: skip
    assert (first["user_id"], first["cents"]) == (7, 70)
    assert all(second[name] is None for name in full)
    assert places([first, second]) == [(1, 0, 0), (1, 1, 0)]
    assert first["_write_time"] is not None


def test_late_early_and_timeless_events_are_kept(mock: Mock, catalogue: Catalogue, sinks: list[Sink]) -> None:
    ten_years = 3_650 * US_A_DAY
    times = [NOW_US - ten_years, NOW_US, NOW_US + ten_years, None]
    for number, at in enumerate(times):
        mock.send(0, order(number, at=at))
    (done,) = sink_all(started(mock, catalogue, sinks))
    assert done.row_count == len(times)
    kept = [row["_event_time"] and round(row["_event_time"].timestamp() * 1e6) for row in rows_of(catalogue)]
    assert kept == times


def test_messages_that_are_no_event_stop_nobody_and_are_told(
    mock: Mock, catalogue: Catalogue, sinks: list[Sink]
) -> None:
    mock.send(0, order(1), b"{", b"", order(2, cents="x"), b"\xff", order(3))
    sink = started(mock, catalogue, sinks)
    (done,) = sink_all(sink)
    assert done.row_count == 2
    assert [(one.partition, one.offset) for one in done.rejected] == [(0, 1), (0, 2), (0, 3), (0, 4)]
    assert {one.reason for one in done.rejected} >= {"MALFORMED_JSON", "WRONG_TYPE", "NOT_UTF8"}
    mock.send(0, b"[", b"]")  # and where nothing else comes, the position moves past them
    (alone,) = sink_all(sink)
    assert (alone.row_count, len(alone.rejected)) == (0, 2)
    (again,) = sink_all(started(mock, catalogue, sinks))
    assert (again.row_count, again.rejected) == (0, ())


def test_arrow_messages_give_a_row_for_each_of_their_events(
    mock: Mock, catalogue: Catalogue, sinks: list[Sink]
) -> None:
    types = {"user_id": "i64", "at": "timestamp_us", "tags": "list<string>"}
    of = source("arrow", types)
    schema = pa.schema(
        [("tags", pa.list_(pa.string())), ("at", pa.timestamp("us", "Europe/Paris")), ("user_id", pa.int64())]
    )
    table = pa.table({"tags": [["a"], None, []], "at": [NOW_US] * 3, "user_id": [1, 2, None]}, schema=schema)
    mock.send(2, _stream(table), b"no arrow", _stream(table.drop_columns("at")), _stream(table.slice(1)))
    (done,) = sink_all(started(mock, catalogue, sinks, of=of))
    assert done.row_count == 5
    assert [(one.offset, one.reason) for one in done.rejected] == [(1, "MALFORMED_ARROW"), (2, "UNKNOWN_COLUMN")]
    rows = rows_of(catalogue, types)
    assert places(rows) == [(2, 0, 0), (2, 0, 1), (2, 0, 2), (2, 3, 0), (2, 3, 1)]
    assert [(row["user_id"], row["tags"]) for row in rows] == [(1, ["a"]), (2, None), (None, []), (2, None), (None, [])]


def test_time_beyond_every_calendar_stops_nobody(mock: Mock, catalogue: Catalogue, sinks: list[Sink]) -> None:
    types = {
        "user_id": "i64",
        "at": "timestamp_us",
        "day": "date",
        "seen": "list<timestamp_us>",
        "days": "list<date,2>",
    }
    first_us, last_us = -62_135_596_800_000_000, 253_402_300_799_999_999
    good = [
        order(1, at=first_us, day="0001-01-01", seen=[first_us, last_us], days=["0001-01-01", "9999-12-31"]),
        order(2, at=last_us, day="9999-12-31", seen=[]),
        order(3, at=None, day=None, seen=None),
    ]
    bad = [
        order(4, at=first_us - 1), order(5, at=last_us + 1), order(6, at=(1 << 60) - 1), order(7, day=1 << 30),
        order(8, seen=[NOW_US, last_us + 1]), order(9, days=[0, -(1 << 30)]),
    ]  # fmt: skip
    mock.send(0, *bad[:3], *good, *bad[3:])
    (done,) = sink_all(started(mock, catalogue, sinks, of=source(types=types)))
    assert {one.reason for one in done.rejected} == {"TIME_OUT_OF_RANGE"}
    assert [one.offset for one in done.rejected] == [0, 1, 2, 6, 7, 8]
    assert [row["user_id"] for row in rows_of(catalogue, types)] == [1, 2, 3]


def test_cycles_of_a_few_messages_take_each_once_and_name_their_ranges(
    mock: Mock, catalogue: Catalogue, sinks: list[Sink]
) -> None:
    for number in range(20):
        mock.send(number % 3, order(number))
    done = sink_all(started(mock, catalogue, sinks), cycle_messages=6)
    assert len(done) >= 4 and sum(one.row_count for one in done) == 20
    assert len(set(places(rows_of(catalogue)))) == 20
    summaries = [one.summary for one in catalogue.load(IDENTIFIER).metadata.snapshots]
    named = [one.additional_properties[RANGES_PROPERTY] for one in summaries if one is not None]
    ranges = [text for one in named for text in one.split()]
    taken: list[tuple[int, int]] = []
    for text in ranges:
        log, partition, span = text.split("/")
        first, end = map(int, span.removeprefix("0:").split("-"))
        assert log == "mock-1"
        taken += [(int(partition), offset) for offset in range(first, end)]
    assert sorted(taken) == [(partition, offset) for partition, offset, _ in places(rows_of(catalogue))]


@pytest.mark.parametrize("when", ["before", "after"])
def test_sink_that_ends_around_its_commit_is_made_good_by_the_next(
    when: str, mock: Mock, catalogue: Catalogue, sinks: list[Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    mock.send(0, *(order(number) for number in range(10)))
    append = ViewTable.append

    def broken(self: ViewTable, rows: pa.Table, ranges: Any) -> Any:
        if when == "after":
            append(self, rows, ranges)
        raise RuntimeError("killed here")

    first = started(mock, catalogue, sinks)
    with monkeypatch.context() as patch:
        patch.setattr(ViewTable, "append", broken)
        with pytest.raises(RuntimeError):
            first.cycle()
    mock.send(0, order(10))
    for sink in (first, started(mock, catalogue, sinks)):  # the one that goes on, and one in its place
        sink_all(sink)
        assert places(rows_of(catalogue)) == [(0, number, 0) for number in range(11)]


def test_two_sinks_at_once_take_each_event_once(mock: Mock, catalogue: Catalogue, sinks: list[Sink]) -> None:
    mock.send(0, *(order(number) for number in range(60)))
    pair = [started(mock, catalogue, sinks) for _ in range(2)]
    threads = [threading.Thread(target=sink_all, args=(sink, 7)) for sink in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert places(rows_of(catalogue)) == [(0, number, 0) for number in range(60)]


def test_topic_that_was_made_anew_is_another_log(mock: Mock, catalogue: Catalogue, sinks: list[Sink]) -> None:
    mock.send(0, order(1), order(2))
    sink_all(started(mock, catalogue, sinks))
    again = Mock()
    again.send(0, order(3))
    sink = started(again, catalogue, sinks)
    sink._topic.made = "mock-2"  # type: ignore[attr-defined]
    sink_all(sink)
    assert sorted(row["user_id"] for row in rows_of(catalogue)) == [1, 2, 3]


def test_log_that_is_shorter_than_the_table_is_an_alarm(mock: Mock, catalogue: Catalogue, sinks: list[Sink]) -> None:
    mock.send(0, order(1), order(2))
    sink_all(started(mock, catalogue, sinks))
    shorter = Mock()
    shorter.send(0, order(1))
    with pytest.raises(DataLoss, match="no longer holds offset 2") as caught:
        started(shorter, catalogue, sinks).cycle()
    assert caught.value.reason == "EVENTS_LOST"


def test_source_that_gains_a_column_grows_its_table_and_nothing_else(
    mock: Mock, catalogue: Catalogue, sinks: list[Sink]
) -> None:
    fewer = {name: kind for name, kind in TYPES.items() if name not in {"tags", "shop"}}
    mock.send(0, order(1, shop="x"))
    sink_all(started(mock, catalogue, sinks, of=source(types=fewer)))
    mock.send(0, order(2, shop="y", tags=["t"]))
    sink_all(started(mock, catalogue, sinks))
    assert [(row["shop"], row["tags"]) for row in rows_of(catalogue)] == [(None, None), ("y", ["t"])]
    with pytest.raises(FailedPrecondition) as caught:
        started(mock, catalogue, sinks, of=source(types={**TYPES, "cents": "string"}))
    assert caught.value.reason == "TABLE_MISMATCH"


def test_files_that_a_killed_sink_left_are_swept(
    mock: Mock, catalogue: Catalogue, sinks: list[Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    mock.send(0, order(1))
    killed = started(mock, catalogue, sinks)
    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "commit_transaction", _broken)
        with pytest.raises(RuntimeError):
            killed.cycle()
    sink_all(started(mock, catalogue, sinks))
    swept = sweep(lambda: catalogue.load(IDENTIFIER), AGE_S_MIN, time.time_ns() // 1_000 + 2 * AGE_S_MIN * 1_000_000)
    assert len(swept.files) == 1
    assert places(rows_of(catalogue)) == [(0, 0, 0)]


def test_events_are_in_no_list_of_views(mock: Mock, catalogue: Catalogue, sinks: list[Sink]) -> None:
    mock.send(0, order(1))
    sink_all(started(mock, catalogue, sinks))
    assert catalogue.identifiers() == []
    assert catalogue.event_identifiers() == [IDENTIFIER]


@pytest.mark.parametrize("uri", ["kafka:orders?format=avro&schema=a.avsc", "kafka:?format=json", "kafka:a b"])
def test_stream_that_the_sink_cannot_take_is_refused_by_name(uri: str) -> None:
    with pytest.raises(InvalidArgument, match=r"shop\.web\.orders") as caught:
        stream_of(_with(uri=uri))
    assert caught.value.reason == "BAD_STREAM_URI"


def test_column_with_the_name_of_a_place_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="_offset") as caught:
        stream_of(_with(columns=[*source().columns, Column("_offset", "i64")]))
    assert caught.value.reason == "RESERVED_NAME"


def _broken(self: Transaction) -> None:
    if self._table.name() == IDENTIFIER:
        raise RuntimeError("killed here")
    COMMIT(self)


def _with(**changes: Any) -> Any:

    return replace(source(), **changes)


def _stream(table: pa.Table) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()
