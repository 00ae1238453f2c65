"""A store that was lost answers as one that never was, once its views are materialised beside the writes that go on."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batch.drain.drain import Drain
from batch.drain.views import Views, logged_views
from batch.materialize import computed, marks
from batch.materialize.computed import ComputedMaterialization
from batch.materialize.computed_rows import RowMaker, row_maker
from batch.materialize.marks import Mark, read_mark
from batch.materialize.materialize import Materialized
from batch.offline.catalogue import Catalogue
from batch.offline.columns import ViewColumns
from batch.offline.maintenance import compact
from batch.offline.runs import Provenance, Runs
from batch.offline.view_table import shaped
from headrace.client import Client, Durability
from headrace.client.shards import BatchResult, ShardClient
from headrace.definitions.registered import RegisteredView, all_records
from headrace.errors import FailedPrecondition, InvalidArgument, Unavailable
from tests.integration.test_computed_parity import (
    EVENTS,
    FILTERED,
    FILTERED_COLUMNS,
    SERVICE,
    USERS,
    WINDOWED,
    Shop,
    bits_of,
    definitions,
)
from tests.unit.batch.offline.parts import catalogue_of
from tests.unit.feature_server.parts import ENTITY, Parts, state_of

STATE = state_of(definitions())
VIEWS = [f"{WINDOWED}@v1", f"{FILTERED}@v1"]


class Store:
    """A feature server, what drains it and what materialises into it."""

    def __init__(self, folder: Path, name: str, catalogue: Catalogue | None, clock: Any = None) -> None:
        self.parts = Parts(folder / name, state=STATE, row_log_bytes=64 << 20, store_id=name)
        if clock is not None:
            self.parts.clock.now_us = clock.now_us
        self.clock = self.parts.clock
        self.parts.serve().close()
        self.client = Client(f"127.0.0.1:{self.parts.port}")
        self.shards = ShardClient(f"127.0.0.1:{self.parts.port}")
        self.catalogue = catalogue
        self.views = Views(lambda: all_records(STATE))

    def drain(self) -> None:
        assert self.catalogue is not None
        runs = Runs(self.catalogue, Provenance("test"), self.clock)
        work = Drain(self.shards, self.views, self.catalogue, runs, self.clock)
        while work.backlog().shards:
            work.cycle()

    def write(self, batch: pa.RecordBatch) -> None:
        self.client.write_features(VIEWS[0], batch)
        self.client.write_features(VIEWS[1], batch.select(FILTERED_COLUMNS))

    def erase(self, users: list[int]) -> None:
        self.client.delete_entity(ENTITY, {"user_id": users})

    def materialize(self, view: str, shards: ShardClient | None = None) -> Materialized:
        assert self.catalogue is not None
        maker, columns = made(view)
        runs = Runs(self.catalogue, Provenance("test"), self.clock)
        return ComputedMaterialization(self.catalogue, shards or self.shards, self.views, runs).run(maker, columns)

    def answers(self) -> dict[str, tuple[list[Any], list[int]]]:
        users = [*range(USERS), 999]
        found = self.client.get_online_features(SERVICE, entities={"user_id": users})
        table = found.to_arrow()
        return {name: (bits_of(table[name]), found.statuses(name).tolist()) for name in found.columns}

    def close(self) -> None:
        self.client.close()
        self.shards.close()
        self.parts.close()


def made(view: str) -> tuple[RowMaker, ViewColumns]:
    record = next(one for one in all_records(STATE) if isinstance(one, RegisteredView) and str(one.ref) == view)
    maker = row_maker(record, STATE.entities[ENTITY], STATE.sources[EVENTS])
    return maker, logged_views(all_records(STATE))[record.view_id].columns


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    yield opened
    opened.close()


class Twins:
    """A store that is lost halfway, and one that takes the same writes at the same times and is not."""

    def __init__(self, folder: Path, catalogue: Catalogue, seed: int) -> None:
        self.folder = folder
        self.catalogue = catalogue
        self.shop = Shop(seed)
        self.kept = Store(folder, "kept", None)
        self.store = Store(folder, "first", catalogue)

    def both(self) -> list[Store]:
        return [self.kept, self.store]

    def live(self, rounds: int) -> None:
        random = self.shop.random
        for _ in range(rounds):
            batch = self.shop.batch(self.store.clock.now_us)
            for store in self.both():
                store.write(batch)
            self.step(int(random.choice([1, 1_000, 10**6, 10**8, 3 * 10**9])))

    def erase(self, users: list[int]) -> None:
        for store in self.both():
            store.erase(users)
        self.shop.erased_us |= dict.fromkeys(users, self.store.clock.now_us)
        self.step(1)

    def step(self, us: int) -> None:
        for store in self.both():
            store.clock.now_us += us

    def lose(self) -> None:
        self.store.drain()
        self.store.close()
        self.store = Store(self.folder, "second", self.catalogue, self.kept.clock)

    def differences(self) -> list[str]:
        kept, found = self.kept.answers(), self.store.answers()
        return [
            f"{name} of user {user}: {ours[0][user]} {ours[1][user]}, kept {theirs[0][user]} {theirs[1][user]}"
            for name, theirs in kept.items()
            for ours in [found[name]]
            for user in range(len(theirs[1]))
            if (ours[0][user], ours[1][user]) != (theirs[0][user], theirs[1][user])
        ]

    def close(self) -> None:
        for store in self.both():
            store.close()


@pytest.fixture
def twins(tmp_path: Path, catalogue: Catalogue, seed: int) -> Iterator[Twins]:
    opened = Twins(tmp_path, catalogue, seed)
    yield opened
    opened.close()


@pytest.mark.timeout(300)
def test_writes_and_materialisations_in_any_order_end_as_the_stream_alone(twins: Twins) -> None:
    twins.live(12)
    twins.erase([3, 5])
    twins.live(4)
    twins.lose()
    assert twins.differences() != []
    random = twins.shop.random
    for _ in range(10):
        twins.live(int(random.integers(0, 3)))
        if random.random() < 0.5:
            twins.store.drain()
        if random.random() < 0.3:
            for view in VIEWS:
                columns = made(view)[1]
                compact(lambda columns=columns: twins.catalogue.load(columns.identifier))  # type: ignore[misc]
        for view in VIEWS:
            if random.random() < 0.6:
                twins.store.materialize(view)
    for view in VIEWS:
        twins.store.materialize(view)
    assert twins.differences()[:5] == []
    twins.live(5)
    assert twins.differences()[:5] == []
    for view in VIEWS:
        again = twins.store.materialize(view)
        assert (again.row_count, again.file_count) == (0, 0), "what its own log brought is online"


@pytest.mark.timeout(300)
def test_rows_sent_twice_change_nothing(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    twins.live(10)
    twins.lose()
    first = twins.store.materialize(VIEWS[0])
    assert first.row_count > 0 and first.stale_count == 0
    before = {status.shard: status.content_hash for status in states(twins.store)}
    monkeypatch.setattr(marks, "read_mark", lambda table, store: Mark())
    second = twins.store.materialize(VIEWS[0])
    assert (second.row_count, second.stale_count) == (first.row_count, first.row_count)
    assert {status.shard: status.content_hash for status in states(twins.store)} == before


def states(store: Store) -> Sequence[Any]:
    return [shard.status() for shard in map(store.parts.shards.__getitem__, range(len(store.parts.shards)))]


@pytest.mark.timeout(300)
def test_a_run_that_died_goes_on_after_its_last_whole_part(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    twins.live(20)
    twins.lose()
    monkeypatch.setattr(computed, "PART_ROWS", 20)
    columns = made(VIEWS[0])[1]
    with pytest.raises(Unavailable):
        twins.store.materialize(VIEWS[0], Failing(twins.store.shards, calls=3))
    mark = read_mark(twins.catalogue.load(columns.identifier), "second")
    assert mark.base == 0 and mark.target != 0 and mark.file_count > 0
    twins.live(2)
    twins.store.drain()
    done = twins.store.materialize(VIEWS[0])
    assert done.file_count > 0
    twins.store.materialize(VIEWS[1])
    assert twins.differences()[:5] == []
    after = read_mark(twins.catalogue.load(columns.identifier), "second")
    assert after == Mark(after.target, after.target)


@pytest.mark.timeout(300)
def test_an_entity_that_is_written_all_the_time_is_brought_with_what_its_log_holds(twins: Twins) -> None:
    twins.live(10)
    twins.lose()
    twins.live(3)  # not drained: the rows of the batch have less than what is stored
    done = twins.store.materialize(VIEWS[0])
    twins.store.materialize(VIEWS[1])
    assert done.row_count > 0
    assert twins.differences()[:5] == []


@pytest.mark.timeout(300)
def test_threads_write_while_rows_are_brought(twins: Twins) -> None:
    twins.live(10)
    twins.lose()
    stop = threading.Event()
    written: list[pa.RecordBatch] = []

    def write() -> None:
        while not stop.is_set() and len(written) < 400:
            batch = twins.shop.batch(twins.store.clock.now_us)
            twins.store.write(batch)
            written.append(batch)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for view in VIEWS:
            twins.store.materialize(view)
    finally:
        stop.set()
        writer.join(60)
    assert len(written) > 0
    for batch in written:
        twins.kept.write(batch)
    assert twins.differences()[:5] == []


class Failing(ShardClient):
    """A client whose server is gone after some rows."""

    def __init__(self, client: ShardClient, calls: int) -> None:
        self._inner = client
        self._left = calls

    def __getattribute__(self, name: str) -> Any:
        if name in ("list", "read_row_log"):
            return getattr(object.__getattribute__(self, "_inner"), name)
        return object.__getattribute__(self, name)

    def put_rows(
        self,
        feature_view: str,
        rows: pa.Table,
        covered: Sequence[tuple[int, int, int]],
        durability: Durability,
        timeout_s: float = 10.0,
    ) -> BatchResult:
        if self._left == 0:
            raise Unavailable("gone", reason="TRANSPORT")
        self._left -= 1
        return self._inner.put_rows(feature_view, rows, covered, durability, timeout_s)


def test_rows_of_another_view_and_positions_of_another_epoch_are_refused(twins: Twins) -> None:
    twins.live(3)
    twins.lose()
    maker, columns = made(VIEWS[0])
    table = twins.catalogue.load(columns.identifier).scan().to_arrow()
    rows = maker.rows(pa.Table.from_batches(shaped_batches(table, columns), columns.arrow), [-1, -1])
    seen = [(shard.shard, shard.epoch, -1) for shard in twins.store.shards.list()[1]]
    put = twins.store.shards.put_rows
    with pytest.raises(InvalidArgument, match="row 0 is none of"):
        put(VIEWS[1], rows, seen, Durability.LOG)
    with pytest.raises(InvalidArgument, match="covered names no position"):
        put(VIEWS[0], rows, seen[:0], Durability.LOG)
    with pytest.raises(FailedPrecondition, match="it has restarted"):
        put(VIEWS[0], rows, [(shard, epoch + 1, offset) for shard, epoch, offset in seen], Durability.LOG)
    with pytest.raises(InvalidArgument, match="ask for LOG or FSYNC"):
        put(VIEWS[0], rows, seen, Durability.MEMORY)
    broken = rows.set_column(1, "_row", pa.array([row[:-1] for row in rows["_row"].to_pylist()], pa.binary()))
    with pytest.raises(InvalidArgument, match="row 0 is none of"):
        put(VIEWS[0], broken, seen, Durability.LOG)
    assert np.all([status.offset < 0 for status in states(twins.store)]), "nothing was written"


def shaped_batches(table: pa.Table, columns: ViewColumns) -> list[pa.RecordBatch]:
    return [shaped(batch, columns.arrow) for batch in table.to_batches()]
