"""Counts of what a store is asked for: of every read and write, over restarts and new definitions."""

import io
import time
from pathlib import Path

import pytest

from feature_server.domain.read_counts import CountsFile, ReadCounts, decode_counts, encode_counts
from feature_server.storage.files import read_file, write_file
from headrace.errors import Unavailable
from headrace.serving.logging import EventLog
from tests.unit.feature_server.domain.test_reads import get, request, write
from tests.unit.feature_server.parts import SERVICE, Parts, shop_definitions, state_of


def file_of(path: Path, counted: ReadCounts) -> CountsFile:
    return CountsFile(read_file(path), lambda: counted, lambda data: write_file(path, data), silent())


def silent(stream: io.StringIO | None = None) -> EventLog:
    return EventLog("test", time.time, stream or io.StringIO())


def test_counts_go_on_where_the_last_process_ended(tmp_path: Path) -> None:
    path = tmp_path / "counts"
    first = ReadCounts({"a@v1": 3}, {"7": 2}, {"7": 1})
    file = file_of(path, first)
    file.save()
    file.close()
    assert decode_counts(read_file(path)) == first
    file = file_of(path, ReadCounts({"a@v1": 1, "b@v1": 5}, {}, {"8": 4}))
    file.start()
    file.close()
    assert decode_counts(read_file(path)) == ReadCounts({"a@v1": 4, "b@v1": 5}, {"7": 2}, {"7": 1, "8": 4})


def test_disk_that_refuses_is_told_to_the_log(tmp_path: Path) -> None:
    def refuse(data: bytes) -> None:
        raise Unavailable("the disk refuses", reason="STORAGE_READ_ONLY")

    stream = io.StringIO()
    CountsFile(None, lambda: ReadCounts({"a@v1": 1}), refuse, silent(stream)).save()
    assert "read_counts_not_saved" in stream.getvalue()


def test_no_file_is_no_counts() -> None:
    assert decode_counts(None) == ReadCounts()
    assert decode_counts(encode_counts(ReadCounts())) == ReadCounts()


def test_rows_are_counted_as_read_fetched_and_written(parts: Parts) -> None:
    write(parts, range(10), 40)
    parts.table.clear()
    get(parts, request(range(10)))
    get(parts, request([1, 2]))
    (view_id,) = parts.writes.rows_by_view
    assert parts.writes.rows_by_view == {view_id: 10}
    assert parts.reads.fetched() == {view_id: 10}
    assert parts.catalogue.rows_read() == {f"{SERVICE}@v1": 12}


@pytest.mark.parametrize("times", [1, 3])
def test_counts_outlive_new_definitions(parts: Parts, times: int) -> None:
    for revision in range(2, 2 + times):
        get(parts, request([1, 2, 3]))
        parts.catalogue.publish(state_of(shop_definitions(), revision=revision))
    assert parts.catalogue.rows_read() == {f"{SERVICE}@v1": 3 * times}
