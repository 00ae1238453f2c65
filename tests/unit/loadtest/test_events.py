"""The generator of events: equal seeds give equal events, with the shares and the skew that it was asked for."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest

from loadtest.events.encoding import arrow_message, json_messages
from loadtest.events.generator import BLOCK, LATE_US_MAX, START_US, Generator
from loadtest.events.shapes import COLUMNS, NEWSFEED_ITEMS, Shape, definitions


@pytest.mark.parametrize("shape", Shape)
def test_equal_seeds_give_equal_events_however_they_are_cut(shape: Shape) -> None:
    whole = Generator(shape, 7).batch(10_000)
    parts = list(Generator(shape, 7).batches(10_000, 777))
    assert pa.concat_batches(parts).equals(whole)
    assert not Generator(shape, 8).batch(10_000).equals(whole)
    assert whole.schema.names == ["event_time", *COLUMNS[shape].types]


def test_late_and_repeated_events_have_their_shares() -> None:
    events = Generator(Shape.CLICKS, 1, rate=1_000, late_share=0.1, duplicate_share=0.05).batch(20 * BLOCK)
    times = events.column("event_time").cast(pa.int64()).to_numpy()
    newest = np.maximum.accumulate(times)
    assert 0.08 < float((times < newest).mean()) < 0.12
    assert int((newest - times).max()) <= LATE_US_MAX
    rows = events.to_pylist()
    repeated = sum(one == other for one, other in itertools.pairwise(rows))
    assert 0.04 < repeated / len(rows) < 0.06


def test_event_times_run_at_the_rate() -> None:
    events = Generator(Shape.SENSORS, 1, rate=100.0, late_share=0, duplicate_share=0).batch(1_001)
    times = events.column("event_time").cast(pa.int64()).to_numpy()
    assert (times[0], times[-1]) == (START_US, START_US + 10_000_000)


def test_keys_are_heavy_tailed_and_within_their_count() -> None:
    keys = (
        Generator(Shape.TRANSACTIONS, 3, key_counts={"account_id": 1_000}).batch(50_000).column("account_id").to_numpy()
    )
    assert keys.min() >= 1 and keys.max() <= 1_000
    _, counts = np.unique(keys, return_counts=True)
    counts = np.sort(counts)[::-1]
    assert counts[0] > 0.1 * len(keys)
    assert counts[:10].sum() > 5 * counts[100:110].sum()


def test_a_newsfeed_call_has_one_user_and_its_items() -> None:
    user, items = Generator(Shape.CLICKS, 1).newsfeed(np.random.default_rng(5))
    assert user >= 1 and items.shape == (NEWSFEED_ITEMS,)


@pytest.mark.parametrize("shape", Shape)
def test_messages_hold_the_same_events(shape: Shape) -> None:
    events = Generator(shape, 2).batch(50)
    assert pa.ipc.open_stream(arrow_message(events)).read_all().to_batches()[0].equals(events)
    found = [json.loads(message) for message in json_messages(events)]
    times = events.column("event_time").cast(pa.int64())
    assert found == events.set_column(0, "event_time", times).to_pylist()


@pytest.mark.parametrize("shape", Shape)
def test_every_view_of_a_shape_has_twenty_features(shape: Shape) -> None:
    made = definitions(shape, "topic", "json")
    assert {len(view.features) for view in made.feature_views} == {20}
    assert len(made.feature_views) == len(COLUMNS[shape].keys)
