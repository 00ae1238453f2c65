"""`headrace explain` on a whole platform: what is served, what history says of the same time, and why they differ."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.client import Client, RegistryClient
from headrace.client.shards import ShardClient
from headrace.errors import HeadraceError
from tests.integration.platforms import Running, running, until
from tests.integration.test_computed_parity import SERVICE, WINDOWED, Shop, definitions

USER = 5


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("explained")) as started:
        with RegistryClient(started.endpoints["control"]) as registry:
            registry.apply(definitions())
        with Client(started.endpoints["features"]) as client:
            until(lambda: is_known(client), "the registry arrives")
            shop = Shop(seed)
            for _ in range(5):
                client.write_features(f"{WINDOWED}@v1", shop.batch(time.time_ns() // 1_000))
        until(lambda: is_drained(started), "the worker drains")
        yield started


def is_known(client: Client) -> bool:
    try:
        client.prepare(SERVICE)
    except HeadraceError:
        return False
    return True


def is_drained(platform: Running) -> bool:
    with ShardClient(platform.endpoints["features"]) as shards:
        logs = [shard.row_log for shard in shards.list()[1]]
    return all(log is not None and log.acknowledged == log.end for log in logs)


def told(platform: Running, *words: str) -> dict[str, Any]:
    done = platform.headrace("explain", *words, "-o", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("feature", ["w2_2h", "w12_3d", "level", "share"])
def test_history_says_what_was_served_at_that_time(platform: Running, feature: str) -> None:
    now = told(platform, f"{WINDOWED}:{feature}", "--entity", str(USER))
    assert now["reasons"]
    at = time_text(now["read_time_us"])
    then = told(platform, f"{WINDOWED}@v1:{feature}", "--entity", f"user_id={USER}", "--at", at)
    assert then["at"]["time_us"] == now["read_time_us"]
    assert (then["at"]["state"], then["at"]["status"]) == (now["state"], now["status"])
    if now["has_value"]:
        assert repr(then["at"]["value"]) == repr(now["value"])
    assert [run["kind"] for run in then["runs"]] == ["drain"]
    if feature.startswith("w"):
        assert now["window"]["event_count"] == sum(tile["event_count"] for tile in now["window"]["tiles"])
        assert now["row"]["tile_map_bytes"] > 0


@pytest.mark.timeout(300)
def test_people_read_sentences(platform: Running) -> None:
    done = platform.headrace("explain", f"{WINDOWED}:w0_2h", "--entity", str(USER), "--at", "2020-01-01Z")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{WINDOWED}@v1:w0_2h of user_id={USER}, read at 20")
    assert "transform  count() over 2h hop 10m" in lines
    assert any(line.split()[:5] == ["TILE", "AFTER", "WIDTH", "EVENTS", "UP"] for line in lines)
    assert "at 2020-01-01T00:00:00Z, by the offline store" in lines
    assert any(line.startswith("why        its window was (2019-12-31T22:00:00Z, ") for line in lines)


def test_an_unknown_entity_is_explained_too(platform: Running) -> None:
    found = told(platform, f"{WINDOWED}:level", "--entity", "777")
    assert [reason["code"] for reason in found["reasons"]][:2] == ["NO_ROW", "UNKNOWN_ENTITY"]
    assert [run["kind"] for run in found["runs"]] == ["drain"]


WRONG = {
    "two entities": ((f"{WINDOWED}:level", "--entity", "user_id=1,2"), "ONE_ENTITY"),
    "no number": ((f"{WINDOWED}:level", "--entity", "abc"), "ENTITY_KEY_TYPE"),
    "a feature": ((f"{WINDOWED}:levl", "--entity", "1"), "UNKNOWN_FEATURE"),
    "a time": ((f"{WINDOWED}:level", "--entity", "1", "--at", "2026-01-01T00:00"), "NAIVE_TIME"),
    "a lake": ((f"{WINDOWED}:level", "--entity", "1", "--at", "2026-01-01Z", "--lake", "none"), "1 NO_LAKE"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_one_line(platform: Running, case: str) -> None:
    words, reason = WRONG[case]
    done = platform.headrace("explain", *words)
    if case == "a lake":  # what is served is explained all the same
        assert (done.returncode, "holds no offline store" in done.stdout) == (0, True)
        return
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert f"[{reason}]" in done.stderr
    assert platform.headrace("explain", WINDOWED).returncode == 2


def time_text(time_us: int) -> str:
    seconds, rest = divmod(time_us, 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:06}Z"


def test_storage_tells_what_each_version_takes(platform: Running) -> None:
    done = platform.headrace("storage", "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first = found["views"][0]
    assert (first["feature_view"], first["owner"], first["is_retired"]) == (f"{WINDOWED}@v1", "shop", False)
    assert 0 < first["row_count"] < 100
    assert [first[name] for name in ("logged_count", "tombstone_count", "reclaimable_bytes")] == [0, 0, 0]
    assert [shard["shard"] for shard in found["shards"]] == list(range(8))
    assert all(shard["disk_bytes"] > 0 and not shard["problem"] for shard in found["shards"])
    one = platform.headrace("storage", "--shard", "3", "--by-shard", "--reclaim")
    assert one.returncode == 0, one.stderr
    lines = one.stdout.splitlines()
    assert lines[0].split()[:4] == ["SHARD", "VIEW", "OWNER", "BYTES"]
    assert lines[-2].startswith("1 shards: ")
    assert lines[-1].startswith("took away 0 rows of retired versions")
    wrong = platform.headrace("storage", "--shard", "8")
    assert (wrong.returncode, "[UNKNOWN_SHARD]" in wrong.stderr) == (1, True)
