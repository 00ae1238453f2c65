"""Cycles of the drain over a real server and tables: every type, every point of a crash, several views and epochs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batch.drain.drain import Drain
from batch.drain.views import Views, logged_views
from batch.offline.catalogue import Catalogue
from batch.offline.runs import Provenance, Runs
from core_ext.row_log import encode_record
from feature_server.domain.shard_writes import Durability
from headrace.client.shards import LogPosition, RowLogChunk, ShardClient
from headrace.definitions.registered import all_records
from headrace.errors import DataLoss, Unavailable
from tests.unit.batch.offline.parts import catalogue_of
from tests.unit.feature_server.parts import (
    ENTITY,
    NOW_US,
    PRINCIPAL,
    VIEW,
    Parts,
    shop_batch,
    shop_definitions,
    shop_state,
    state_of,
)

VIEW_COLUMNS = next(iter(logged_views(all_records(shop_state())).values())).columns
BYTES = 16 << 20
ONLINE = "shop.web.session"


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts(tmp_path / "store", row_log_bytes=BYTES)
    yield opened
    opened.close()


@pytest.fixture
def shards(parts: Parts) -> Iterator[ShardClient]:
    channel = parts.serve()
    channel.close()
    with ShardClient(f"127.0.0.1:{parts.port}") as client:
        yield client


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    yield opened
    opened.close()


def drain_of(
    shards: ShardClient, catalogue: Catalogue, records: Callable[[], Any] = lambda: all_records(shop_state())
) -> Drain:
    runs = Runs(catalogue, Provenance("test"), lambda: NOW_US)
    return Drain(shards, Views(records), catalogue, runs, lambda: NOW_US)


def write(parts: Parts, batch: pa.RecordBatch) -> None:
    parts.writes.write(VIEW, lambda target: [batch], Durability.LOG, ("", 0), PRINCIPAL)


def stored(catalogue: Catalogue) -> pa.Table:
    return (
        catalogue.view_table(VIEW_COLUMNS)
        .read()
        .read_all()
        .sort_by([("_log_partition", "ascending"), ("_offset", "ascending")])
    )


def test_rows_lie_in_the_table_with_values_times_and_order(
    parts: Parts, shards: ShardClient, catalogue: Catalogue
) -> None:
    write(parts, shop_batch(range(20)))
    nulls = shop_batch([30])
    write(parts, nulls.set_column(3, "name", pa.array([None], pa.string())))
    parts.writes.erase(ENTITY, lambda layout: [(4,)], Durability.LOG, ("", 0), PRINCIPAL)
    drain = drain_of(shards, catalogue)
    assert len(drain.backlog().shards) == 2
    done = drain.cycle()
    assert (done.row_count, done.skipped_count, done.is_all) == (22, 0, True)
    rows = stored(catalogue)
    written = pa.Table.from_batches([shop_batch(range(20))]).to_pylist()
    found = {row["user_id"]: row for row in rows.to_pylist() if not row["_tombstone"]}
    for row in written:
        assert {name: found[row["user_id"]][name] for name in row if name != "event_time"} == {
            name: value for name, value in row.items() if name != "event_time"
        }
    assert found[30]["name"] is None
    erased = [row for row in rows.to_pylist() if row["_tombstone"]]
    assert [(row["user_id"], row["age"], row["codes"], row["pair"]) for row in erased] == [(4, None, None, None)]
    assert {row["_log_partition"] for row in found.values()} == {0, 1}
    assert all(parts.shard_of(row["user_id"]) == row["_log_partition"] for row in found.values())
    assert rows["_write_time"].cast(pa.int64()).to_pylist() == [NOW_US] * 22
    assert drain.backlog().shards == []
    assert drain.cycle().row_count == 0


@pytest.mark.parametrize("die_at", ["append", "acknowledge"])
def test_cycle_that_dies_is_repeated_without_a_doubled_row(
    parts: Parts, shards: ShardClient, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, die_at: str
) -> None:
    write(parts, shop_batch(range(20)))

    def die(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        target = (
            "batch.drain.drain.Drain._expire"
            if die_at == "append"
            else "headrace.client.shards.ShardClient.acknowledge_row_log"
        )
        patch.setattr(target, die)
        with pytest.raises(SystemExit):
            drain_of(shards, catalogue).cycle()
    write(parts, shop_batch(range(20, 30)))
    done = drain_of(shards, catalogue).cycle()
    assert (done.row_count, done.skipped_count) == (10, 20)
    assert sorted(stored(catalogue)["user_id"].to_pylist()) == list(range(30))


def test_small_cycles_take_everything_in_the_end(parts: Parts, shards: ShardClient, catalogue: Catalogue) -> None:
    for start in range(0, 100, 5):
        write(parts, shop_batch(range(start, start + 5)))
    drain = drain_of(shards, catalogue)
    cycles = 1
    while not drain.cycle(cycle_bytes=2_000).is_all:
        cycles += 1
    assert cycles > 3
    assert sorted(stored(catalogue)["user_id"].to_pylist()) == list(range(100))


def test_restart_of_the_server_goes_on_where_the_tables_are(
    parts: Parts, shards: ShardClient, catalogue: Catalogue
) -> None:
    write(parts, shop_batch(range(10)))
    drain_of(shards, catalogue).cycle()
    for shard in parts.shards.shards:
        shard._record = replace(shard._record, epoch=shard._record.epoch + 1)
    write(parts, shop_batch(range(10, 20)))
    assert drain_of(shards, catalogue).cycle().row_count == 10
    assert sorted(stored(catalogue)["user_id"].to_pylist()) == list(range(20))


def test_rows_of_a_view_that_nobody_knows_wait(parts: Parts, shards: ShardClient, catalogue: Catalogue) -> None:
    write(parts, shop_batch(range(5)))
    with pytest.raises(Unavailable, match="has no view of id"):
        drain_of(shards, catalogue, lambda: []).cycle()
    assert drain_of(shards, catalogue).cycle().row_count == 5


def test_damaged_chunk_is_refused_whole(
    parts: Parts, shards: ShardClient, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(parts, shop_batch(range(5)))
    row = bytes(np.arange(80, dtype=np.uint8))
    record = encode_record(1, 0, 1, [bytes(14) + b"\0\3"], [row])
    chunk = RowLogChunk(1, 0, 1, record)
    monkeypatch.setattr("headrace.client.shards.ShardClient.read_row_log", lambda *_: iter([chunk]))
    with pytest.raises(DataLoss, match="arrived damaged"):
        drain_of(shards, catalogue, lambda: all_records(shop_state())).cycle()
    assert shards.list()[1][0].row_log is not None
    assert all(shard.row_log and shard.row_log.acknowledged == LogPosition(0, 0) for shard in shards.list()[1])


def test_view_that_stays_online_sends_no_row_and_no_erasure(tmp_path: Path, catalogue: Catalogue) -> None:
    shop = shop_definitions()
    both = replace(
        shop, feature_views=[*shop.feature_views, replace(shop.feature_views[0], name=ONLINE, offline=False)]
    )
    state = state_of(both)
    parts = Parts(tmp_path / "kept", state=state, row_log_bytes=BYTES)
    parts.serve().close()
    for view in (VIEW, f"{ONLINE}@v1"):
        parts.writes.write(view, lambda target: [shop_batch(range(20))], Durability.LOG, ("", 0), PRINCIPAL)
    parts.writes.erase(ENTITY, lambda layout: [(4,)], Durability.LOG, ("", 0), PRINCIPAL)
    with ShardClient(f"127.0.0.1:{parts.port}") as client:
        drain = drain_of(client, catalogue, lambda: all_records(state))
        assert drain.cycle().row_count == 21
        assert drain.backlog().shards == []
    assert len(stored(catalogue)) == 21
    assert [name[-1] for name in catalogue.identifiers()] == ["profile_v1"]
    for view in (VIEW, f"{ONLINE}@v1"):
        found = parts.reads.prepare(PRINCIPAL, "", [f"{view}:age"])
        assert found.stored[0].view.definition.offline is (view == VIEW)
    parts.close()
