"""Reads go offline by `headrace up` itself, a skew run finds them right, and SIGKILL doubles none."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from batch.offline.catalogue import Catalogue
from batch.offline.lake import lake_config
from batch.skew.served import Served
from batch.skew.served_log import ServedFilter, ServedLog
from headrace.client import Client, RegistryClient
from headrace.client.shards import LogPosition, ShardClient
from headrace.errors import HeadraceError
from tests.integration.platforms import Running, children_of, headrace, is_alive, running, until
from tests.unit.feature_server.parts import ENTITY, FEATURES, SERVICE, VIEW, shop_batch, shop_definitions

READS = 20
USERS = 40
KILLS = 3


def read(client: Client, *users: int) -> Any:
    return client.get_online_features(SERVICE, entities={"user_id": list(users)})


def begun(platform: Running) -> None:
    with RegistryClient(platform.endpoints["control"]) as registry:
        registry.apply(shop_definitions())
    with Client(platform.endpoints["features"]) as client:
        until(lambda: _is_known(client), "the registry arrives")


def _is_known(client: Client) -> bool:
    try:
        read(client, USERS)  # whom nobody writes, as a row of before the read would be late
    except HeadraceError:
        return False
    return True


def drained(platform: Running) -> bool:
    """Whether rows and answers are offline, all of those that were logged by now."""
    with ShardClient(platform.endpoints["features"]) as shards:
        logs = [shard.row_log for shard in shards.list()[1]] + [shards.served_log()[1]]
    return all(log is not None and log.acknowledged == log.end for log in logs)


def logged(folder: Path) -> list[Served]:
    catalogue = Catalogue(lake_config(folder / ".headrace" / "batch"))
    try:
        return [one for batch in ServedLog(catalogue).batches(ServedFilter()) for one in batch]
    finally:
        catalogue.close()


def logged_end(platform: Running) -> LogPosition:
    with ShardClient(platform.endpoints["features"]) as shards:
        state = shards.served_log()[1]
    assert state is not None
    return state.end


def skew(platform: Running, *options: str) -> tuple[dict[str, Any], int]:
    done = platform.headrace("skew", "run", "-o", "json", *options)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.returncode


@pytest.mark.timeout(300)
def test_reads_of_an_unchanged_platform_are_right_and_a_late_event_is_named(tmp_path: Path) -> None:
    now_us = time.time_ns() // 1_000 - 60_000_000
    with running(tmp_path, "--served-log-share", "1") as platform:
        begun(platform)
        with Client(platform.endpoints["features"]) as client:
            client.write_features(VIEW, shop_batch(range(USERS), now_us))
            client.delete_entity(ENTITY, {"user_id": [7]})
            before = len(FEATURES)  # one value each of the reads that awaited the registry
            answers = [read(client, *range(first, first + 10)) for first in range(READS)]
        values = sum(answer.to_arrow().num_rows for answer in answers) * len(FEATURES)
        until(lambda: logged_end(platform).next_offset >= values + before, "the answers are logged")
        until(lambda: drained(platform), "they go offline")
        report, code = skew(platform, "--fail-on", "parity")
        assert (report["mismatches"], code) == (0, 0), report
        assert report["rows"] == report["served_rows"] == logged_end(platform).next_offset
        assert report["skipped"] == {}
        found = logged(tmp_path)
        assert {one.feature_service for one in found} == {f"{SERVICE}@v1"}

        with Client(platform.endpoints["features"]) as client:
            client.write_features(VIEW, shop_batch([3], now_us + 1_000_000, age=99))
        until(lambda: drained(platform), "the late row goes offline")
        report, code = skew(platform, "--fail-on", "parity")
        times = sum(one.entity_key[-1] == 3 and one.feature.feature == "age" for one in found)
        assert (report["causes"], code) == ({"late_event": times}, 0), "no fault of anybody's, and few"
        assert platform.stop() == 0


def kill_all(platform: Running) -> None:
    family = [platform.process.pid, *children_of(platform.process.pid)]
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    platform.process.wait()
    until(lambda: not any(map(is_alive, family)), "the platform is dead")
    (platform.folder / ".headrace" / "endpoints.json").unlink()


@pytest.mark.timeout(600)
def test_killed_platform_loses_no_durable_answer_and_doubles_none(tmp_path: Path) -> None:
    durable = 0
    for attempt in range(KILLS + 1):
        with running(tmp_path, "--served-log-share", "1") as platform:
            begun(platform)
            with Client(platform.endpoints["features"]) as client:
                client.write_features(VIEW, shop_batch(range(USERS)))
                for user in range(READS):
                    read(client, user)
                first = logged_end(platform)
                for user in range(READS):
                    read(client, user)
            if attempt == KILLS:
                until(lambda: logged_end(platform).next_offset >= 2 * READS * len(FEATURES), "all is logged")
                until(lambda: drained(platform), "all is offline")
                durable += logged_end(platform).next_offset
                assert platform.stop() == 0
            else:
                durable += first.next_offset
                kill_all(platform)
    found = logged(tmp_path)
    places = Counter((one.entity_key, str(one.feature), one.time_us, one.shard_epoch) for one in found)
    assert max(places.values()) == 1, "no read was of one user in one microsecond"
    assert len(found) >= durable
    assert len(found) % len(FEATURES) == 0


def test_log_for_nobody_is_refused(tmp_path: Path) -> None:
    refused = headrace("up", "--served-log-share", "0.5", "--no-offline", cwd=tmp_path)
    assert refused.returncode == 1
    assert "needs an offline store" in refused.stderr
    refused = headrace("up", "--served-log-share", "1.5", cwd=tmp_path)
    assert refused.returncode == 2
