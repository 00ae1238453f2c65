"""The offline store is fed exactly once although feature server and drain worker die by SIGKILL at random points."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import pyarrow as pa
import pytest

from batch.app import open_catalogue, parse_options
from batch.offline.columns import ViewColumns
from headrace.client.shards import ShardClient
from headrace.names import parse_version_ref
from headrace.types import Scalar, parse_type
from tests.cluster.dataset import FEATURES, TYPES, VIEW
from tests.cluster.history import FSYNC, LOG, History
from tests.cluster.processes import ServerProcess, wait_for
from tests.cluster.run import FaultRun

KILL_COUNT: Final = 3
KILL_COUNT_LONG: Final = 24
PAUSE_S_MAX: Final = 1.5
PAUSE_ACKNOWLEDGED_MAX: Final = 60
DRAIN_LIMIT_S: Final = 120.0
ROW_LOG_BYTES: Final = 64 << 20
COLUMNS: Final = ViewColumns(
    parse_version_ref(VIEW), [("item_id", Scalar.I64)], [(name, parse_type(TYPES[name])) for name in FEATURES]
)


class Feed:
    """A drain worker beside a fault run, and what it brought into the tables."""

    def __init__(self, run: FaultRun, registry_address: str, interval_s: float = 0.05) -> None:
        self._run = run
        self._arguments = ["--data", str(run.folder / "lake"), "--registry", registry_address]
        self._arguments += ["--features", run.server.address, "--interval-s", str(interval_s)]
        self.worker = ServerProcess("batch.app", self._arguments, run.folder / "batch.log")

    def start(self) -> None:
        self.worker.launch()
        self.worker.wait_listening()

    def wait_drained(self) -> None:
        """Until every shard has acknowledged all that it has committed."""

        def is_drained() -> bool:
            with ShardClient(self._run.server.address) as client:
                states = [shard.row_log for shard in client.list()[1]]
            return all(state is not None and state.acknowledged == state.end for state in states)

        wait_for(is_drained, DRAIN_LIMIT_S, self.worker.tail)

    def rows(self) -> pa.Table:
        """All rows of the view's table."""
        catalogue = open_catalogue(parse_options(self._arguments))
        try:
            return catalogue.view_table(COLUMNS).read().read_all()
        finally:
            catalogue.close()

    def runs(self) -> list[str]:
        """States of the runs of the worker."""
        catalogue = open_catalogue(parse_options(self._arguments))
        try:
            table = catalogue.load(("_headrace", "runs")).scan().to_arrow()
            return [row["state"] for row in table.to_pylist() if row["kind"] == "drain"]
        finally:
            catalogue.close()


@pytest.fixture
def start_feed(registry_address: str) -> Iterator[Callable[[FaultRun], Feed]]:
    feeds: list[Feed] = []

    def start(run: FaultRun) -> Feed:
        feeds.append(Feed(run, registry_address))
        return feeds[-1]

    yield start
    for feed in feeds:
        if feed.worker.process is not None and feed.worker.exit_code() is None:
            feed.worker.kill()


def check_feed(history: History, rows: pa.Table, run: FaultRun) -> None:
    """No place of a log twice, nothing that was not sent, all that was acknowledged, and what is served online."""
    places = Counter(zip(rows["_log_partition"].to_pylist(), rows["_offset"].to_pylist(), strict=True))
    doubled = [place for place, count in places.items() if count > 1]
    assert not doubled, f"seed {run.seed}: {len(doubled)} places are doubled, {doubled[:5]}"
    times = rows["_event_time"].cast(pa.int64()).to_pylist()
    found = set(zip(rows["item_id"].to_pylist(), times, rows["seq"].to_pylist(), strict=True))
    sent = {(write.key, write.event_us, write.seq) for write in history.writes()}
    assert found <= sent, f"seed {run.seed}: rows that nobody sent: {sorted(found - sent)[:5]}"
    promised = {(write.key, write.event_us, write.seq) for write in history.promised([LOG, FSYNC])}
    assert promised <= found, f"seed {run.seed}: {len(promised - found)} acknowledged rows are missing"
    stored, _ = run.state()
    online = {(row.partition, row.offset) for row in stored}
    assert online and online <= set(places), f"seed {run.seed}: rows are served that the tables do not have"


def feed_through_kills(run: FaultRun, feed: Feed, source: random.Random, kill_count: int) -> None:
    run.server.start()
    feed.start()
    run.start_writer()
    for _ in range(kill_count):
        victims = source.choice((["worker"], ["server"], ["worker", "server"]))
        run.random_pause(source, PAUSE_ACKNOWLEDGED_MAX)
        time.sleep(source.uniform(0, PAUSE_S_MAX))  # acknowledgements say nothing of where the worker is
        if "worker" in victims:
            feed.worker.kill()
        if "server" in victims:
            run.server.kill()
            run.server.start()
        if "worker" in victims:
            feed.start()
    run.wait_acknowledged(5)
    run.stop_writer()
    feed.wait_drained()
    assert feed.worker.stop() == 0
    check_feed(run.check(), feed.rows(), run)
    assert "SUCCEEDED" in feed.runs()


@pytest.mark.timeout(600)
def test_kills_at_random_points_feed_every_row_once(
    start_run: Callable[..., FaultRun], start_feed: Callable[[FaultRun], Feed], source: random.Random
) -> None:
    """Fault: SIGKILL of the feature server, the drain worker or both, at random points under load.

    Outcome: every acknowledged row lies in the table, no place of a log lies there twice, nothing else does.
    """
    run = start_run(options=["--row-log-bytes", str(ROW_LOG_BYTES)])
    feed_through_kills(run, start_feed(run), source, KILL_COUNT)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_dozens_of_kills_feed_every_row_once(
    start_run: Callable[..., FaultRun], start_feed: Callable[[FaultRun], Feed], source: random.Random
) -> None:
    """Fault and outcome as in the short run, 24 times."""
    run = start_run(options=["--row-log-bytes", str(ROW_LOG_BYTES)])
    feed_through_kills(run, start_feed(run), source, KILL_COUNT_LONG)


def test_full_row_log_refuses_writes_until_it_is_drained(
    start_run: Callable[..., FaultRun], start_feed: Callable[[FaultRun], Feed]
) -> None:
    """Fault: nobody drains.

    Outcome: writes end in RESOURCE_EXHAUSTED and reads go on; once a worker drains, writes are taken and none is lost.
    """
    run = start_run(options=["--row-log-bytes", str(1 << 20)])
    run.server.start()
    run.start_writer()
    wait_for(lambda: any(code == "RESOURCE_EXHAUSTED" for _, code in run.history().failures), DRAIN_LIMIT_S)
    assert run.server.server.event("row_log_filling") is not None
    feed = start_feed(run)
    feed.start()
    run.wait_acknowledged(20)
    run.stop_writer()
    feed.wait_drained()
    check_feed(run.check(failures=("RESOURCE_EXHAUSTED",)), feed.rows(), run)
