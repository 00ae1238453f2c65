"""A materialisation of windows that is killed by the system goes on and ends with the values from before the loss."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest

from headrace.client import Client, RegistryClient
from headrace.definitions import (
    Column,
    DefinitionSet,
    Feature,
    FeatureService,
    FeatureView,
    ServiceEntry,
    Source,
    latest,
    window,
)
from headrace.errors import HeadraceError
from tests.integration.platforms import ROOT, Running, environment, running, until
from tests.integration.test_computed_platform import drained
from tests.unit.feature_server.parts import ENTITY, OWNER, shop_definitions

USERS: Final = 40_000
EVENTS, VIEW, SERVICE = "shop.web.clicks", "shop.web.clicked", "shop.web.clicking"
FEATURES: Final = [
    Feature("clicks", "i64", window("count", over="30d", hop="1d")),
    Feature("total", "f64", window("sum", "price", over="30d", hop="1d")),
    Feature("price", "f64", latest("price")),
]


def definitions() -> DefinitionSet:
    shop = shop_definitions()
    columns = [Column("user_id", "i64"), Column("event_time", "timestamp_us"), Column("price", "f64")]
    view = FeatureView(name=VIEW, owner=OWNER, entity=ENTITY, source=EVENTS, features=FEATURES)
    service = FeatureService(name=SERVICE, owner=OWNER, entries=[ServiceEntry(f"{VIEW}@v1", [])])
    return replace(
        shop,
        sources=[*shop.sources, Source(name=EVENTS, owner=OWNER, columns=columns)],
        feature_views=[*shop.feature_views, view],
        feature_services=[*shop.feature_services, service],
    )


def clicks(seed: int, count: int) -> pa.RecordBatch:
    random = np.random.default_rng(seed)
    now_us = time.time_ns() // 1_000
    return pa.record_batch(
        {
            "user_id": random.integers(0, USERS, count),
            "event_time": pa.array(now_us - random.integers(0, 10**12, count), pa.timestamp("us", "UTC")),
            "price": random.random(count),
        }
    )


def answers(platform: Running) -> list[dict[str, Any]]:
    with Client(platform.endpoints["features"]) as client:
        until(lambda: is_known(client), "the registry arrives")
        found: list[dict[str, Any]] = []
        for first in range(0, USERS, 5_000):
            users = list(range(first, first + 5_000))
            found += client.get_online_features(SERVICE, entities={"user_id": users}).to_arrow().to_pylist()
        return found


def is_known(client: Client) -> bool:
    try:
        client.prepare(SERVICE)
    except HeadraceError:
        return False
    return True


def has_rows(platform: Running) -> bool:
    with Client(platform.endpoints["features"]) as client:
        found = client.get_online_features(SERVICE, entities={"user_id": list(range(5_000))}).to_arrow()
        missing: int = found["price"].null_count
        return missing < 5_000


@pytest.mark.timeout(300)
def test_killed_materialisation_goes_on_and_writes_meanwhile_count_once(tmp_path: Path, seed: int) -> None:
    batches = [clicks(seed + number, 50_000) for number in range(3)]
    with running(tmp_path) as platform:
        with RegistryClient(platform.endpoints["control"]) as registry:
            registry.apply(definitions())
        with Client(platform.endpoints["features"]) as client:
            until(lambda: is_known(client), "the registry arrives")
            for batch in batches[:2]:
                client.write_features(f"{VIEW}@v1", batch)
        until(lambda: drained(platform), "the worker drains")
        before = answers(platform)
        assert platform.stop() == 0
    (tmp_path / ".headrace" / "feature_server").rename(tmp_path / "lost")
    with running(tmp_path) as platform:
        lost = answers(platform)
        assert all(row["price"] is None for row in lost)
        command = [sys.executable, "-m", "batch.materialize", VIEW, "--data", platform.endpoints["lake"]]
        command += ["--registry", platform.endpoints["control"], "--features", platform.endpoints["features"]]
        with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL) as job:
            until(lambda: has_rows(platform), "the first rows are online")
            job.kill()
        assert job.returncode == -9
        assert any(row["price"] is None for row in answers(platform)[-5_000:]), "it was killed before its end"
        done = platform.headrace("materialize", VIEW, "--from", "offline", "-o", "json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["row_count"] >= len({row for row, one in enumerate(before) if one["price"] is not None})
        assert told["stale_count"] > 0, "what the killed one had brought"
        assert answers(platform) == before
        with Client(platform.endpoints["features"]) as client:
            client.write_features(f"{VIEW}@v1", batches[2])
        counts = np.bincount(np.asarray(batches[2]["user_id"]), minlength=USERS).tolist()
        after = answers(platform)
        assert [row["clicks"] for row in after] == [
            row["clicks"] + count for row, count in zip(before, counts, strict=True)
        ]
        again = platform.headrace("materialize", VIEW, "--from", "offline", "-o", "json")
        assert (again.returncode, json.loads(again.stdout)["row_count"]) == (0, 0)
        assert answers(platform) == after
