"""Rows go offline by `headrace up` itself, and come back online from there, whatever else is written meanwhile."""

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from batch.app import open_catalogue, parse_options
from batch.drain.views import logged_views
from batch.materialize.marks import Mark, read_mark
from batch.materialize.materialize import Materialization
from batch.offline.runs import Provenance, Runs
from headrace.client import Client, Durability, RegistryClient
from headrace.client.shards import ReplayResult, ShardClient, ShardInfo
from headrace.definitions import DefinitionKind
from headrace.errors import Unavailable
from tests.integration.platforms import Running, running, until
from tests.unit.feature_server.parts import ENTITY, SERVICE, VIEW, shop_batch, shop_definitions


def drained(platform: Running) -> bool:
    with ShardClient(platform.endpoints["features"]) as shards:
        logs = [shard.row_log for shard in shards.list()[1]]
    return all(log is not None and log.acknowledged == log.end for log in logs)


def ages(platform: Running, keys: list[int]) -> list[int | None]:
    with Client(platform.endpoints["features"]) as client:
        found: list[int | None] = (
            client.get_online_features(SERVICE, entities={"user_id": keys}).to_arrow()["age"].to_pylist()
        )
        return found


def applied(platform: Running) -> None:
    with RegistryClient(platform.endpoints["control"]) as registry:
        registry.apply(shop_definitions())


@pytest.mark.timeout(300)
def test_rows_go_offline_and_come_back_on_a_new_store(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    now_us = time.time_ns() // 1_000 - 10_000_000
    with running(tmp_path / "first") as platform:
        applied(platform)
        with Client(platform.endpoints["features"]) as client:
            until(lambda: _is_known(client), "the registry arrives")
            client.write_features(VIEW, shop_batch(range(50), now_us, age=1))
            client.write_features(VIEW, shop_batch(range(40), now_us + 2_000_000, age=3))
            client.write_features(VIEW, shop_batch(range(50), now_us + 1_000_000, age=2))  # late for most
            client.delete_entity(ENTITY, {"user_id": [7]})
        expected = ages(platform, list(range(60)))
        assert expected == [3] * 7 + [None] + [3] * 32 + [2] * 10 + [None] * 10
        until(lambda: drained(platform), "the worker drains")
        again = platform.headrace("materialize", VIEW, "--from", "offline", "-o", "json")
        assert again.returncode == 0, again.stderr
        done = json.loads(again.stdout)
        assert (done["row_count"], done["stale_count"]) == (141, 141), "all that is offline is online already"
        until(lambda: drained(platform), "the worker goes past the rows that came back")
        again = platform.headrace("materialize", VIEW, "--from", "offline", "-o", "json")
        assert json.loads(again.stdout)["row_count"] == 0, "and does not take them offline a second time"
        assert platform.stop() == 0
    (tmp_path / "first" / ".headrace" / "feature_server").rename(tmp_path / "lost")
    with running(tmp_path / "first") as platform:
        with Client(platform.endpoints["features"]) as client:
            until(lambda: _is_known(client), "the registry arrives")
        assert ages(platform, [1]) == [None]
        refused = platform.headrace("materialize", VIEW, "--from", "offline", "--since", "2020-01-01")
        assert refused.returncode == 1 and "has no zone" in refused.stderr
        between = ("--since", "2020-01-01T00:00:00+00:00", "--until", _iso(now_us + 500_000))
        assert platform.headrace("materialize", VIEW, "--from", "offline", *between).returncode == 0
        assert ages(platform, [1, 7, 45]) == [1, 1, 1]
        assert platform.headrace("materialize", VIEW, "--from", "offline").returncode == 0
        assert ages(platform, list(range(60))) == expected


@pytest.mark.timeout(300)
def test_killed_run_goes_on_beside_writers_and_the_newest_row_wins(tmp_path: Path) -> None:
    now_us = time.time_ns() // 1_000 - 10_000_000
    with running(tmp_path) as platform:
        applied(platform)
        options = parse_options([
            "--data", platform.endpoints["lake"], "--registry", platform.endpoints["control"],
            "--features", platform.endpoints["features"],
        ])  # fmt: skip
        with Client(platform.endpoints["features"]) as client:
            until(lambda: _is_known(client), "the registry arrives")
            for number in range(3):  # files of their own
                client.write_features(VIEW, shop_batch(range(200), now_us + number, age=number))
                until(lambda: drained(platform), "the worker drains")
            with RegistryClient(platform.endpoints["control"]) as registry:
                kinds = (DefinitionKind.ENTITY, DefinitionKind.FEATURE_VIEW)
                views = logged_views([record for kind in kinds for record in registry.list(kind)])
            columns = next(iter(views.values())).columns
            catalogue = open_catalogue(options)
            runs = Runs(catalogue, Provenance("test"), lambda: time.time_ns() // 1_000)
            with ShardClient(platform.endpoints["features"]) as shards:
                store_id, _ = shards.list()
                work = Materialization(catalogue, FailsLater(shards, 1), runs)
                with pytest.raises(Unavailable):
                    work.run(columns)
                mark = read_mark(catalogue.load(columns.identifier), store_id)
                assert mark.base == 0 and mark.target != 0 and mark.file_count == 1
                stop = threading.Event()
                newest = [0]

                def write() -> None:
                    while not stop.is_set():
                        newest[0] += 1
                        rows = shop_batch(range(200), now_us + 1_000 + newest[0], age=100 + newest[0])
                        client.write_features(VIEW, rows, durability=Durability.LOG)

                writer = threading.Thread(target=write)
                writer.start()
                try:
                    done = Materialization(catalogue, shards, runs).run(columns)
                finally:
                    stop.set()
                    writer.join(60)
                assert done.row_count >= 400 and done.file_count >= 2
                after = read_mark(catalogue.load(columns.identifier), store_id)
                assert after == Mark(after.target, after.target) and after.target != 0
            states = [run["state"] for run in runs.list() if run["kind"] == "materialize"]
            assert states == ["FAILED", "SUCCEEDED"]
            catalogue.close()
        assert ages(platform, list(range(200))) == [100 + newest[0]] * 200


class FailsLater(ShardClient):
    """A client whose server is gone after some calls."""

    def __init__(self, client: ShardClient, call_count: int) -> None:
        self._inner = client
        self._left = call_count

    def list(self, timeout_s: float = 10.0) -> tuple[str, Sequence[ShardInfo]]:
        return self._inner.list(timeout_s)

    def replay_rows(
        self,
        feature_view: str,
        rows: pa.Table,
        durability: Durability,
        timeout_s: float = 10.0,
        ring_epoch: int = 0,
    ) -> ReplayResult:
        if self._left == 0:
            raise Unavailable("gone", reason="TRANSPORT")
        self._left -= 1
        return self._inner.replay_rows(feature_view, rows, durability, timeout_s, ring_epoch)


def _is_known(client: Client) -> bool:
    try:
        client.prepare(SERVICE)
    except Exception:  # noqa: BLE001 - not yet
        return False
    return True


def _iso(time_us: int) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(time_us // 1_000_000))}.{time_us % 1_000_000:06}+00:00"
