"""A view of windows on a whole platform: written and read online, joined by command and notebook, frozen by command."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.client import Client, RegistryClient
from headrace.client.shards import ShardClient
from headrace.errors import HeadraceError
from headrace.history import get_historical
from tests.integration.platforms import Running, running, until
from tests.integration.test_computed_parity import (
    FILTERED,
    FILTERED_COLUMNS,
    SERVICE,
    WINDOWED,
    Answers,
    Shop,
    bits_of,
    definitions,
    differences,
)


def drained(platform: Running) -> bool:
    with ShardClient(platform.endpoints["features"]) as shards:
        logs = [shard.row_log for shard in shards.list()[1]]
    return all(log is not None and log.acknowledged == log.end for log in logs)


def told(platform: Running, *words: str) -> dict[str, Any]:
    done = platform.headrace(*words, "-o", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(300)
def test_commands_and_notebooks_say_what_the_server_says(tmp_path: Path, seed: int) -> None:
    shop, answers = Shop(seed), Answers()
    with running(tmp_path) as platform:
        with RegistryClient(platform.endpoints["control"]) as registry:
            registry.apply(definitions())
        with Client(platform.endpoints["features"]) as client:
            until(lambda: is_known(client), "the registry arrives")
            for _ in range(5):
                batch = shop.batch(time.time_ns() // 1_000)
                client.write_features(f"{WINDOWED}@v1", batch)
                client.write_features(f"{FILTERED}@v1", batch.select(FILTERED_COLUMNS))
                answers.add(client)
        until(lambda: drained(platform), "the worker drains")
        order = list(range(len(answers.users)))
        entities = answers.spine(tmp_path / "entities.parquet", order)
        words = ("--entities", entities, "--service", SERVICE)
        joined = told(platform, "offline", "get-historical", *words, "--out", str(tmp_path / "out.parquet"))
        count, wrong = differences(answers, str(tmp_path / "out.parquet"), order)
        assert (count > 5_000, wrong[:5]) == (True, [])
        spark = ("--engine", "spark", "--out", str(tmp_path / "spark"))
        assert told(platform, "offline", "get-historical", *words, *spark)["digest"] == joined["digest"]
        own = told(platform, "materialize", WINDOWED, "--from", "offline", "--spark-master", "local[2]")
        assert own["row_count"] == 0, "what the store logged itself is online"
        made = told(platform, "training-set", "create", "week", *words)
        assert made["digest"] == joined["digest"]
        assert told(platform, "training-set", "verify", "week")["same"]
        assert told(platform, "training-set", "rebuild", "week")["digest"] == made["digest"]
        place = {"lake": str(platform.endpoints["lake"]), "registry": platform.endpoints["control"]}
        frame = get_historical(pq.read_table(entities), SERVICE, **place)
        assert bits(frame) == bits(pq.read_table(tmp_path / "out.parquet"))
        one = get_historical(pq.read_table(entities), [f"{WINDOWED}@v1:share"], **place)
        assert bits(one)[f"{WINDOWED}@v1:share"] == bits(frame)["share"]


def bits(table: pa.Table) -> dict[str, list[Any]]:  # Any: of many types
    """Values of every column, floats as their bits."""
    return {name: bits_of(table[name].combine_chunks()) for name in table.column_names}


def is_known(client: Client) -> bool:
    """Whether the server has the service."""
    try:
        client.prepare(SERVICE)
    except HeadraceError:
        return False
    return True
