"""As-of join against its twin: ties, cut-offs, tombstones, colliding hashes, threads, refusals."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from core_ext import asof, rules
from core_ext.arrow import arrow_column
from core_ext.keys import KeyBatch, encode_key, encode_keys
from core_ext.twin import asof as twin
from core_ext.twin.asof import HistoryRow
from headrace.types import Scalar, Shape, ValueType
from tests.unit.core_ext.rows import FIXED_WIDTH, array_of, values_of

KEYS = ["a", "b", "a longer key than one slot holds", "a longer key than one slot halds"]
TIMES = st.sampled_from([-(2**63), -2, -1, 0, 1, 2, 3, 2**63 - 1])
BYTES_OF = {key: encode_key([Scalar.STRING], [key]) for key in KEYS}


def keys_of(keys: list[str]) -> KeyBatch:
    return encode_keys([Scalar.STRING], [arrow_column(pa.array(keys, pa.string()))])


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


def feed(matches: asof.Matches, rows: list[HistoryRow], first_index: int, cutoff_us: int) -> None:
    def column(name: str, kind: type) -> Any:
        return np.array([getattr(row, name) for row in rows], kind)

    matches.feed(
        keys_of([row.key for row in rows]),  # type: ignore[misc]
        column("event_us", np.int64),
        first_index,
        cutoff_us,
        write_us=column("write_us", np.int64),
        available_us=column("available_us", np.int64),
        tombstones=column("tombstone", np.uint8),
        source_ids=column("source_id", np.uint32),
        partitions=column("partition", np.int32),
        offsets=column("offset", np.int64),
    )


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), TIMES), max_size=12),
    st.lists(history_rows(), max_size=100),
    TIMES,
    st.sampled_from([0, 1, 2, 2**63 - 1]),
    st.sampled_from([0, 1, 2**63 - 1]),
    st.sampled_from([0, 1, 64]),
    st.data(),
)
def test_the_join_equals_its_twin(
    spine: list[tuple[str, int]],
    history: list[HistoryRow],
    cutoff_us: int,
    ttl_us: int,
    stale_us: int,
    hash_bits: int,
    data: st.DataObject,
) -> None:
    table = asof.Spine(keys_of([key for key, _ in spine]), np.array([at for _, at in spine], np.int64), hash_bits)
    workers = [asof.Matches(table) for _ in range(3)]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=4)))
    for start, end in zip([0, *cuts], [*cuts, len(history)], strict=True):
        feed(data.draw(st.sampled_from(workers)), history[start:end], start, cutoff_us)
    first, *others = data.draw(st.permutations(workers))
    for other in others:
        first.merge(other)
    indexes, statuses = first.resolve(ttl_us, stale_us)
    rows = [row._replace(key=BYTES_OF[row.key]) for row in history]  # type: ignore[index]
    expected = twin.join([(BYTES_OF[key], at) for key, at in spine], rows, cutoff_us, ttl_us, stale_us)
    assert list(zip(indexes.tolist(), statuses.tolist(), strict=True)) == expected
    assert first.newest().tolist() == twin.newest([(BYTES_OF[key], at) for key, at in spine], rows, cutoff_us)
    assert (len(table), table.entity_count) == (len(spine), len({key for key, _ in spine}))


def test_absent_columns_follow_one_another() -> None:
    table = asof.Spine(keys_of(["a", "a", "a"]), np.array([1, 5, 7]))
    matches = asof.Matches(table)
    matches.feed(keys_of(["a", "a"]), np.array([5, 6]), 0, 5)
    assert matches.resolve(0, 0)[0].tolist() == [-1, 0, 0]  # written when it happened: 6 is past the cut-off
    matches.feed(keys_of(["a"]), np.array([0]), 2, 9, write_us=np.array([2]))
    assert matches.resolve(0, 0)[0].tolist() == [-1, 0, 0]  # available when written: not yet at 1
    matches.feed(keys_of(["a"]), np.array([0]), 3, 9, write_us=np.array([2]), available_us=np.array([1]))
    assert matches.resolve(0, 0)[0].tolist() == [3, 0, 0]


@given(
    st.lists(st.tuples(st.sampled_from([-(2**63), -1, 0, 7, 2**63 - 1]), TIMES), max_size=60),
    st.lists(st.tuples(st.sampled_from([-(2**63), -1, 0, 8, 2**63 - 1]), TIMES), max_size=80),
    st.sampled_from([0, 1, 64]),
)
def test_integers_are_the_keys_that_they_make(
    spine: list[tuple[int, int]], history: list[tuple[int, int]], hash_bits: int
) -> None:
    def keys(rows: list[tuple[int, int]]) -> KeyBatch:
        return encode_keys([Scalar.I64], [arrow_column(pa.array([key for key, _ in rows], pa.int64()))])

    table = asof.Spine(keys(spine), np.array([at for _, at in spine], np.int64), hash_bits)
    by_keys, by_integers = asof.Matches(table), asof.Matches(table)
    times = np.array([at for _, at in history], np.int64)
    by_keys.feed(keys(history), times, 0, 2**63 - 1)
    by_integers.feed(np.array([key for key, _ in history], np.int64), times, 0, 2**63 - 1)
    assert by_integers.resolve(0, 0)[0].tolist() == by_keys.resolve(0, 0)[0].tolist()


@given(
    st.lists(st.tuples(st.integers(-3, 3) | st.just(1_100), TIMES), max_size=40),
    st.lists(st.integers(-5, 5) | st.just(2**62), max_size=20),
    st.sampled_from([0, 1, 64]),
    st.booleans(),
)
def test_integers_that_lie_close_are_numbered_by_their_first_row(
    spine: list[tuple[int, int]], asked: list[int], hash_bits: int, as_keys: bool
) -> None:
    def keys(numbers: list[int]) -> KeyBatch:
        return encode_keys([Scalar.I64], [arrow_column(pa.array(numbers, pa.int64()))])

    first_rows: dict[int, int] = {}
    numbers = [first_rows.setdefault(key, len(first_rows)) for key, _ in spine]
    given_keys = [key for key, _ in spine]
    held = keys(given_keys) if as_keys else np.array(given_keys, np.int64)
    table = asof.Spine(held, np.array([at for _, at in spine], np.int64), hash_bits)
    entities, times = table.entities()
    assert (entities.tolist(), times.tolist()) == (numbers, [at for _, at in spine])
    assert table.entity_count == len(first_rows)
    assert table.find(keys(asked)).tolist() == [first_rows.get(key, -1) for key in asked]


def test_keys_of_few_slots_do_not_crowd_in_the_table() -> None:
    names = [f"user {number}" for number in range(200_000)]
    few = [name for name, slot in zip(names, keys_of(names).slots.tolist(), strict=True) if slot < 8]
    spine = asof.Spine(keys_of(few), np.zeros(len(few), np.int64))
    assert spine.entity_count == len(few) > 1_000
    assert spine.longest_search < 64  # by the low bits of their hashes it would be hundreds


def test_many_entities_and_times_are_found(seed: int) -> None:
    random = np.random.default_rng(seed)
    spine_keys, history_keys = random.integers(0, 3_000, 20_000), random.integers(0, 4_000, 50_000)
    spine_times, events = random.integers(0, 1_000, 20_000), random.integers(0, 1_000, 50_000)
    kind = [Scalar.I64]
    table = asof.Spine(encode_keys(kind, [arrow_column(pa.array(spine_keys))]), spine_times)
    matches = asof.Matches(table, has_ties=False)
    matches.feed(encode_keys(kind, [arrow_column(pa.array(history_keys))]), events, 0, 2**62)
    order = np.lexsort((-np.arange(len(events)), events, history_keys))
    combined = history_keys[order] * 1_000 + events[order]
    at = np.searchsorted(combined, spine_keys * 1_000 + spine_times, side="right") - 1
    found = np.where((at >= 0) & (history_keys[order][at] == spine_keys), order[at], -1)
    assert matches.resolve(0, 0)[0].tolist() == found.tolist()


@given(st.data())
def test_values_are_gathered_and_settled_as_by_the_twin(data: st.DataObject) -> None:
    kind = data.draw(
        st.one_of(
            st.tuples(st.sampled_from(FIXED_WIDTH), st.just(Shape.SINGLE), st.just(0)),
            st.tuples(st.sampled_from(FIXED_WIDTH), st.just(Shape.FIXED), st.integers(1, 5)),
        )
    )
    value_type = ValueType(*kind)
    stored = data.draw(st.lists(values_of(kind), min_size=1, max_size=8))
    skipped = data.draw(st.integers(0, len(stored) - 1))
    targets = data.draw(st.permutations(range(6)))[: data.draw(st.integers(0, 6))]
    sources = data.draw(st.lists(st.integers(0, len(stored) - skipped - 1), min_size=6, max_size=6))[: len(targets)]
    width = value_type.slot_bytes
    values, nulls = np.zeros(6 * width, np.uint8), np.ones(6, np.uint8)
    column = arrow_column(array_of(kind, stored).slice(skipped))
    described = (*kind, value_type.element_bytes)
    asof.gather(described, column, np.array(sources, np.int64), np.array(targets, np.int64), values, nulls)
    expected: list[Any] = [None] * 6
    for source, target in zip(sources, targets, strict=True):
        expected[target] = stored[skipped + source]
    assert nulls.tolist() == [one is None for one in expected]
    of_rows = np.array(data.draw(st.lists(st.sampled_from([1, 3, 4, 0x21, 0xC3]), min_size=6, max_size=6)), np.uint8)
    choice = (data.draw(st.sampled_from([1, 2, 3])), data.draw(st.booleans()), data.draw(st.booleans()))
    default = bytes([1]) * width if choice[1] else None
    raw = [values[i * width : (i + 1) * width].tobytes() for i in range(6)]
    statuses, slots = asof.settle(of_rows, nulls, choice[0], default, choice[2], values)
    settled = twin.settle(of_rows.tolist(), [one is None for one in expected], *choice)
    assert list(zip(statuses.tolist(), slots.tolist(), strict=True)) == settled
    for i, (_, slot) in enumerate(settled):
        held = values[i * width : (i + 1) * width].tobytes()
        assert held == {rules.SLOT_VALUE: raw[i], rules.SLOT_DEFAULT: default, rules.SLOT_EMPTY: bytes(width)}[slot]
        if slot == rules.SLOT_VALUE:
            assert held == bytes_of(kind, expected[i])


def bytes_of(kind: tuple[int, int, int], value: Any) -> bytes:
    elements = value if kind[1] == Shape.FIXED else [value]
    if kind[0] == Scalar.BOOL:
        return bytes(elements)
    width = ValueType(Scalar(kind[0])).element_bytes * len(elements)
    return bytes(pa.array(elements, ValueType(Scalar(kind[0])).arrow).buffers()[1].to_pybytes()[:width])


def test_wrong_sizes_are_refused() -> None:
    two, one = keys_of(["a", "b"]), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="1 times are given for 2 keys"):
        asof.Spine(two, one)
    with pytest.raises(ValueError, match="2 times are given for 1 keys"):
        asof.Spine(one, np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="0 to 64 bits"):
        asof.Spine(two, np.zeros(2, np.int64), 65)
    table = asof.Spine(two, np.zeros(2, np.int64))
    matches = asof.Matches(table)
    with pytest.raises(ValueError, match="1 event times are given for 2 keys"):
        matches.feed(two, one, 0, 0)
    with pytest.raises(ValueError, match="write_us holds 1 rows, and there are 2 keys"):
        matches.feed(two, np.zeros(2, np.int64), 0, 0, write_us=one)
    for index in (-1, 2**62):
        with pytest.raises(ValueError, match="first_index"):
            matches.feed(two, np.zeros(2, np.int64), index, 0)
    with pytest.raises(ValueError, match="another spine"):
        matches.merge(asof.Matches(asof.Spine(two, np.zeros(2, np.int64))))


def test_matches_without_ties_refuse_what_would_need_them() -> None:
    table, one = asof.Spine(keys_of(["a"]), np.zeros(1, np.int64)), np.zeros(1, np.int64)
    matches = asof.Matches(table, has_ties=False)
    with pytest.raises(ValueError, match="only the event time orders"):
        matches.feed(keys_of(["a"]), one, 0, 0, write_us=one)
    with pytest.raises(ValueError, match="with and without ties"):
        matches.merge(asof.Matches(table))


def test_what_does_not_fit_is_not_gathered() -> None:
    column = arrow_column(pa.array([1, 2], pa.int64()))
    kind, values, nulls = (Scalar.I64, Shape.SINGLE, 0, 8), np.zeros(16, np.uint8), np.zeros(2, np.uint8)
    for source, target in [(2, 0), (-1, 0), (0, 2), (0, -1)]:
        with pytest.raises(ValueError, match="out of range"):
            asof.gather(kind, column, np.array([source]), np.array([target]), values, nulls)
    with pytest.raises(ValueError, match="do not fit together"):
        asof.gather(kind, column, np.array([0]), np.array([0]), values[:8], nulls)
    with pytest.raises(ValueError, match="too short"):
        asof.gather(kind, column._replace(length=3), np.array([2]), np.array([0]), values, nulls)
    with pytest.raises(ValueError, match="fixed width"):
        asof.gather((Scalar.STRING, Shape.SINGLE, 0, 0), column, np.array([0]), np.array([0]), values, nulls)
    with pytest.raises(ValueError, match="2 nulls are given for 1 rows"):
        asof.settle(np.ones(1, np.uint8), nulls, 1, None, False)
    with pytest.raises(ValueError, match="do not fit together"):
        asof.settle(np.ones(2, np.uint8), nulls, 1, b"1", False, values)


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), TIMES), max_size=70),
    st.lists(st.sampled_from([*KEYS, "unknown"]), max_size=70),
    st.sampled_from([0, 1, 64]),
)
def test_entities_are_numbered_by_their_first_row(
    spine: list[tuple[str, int]], asked: list[str], hash_bits: int
) -> None:
    table = asof.Spine(keys_of([key for key, _ in spine]), np.array([at for _, at in spine], np.int64), hash_bits)
    numbers = twin.numbered([BYTES_OF[key] for key, _ in spine])
    entities, times = table.entities()
    assert entities.tolist() == [numbers[BYTES_OF[key]] for key, _ in spine]
    assert times.tolist() == [at for _, at in spine]
    assert table.find(keys_of(asked)).tolist() == [numbers.get(encode_key([Scalar.STRING], [key]), -1) for key in asked]
