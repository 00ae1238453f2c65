"""The client against a real platform: rows in from every library, features out, and what the server refuses."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from headrace.client import AsyncClient, Client, Durability, ReadOptions, ValueState
from headrace.errors import CallerError, InvalidArgument
from tests.integration.platforms import Running, headrace, running

SERVICE = "shop.ranking.homepage@v1"
VIEW = "shop.users.activity@v1"
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("client") / "project"
    assert headrace("init", str(folder), cwd=folder.parent).returncode == 0
    with running(folder) as started:
        applied = started.headrace("apply", "definitions.py")
        assert applied.returncode == 0, applied.stderr
        yield started


@pytest.fixture
def client(platform: Running) -> Iterator[Client]:
    with Client(platform.endpoints["features"]) as opened:
        yield opened


def frame(first: int, count: int, **columns: Any) -> pd.DataFrame:
    fields = {
        "user_id": np.arange(first, first + count),
        "event_time": pd.Series([pd.Timestamp(NOON)] * count),
        "country": [f"c{number}" for number in range(count)],
        "basket_value": np.arange(count) / 2,
        "visits": np.arange(count, dtype=np.int32),
    }
    return pd.DataFrame({**fields, **columns})


@pytest.mark.parametrize("durability", list(Durability))
def test_pandas_rows_are_read_back_in_every_form(client: Client, durability: Durability) -> None:
    first = 1_000_000 * int(durability)
    written = client.write_features(VIEW, frame(first, 25_000), durability=durability)
    assert (written.row_count, written.stale_count) == (25_000, 0)
    keys = np.arange(first, first + 10_000)
    options = ReadOptions(min_offsets=written.tokens, include_event_times=True)
    batch = client.get_online_features(SERVICE, entities={"user_id": keys}, options=options, timeout_s=30)
    assert np.array_equal(batch.numpy("basket_value"), np.arange(10_000) / 2)
    assert set(batch.states("visits").tolist()) == {ValueState.PRESENT}
    assert batch.to_pandas()["country"].tolist() == [f"c{number}" for number in range(10_000)]
    assert set(batch.event_times("visits").tolist()) == {NOON.replace(tzinfo=None)}


def test_prepared_and_named_reads_answer_the_same(client: Client) -> None:
    client.write_features(VIEW, frame(100, 5))
    keys = {"user_id": [100, None, 104, 999_999_999]}
    prepared = client.prepare("shop.ranking.homepage")
    by_handle, by_name = (client.get_online_features(which, entities=keys) for which in (prepared, SERVICE))
    assert by_handle.to_arrow().equals(by_name.to_arrow())
    assert by_handle.states("visits").tolist() == [1, 3, 1, 3]


def test_prepared_list_outlives_a_change_of_the_registry(platform: Running, client: Client, tmp_path: Path) -> None:
    client.write_features(VIEW, frame(150, 1))
    prepared = client.prepare(features=["shop.users.activity:visits"])
    change = tmp_path / "more.yaml"
    change.write_text(
        f"feature_services:\n- name: shop.ranking.more\n  owner: shop\n  entries:\n  - feature_view: {VIEW}\n"
    )
    applied = platform.headrace("apply", str(change))
    assert applied.returncode == 0, applied.stderr
    for _ in range(2):
        batch = client.get_online_features(prepared, entities={"user_id": [150]})
        assert batch.columns == ("shop.users.activity:visits",)
        assert batch.states("shop.users.activity:visits").tolist() == [ValueState.PRESENT]


def test_erased_entity_is_missing_for_the_reason_of_erasure(client: Client) -> None:
    client.write_features(VIEW, frame(200, 2))
    erased = client.delete_entity("shop.users.user", {"user_id": [200]})
    assert erased.entity_count == 1
    options = ReadOptions(min_offsets=erased.tokens)
    batch = client.get_online_features(SERVICE, entities={"user_id": [200, 201]}, options=options)
    assert batch.statuses("visits").tolist() == [0xC0 | ValueState.MISSING, ValueState.PRESENT]


def test_infinities_and_nan_are_values(client: Client) -> None:
    values = pa.array([float("nan"), float("inf"), float("-inf"), None])
    table = pa.Table.from_pandas(frame(300, 4), preserve_index=False)
    table = table.set_column(table.schema.get_field_index("basket_value"), "basket_value", values)
    client.write_features(VIEW, table)
    batch = client.get_online_features(SERVICE, entities={"user_id": np.arange(300, 304)})
    assert batch.states("basket_value").tolist() == [1, 1, 1, 2]
    assert np.array_equal(batch.numpy("basket_value")[:3], values.to_numpy(zero_copy_only=False)[:3], equal_nan=True)


@pytest.mark.parametrize(
    ("selection", "keys"),
    [
        ({"service": "shop.ranking.nothing"}, [1]),
        ({"service": "shop.ranking.homepage@v9"}, [1]),
        ({"features": [f"{VIEW}:nothing"]}, [1]),
        ({"features": ["no name"]}, [1]),
        ({"service": SERVICE}, ["text"]),
        ({"service": SERVICE}, []),
        ({"service": SERVICE}, list(range(10_001))),
    ],
    ids=["service", "version", "feature", "name", "key-type", "no-rows", "too-many-rows"],
)
def test_wrong_reads_are_refused_with_reason_and_the_server_goes_on(
    client: Client, selection: dict[str, Any], keys: list[Any]
) -> None:
    array = keys or np.array([], np.int64)
    with pytest.raises(CallerError) as caught:
        client.get_online_features(**selection, entities={"user_id": array})
    assert caught.value.reason == caught.value.reason.upper() != "TRANSPORT"
    assert client.get_online_features(SERVICE, entities={"user_id": [1]}).row_count == 1


@pytest.mark.parametrize(
    "column",
    [
        {"visits": ["text"]},
        {"visits": [1.5]},
        {"user_id": ["text"]},
        {"nothing": [1]},
        {"user_id": pd.Series([None], dtype="Int64")},
        {"event_time": pd.Series([pd.Timestamp("2200-01-01", tz="UTC")])},
    ],
    ids=["text", "float", "key-type", "unknown-column", "null-key", "far-future"],
)
def test_wrong_writes_are_refused_and_write_nothing(client: Client, column: dict[str, Any]) -> None:
    with pytest.raises(CallerError) as caught:
        client.write_features(VIEW, frame(400, 1, **column))
    assert caught.value.reason != "TRANSPORT"
    batch = client.get_online_features(SERVICE, entities={"user_id": [400]})
    assert batch.states("visits").tolist() == [ValueState.MISSING]


def test_naive_time_is_refused_before_it_is_sent(client: Client) -> None:
    naive = pd.Series([pd.Timestamp("2026-05-01")])
    with pytest.raises(InvalidArgument, match="without a zone"):
        client.write_features(VIEW, frame(500, 1, event_time=naive))


def test_asyncio_client_writes_and_reads_at_once(platform: Running) -> None:
    async def many() -> list[float]:
        async with AsyncClient(platform.endpoints["features"]) as client:
            await client.write_features(VIEW, frame(600, 50))
            reads = (client.get_online_features(SERVICE, entities={"user_id": [600 + number]}) for number in range(50))
            return [float(batch.numpy("basket_value")[0]) for batch in await asyncio.gather(*reads)]

    assert asyncio.run(many()) == [number / 2 for number in range(50)]
