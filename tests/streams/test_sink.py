"""Events of a real broker lie in the offline store once each, although the sink dies by SIGKILL around its commits."""

import json
import random
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from batch.offline.catalogue import Catalogue
from batch.offline.lake import lake_config
from batch.offline.positions import LogRange
from batch.sink.streams import stream_of
from batch.sink.topic import TopicLog
from headrace.definitions import Column, DefinitionSet, Source, SourceKind
from tests.cluster.processes import ServerProcess, wait_for
from tests.streams.fold import read_topic
from tests.streams.platform import apply, make_topic, produce
from tools.kafka import Brokers

TOPIC = "sunk"
PARTITIONS = 3
EVENTS = 120  # of a round
LIMIT_S = 120.0
ORDER = b'{"user_id": 1, "at": null, "cents": 1}'
DAY_US = 86_400_000_000
ORDERS = Source(
    "shop.web.orders",
    owner="shop",
    kind=SourceKind.STREAM,
    uri=f"kafka:{TOPIC}?format=json",
    columns=[Column("user_id", "i64"), Column("at", "timestamp_us"), Column("cents", "i64")],
    event_time_column="at",
)


@pytest.fixture
def worker(tmp_path: Path, brokers: Brokers, registry: str) -> Iterator[ServerProcess]:
    arguments = ["--data", str(tmp_path / "lake"), "--kafka", brokers.bootstrap, "--registry", registry]
    process = ServerProcess("batch.sink.app", [*arguments, "--interval-s", "0.1"], tmp_path / "sink.log")
    yield process
    if process.process is not None and process.exit_code() is None:
        process.kill()


def events(source: random.Random, count: int) -> list[tuple[int, bytes]]:
    """Orders on time, late by months, early by days and without a time, and messages that are none."""
    now_us = time.time_ns() // 1_000
    made = []
    for _ in range(count):
        at = source.choice([now_us, now_us - source.randrange(90) * DAY_US, now_us + 3 * DAY_US, None])
        value = json.dumps({"user_id": source.randrange(1_000), "at": at, "cents": source.randrange(10_000)}).encode()
        made.append((source.randrange(PARTITIONS), value if source.random() < 0.95 else b"{"))
    return made


def rows_of(folder: Path) -> pa.Table:
    catalogue = Catalogue(lake_config(folder / "lake"))
    try:
        return catalogue.event_table(stream_of(ORDERS).columns).read().read_all()
    finally:
        catalogue.close()


def ends_of(log: Iterable[tuple[int, int]]) -> list[int]:
    """Of each partition the offset behind its last message."""
    return [max(offset for partition, offset in log if partition == number) + 1 for number in range(PARTITIONS)]


def taken(folder: Path, brokers: Brokers) -> list[int]:
    """Of each partition the position of the table."""
    catalogue = Catalogue(lake_config(folder / "lake"))
    topic = TopicLog({"bootstrap.servers": brokers.bootstrap}, TOPIC)
    try:
        log = topic.identity()
        table = catalogue.event_table(stream_of(ORDERS).columns)
        return [table.position(LogRange(log, number, 0, 0, 0)).next_offset for number in range(PARTITIONS)]
    finally:
        topic.close()
        catalogue.close()


def test_sink_that_dies_around_its_commits_keeps_every_event_once(
    tmp_path: Path, brokers: Brokers, registry: str, worker: ServerProcess, seed: int
) -> None:
    """Fault: SIGKILL between the files and their commit, right after a commit, and at random points.

    Outcome: every event of the log lies in the table once, at its place, with its values; nothing else does.
    """
    source = random.Random(seed)
    make_topic(brokers.bootstrap, TOPIC, PARTITIONS)
    apply(registry, DefinitionSet(sources=[ORDERS]))
    plain, arguments = worker.module, worker.arguments
    points = [("before", 1), ("after", 1), ("before", 2)]
    source.shuffle(points)
    for when, number in points:
        produce(brokers.bootstrap, TOPIC, events(source, EVENTS))
        worker.module = "tests.streams.killed_sink"
        worker.arguments = [when, str(number), *arguments, "--cycle-messages", "50"]
        worker.launch()
        assert worker.process is not None
        assert worker.process.wait(LIMIT_S) == -signal.SIGKILL, worker.tail()
    worker.module, worker.arguments = plain, arguments
    for _ in range(3):
        worker.launch()
        produce(brokers.bootstrap, TOPIC, events(source, EVENTS))
        time.sleep(source.uniform(0.5, 3.0))  # how far it comes is the fault
        worker.kill()
    worker.launch()
    for _ in range(2):  # what the first round would take twice has come when the second is there
        produce(brokers.bootstrap, TOPIC, [(number, ORDER) for number in range(PARTITIONS)])
        log = {(one.partition, one.offset): one.value for one in read_topic(brokers.bootstrap, TOPIC)}
        ends = ends_of(log)
        wait_for(lambda ends=ends: taken(tmp_path, brokers) == ends, LIMIT_S, worker.tail)  # type: ignore[misc]
    wanted = {place: json.loads(value) for place, value in log.items() if value != b"{"}
    assert worker.stop() == 0
    rows = rows_of(tmp_path).select(["user_id", "at", "cents", "_event_time", "_log_partition", "_offset", "_row"])
    found = rows.set_column(1, "at", rows["at"].cast(pa.int64())).to_pylist()
    places = [(row["_log_partition"], row["_offset"]) for row in found]
    assert len(places) == len(set(places)), f"seed {seed}: events are doubled"
    kept = {
        place: {name: row[name] for name in ("user_id", "at", "cents")}
        for place, row in zip(places, found, strict=True)
    }
    assert kept == wanted, f"seed {seed}"
    assert all((row["_event_time"] is None) == (row["at"] is None) for row in found)
    written, known = _files(tmp_path)
    assert known < written, "the kills before a commit left their files behind, which no snapshot names"


def _files(folder: Path) -> tuple[set[str], set[str]]:
    """Names of all data files of events, and of those that the table has."""
    catalogue = Catalogue(lake_config(folder / "lake"))
    try:
        table = catalogue.load(stream_of(ORDERS).columns.identifier)
        known = {Path(task.file.file_path).name for task in table.scan().plan_files()}
        return {path.name for path in (folder / "lake").rglob("events/**/*.parquet")}, known
    finally:
        catalogue.close()
