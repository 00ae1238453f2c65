"""Sweeps over histories in order against the twin of the as-of join: any cut, any mixture with rows out of order."""

from typing import Any, Final

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from core_ext.arrow import arrow_column
from core_ext.asof import Matches, Spine
from core_ext.keys import KeyBatch, encode_key, encode_keys
from core_ext.sweeps import Queries, Resolution, Sweep, arranged
from core_ext.twin import asof as twin
from core_ext.twin.asof import HistoryRow
from headrace.types import Scalar

KEYS: Final = ["a", "b", "a longer key than one slot holds", "a longer key than one slot halds"]
BYTES_OF: Final = {key: encode_key([Scalar.STRING], [key]) for key in KEYS}
TIMES: Final = st.sampled_from([-(2**63), -2, -1, 0, 1, 2, 3, 2**63 - 1])
KINDS: Final = {
    "write_us": np.int64,
    "available_us": np.int64,
    "tombstone": np.uint8,
    "source_id": np.uint32,
    "partition": np.int32,
    "offset": np.int64,
}


def string_keys(keys: list[str]) -> KeyBatch:
    return encode_keys([Scalar.STRING], [arrow_column(pa.array(keys, pa.string()))])


def integer_keys(keys: list[int]) -> KeyBatch:
    return encode_keys([Scalar.I64], [arrow_column(pa.array(keys, pa.int64()))])


def history_rows() -> st.SearchStrategy[HistoryRow]:
    return st.builds(
        HistoryRow,
        key=st.sampled_from(KEYS),
        event_us=TIMES,
        write_us=TIMES,
        source_id=st.sampled_from([0, 2**32 - 1]),
        partition=st.sampled_from([-1, 0]),
        offset=st.sampled_from([-1, 0, 2**63 - 1]),
        available_us=TIMES,
        tombstone=st.booleans(),
    )


def given_to(to: Sweep | Matches, rows: list[HistoryRow], first_index: int, cutoff_us: int) -> bool:
    """Whether a table took some rows with all that orders them."""
    columns = {name: np.array([getattr(row, name) for row in rows], kind) for name, kind in KINDS.items()}
    renamed = {"tombstone": "tombstones", "source_id": "source_ids", "partition": "partitions", "offset": "offsets"}
    order: dict[str, Any] = {renamed.get(name, name): column for name, column in columns.items()}
    keys = string_keys([row.key for row in rows])  # type: ignore[misc]
    return (
        to.feed(keys, np.array([row.event_us for row in rows], np.int64), first_index, cutoff_us, **order) is not False
    )


def resolved(
    queries: Queries, sweeps: list[Sweep], matches: Matches | None, count: int, ttl_us: int = 0, stale_us: int = 0
) -> list[tuple[int, int]]:
    """Index and status of every row, in parts of three."""
    indexes, statuses = np.full(count, -9), np.full(count, 99, np.uint8)
    resolution = Resolution(queries, sweeps, matches)
    for start in range(0, count, 3):
        resolution.part(start, min(start + 3, count), ttl_us, stale_us, indexes, statuses)
    return list(zip(indexes.tolist(), statuses.tolist(), strict=True))


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), TIMES), max_size=12),
    st.lists(history_rows(), max_size=60),
    TIMES,
    st.sampled_from([0, 1, 2, 2**63 - 1]),
    st.sampled_from([0, 64]),
    st.data(),
)
def test_sweeps_and_rows_out_of_order_equal_the_twin(
    spine: list[tuple[str, int]],
    history: list[HistoryRow],
    cutoff_us: int,
    ttl_us: int,
    hash_bits: int,
    data: st.DataObject,
) -> None:
    if data.draw(st.booleans()):
        history = sorted(history, key=twin.seen_us)
    table = Spine(string_keys([key for key, _ in spine]), np.array([at for _, at in spine], np.int64), hash_bits)
    queries, matches = Queries(table), Matches(table)
    sweeps = [Sweep(queries) for _ in range(3)]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=8)))
    for start, end in zip([0, *cuts], [*cuts, len(history)], strict=True):
        if not given_to(data.draw(st.sampled_from(sweeps)), history[start:end], start, cutoff_us):
            assert given_to(matches, history[start:end], start, cutoff_us)
    rows = [row._replace(key=BYTES_OF[row.key]) for row in history]  # type: ignore[index]
    asked = [(BYTES_OF[key], at) for key, at in spine]
    expected = twin.join(asked, rows, cutoff_us, ttl_us, 1)
    order = data.draw(st.permutations(sweeps))
    assert resolved(queries, order, matches, len(spine), ttl_us, 1) == expected


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 40)), max_size=40),
    st.lists(st.tuples(st.integers(-3, 4), st.integers(0, 40)), max_size=80),
    st.sampled_from([0, 2**62]),
    st.integers(1, 30),
)
def test_integers_close_together_and_far_apart(
    spine: list[tuple[int, int]], history: list[tuple[int, int]], distance: int, batch_rows: int
) -> None:
    def key(number: int) -> int:  # the ends of the range, where differences leave the 64 bits
        return number if distance == 0 else max(-(2**63), min(2**63 - 1, number * distance))

    history = sorted(history, key=lambda row: row[1])
    table = Spine(integer_keys([key(one) for one, _ in spine]), np.array([at for _, at in spine], np.int64))
    queries = Queries(table)
    sweep = Sweep(queries, has_ties=False)
    for start in range(0, len(history), batch_rows):
        part = history[start : start + batch_rows]
        times = np.array([at for _, at in part], np.int64)
        assert sweep.feed(np.array([key(one) for one, _ in part], np.int64), times, start, 2**63 - 1)
    rows = [HistoryRow(str(key(one)).encode(), at, at, available_us=at) for one, at in history]
    expected = twin.join([(str(key(one)).encode(), at) for one, at in spine], rows, 2**63 - 1, 0, 0)
    assert resolved(queries, [sweep], None, len(spine)) == expected
    different = {key(one) for one, _ in spine}
    assert queries.is_dense == (len(different) > 0 and max(different) - min(different) < 4 * len(different) + 1024)


def test_many_rows_in_parts_equal_matches(seed: int) -> None:
    random = np.random.default_rng(seed)
    count, entities = 60_000, 5_000
    table = Spine(integer_keys(list(random.integers(0, entities, 30_000))), random.integers(0, 10_000, 30_000))
    events, keys = np.sort(random.integers(0, 10_000, count)), random.integers(0, entities + 100, count)
    queries, matches = Queries(table), Matches(table, has_ties=False)
    matches.feed(keys, events, 0, 2**62)
    sweeps = []
    for part in np.array_split(np.arange(count), 5):
        sweep = Sweep(queries, has_ties=False)
        for rows in np.array_split(part, 7):
            assert sweep.feed(keys[rows], events[rows], int(rows[0]), 2**62)
        sweeps.append(sweep)
    indexes, statuses = matches.resolve(500, 100)
    found = resolved(queries, sweeps, None, len(table), 500, 100)
    assert found == list(zip(indexes.tolist(), statuses.tolist(), strict=True))


def test_a_batch_out_of_order_changes_nothing() -> None:
    queries = Queries(Spine(integer_keys([1, 1]), np.array([5, 9])))
    sweep = Sweep(queries, has_ties=False)
    ones = np.array([1, 1])
    assert sweep.feed(ones, np.array([3, 4]), 0, 99)
    assert not sweep.feed(ones, np.array([8, 7]), 2, 99)  # not within itself
    assert not sweep.feed(ones, np.array([3, 9]), 2, 99)  # not after the one before
    assert sweep.feed(ones, np.array([4, 6]), 2, 99)  # the same time again is in order
    assert [index for index, _ in resolved(queries, [sweep], None, 2)] == [1, 3]  # of equal rows the first counts


@given(st.lists(st.integers(-1, 5) | st.integers(-1, 2**62)), st.integers(0, 6), st.sampled_from([6, 2**40, 2**63 - 1]))
def test_indexes_are_arranged(indexes: list[int], low: int, high: int) -> None:
    sources, places = arranged(np.array(indexes, np.int64), low, high)
    expected = sorted((index, place) for place, index in enumerate(indexes) if low <= index < high)
    assert list(zip(sources.tolist(), places.tolist(), strict=True)) == expected


def test_parts_that_do_not_belong_together_are_refused() -> None:
    spine, other = (Spine(integer_keys([1]), np.array([1])) for _ in range(2))
    queries = Queries(spine)
    indexes, statuses = np.zeros(1, np.int64), np.zeros(1, np.uint8)
    with pytest.raises(ValueError, match="over other queries"):
        Resolution(queries, [Sweep(Queries(spine))])
    with pytest.raises(ValueError, match="another spine"):
        Resolution(queries, [], Matches(other))
    with pytest.raises(ValueError, match="with and without ties"):
        Resolution(queries, [Sweep(queries)], Matches(spine, has_ties=False))
    with pytest.raises(ValueError, match="without ties"):
        Sweep(queries, has_ties=False).feed(np.array([1]), np.array([1]), 0, 9, write_us=np.array([1]))
    for start, end in [(-1, 1), (1, 0), (0, 2)]:
        with pytest.raises(ValueError, match="do not fit"):
            Resolution(queries, []).part(start, end, 0, 0, indexes, statuses)
    with pytest.raises(ValueError, match="do not fit"):
        Resolution(queries, []).part(0, 1, 0, 0, np.zeros(2, np.int64), statuses)
    for low, high in [(-1, 1), (2, 1)]:
        with pytest.raises(ValueError, match="no range"):
            arranged(indexes, low, high)
