"""The row table against its twin, step by step: fills, writes, evictions, memory, and the races between them."""

import random
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from core_ext.request_core import Misses, Plan, RequestCore
from core_ext.row_codec import Schema, check_row
from core_ext.row_table import NEWER, NOT_NEWER, UNKNOWN, RowTable
from core_ext.twin import row_table as twin
from tests.unit.core_ext.request_samples import (
    F64,
    I64,
    SINGLE,
    STRING,
    KeyColumn,
    Sample,
    pack_row,
    request_bytes,
    storage_key,
)

SCHEMA = [(I64, SINGLE, 0), (STRING, SINGLE, 0)]
CAPACITY_BYTES_MIN = 1 << 18
SEGMENTS = 64


def key(entity: int, view: int = 1) -> bytes:
    return storage_key(1, [(I64, entity)], view)


def row(number: int, text_bytes: int = 0, order: tuple[int, int, int, int] = (0, 0, 0, 0)) -> bytes:
    return pack_row(3, SCHEMA, [struct.pack("<q", number), b"t" * text_bytes], number, order)


ENTITIES = st.integers(0, 7)
VIEWS = st.integers(1, 3)
KEYS = st.lists(st.tuples(ENTITIES, VIEWS), min_size=1, max_size=6)


class AgainstItsTwin(RuleBasedStateMachine):
    """A table that never evicts holds, drops and compares what its twin does."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.twin = RowTable(8 << 20), twin.RowTable()
        self.storage: dict[bytes, bytes] = {}
        self.reads: list[tuple[int, int, list[bytes], list[bytes | None]]] = []
        self.version = 0

    @rule(pairs=KEYS)
    def begin_to_read(self, pairs: list[tuple[int, int]]) -> None:
        keys = [key(*pair) for pair in pairs]
        tickets = self.table.ticket(), self.twin.ticket()
        self.reads.append((*tickets, keys, [self.storage.get(one) for one in keys]))

    @rule(pick=st.integers(0, 99))
    def fill_what_was_read(self, pick: int) -> None:
        if self.reads:
            ticket, twin_ticket, keys, rows = self.reads.pop(pick % len(self.reads))
            # A batch is entered entity by entity: the twin must be given neighbours together, too.
            assert self.table.fill(keys, rows, ticket) == self.twin.fill(keys, rows, twin_ticket)

    @rule(pairs=KEYS, text_bytes=st.sampled_from([0, 5, 3000]))
    def write(self, pairs: list[tuple[int, int]], text_bytes: int) -> None:
        keys = [key(*pair) for pair in pairs]
        self.version += 1
        rows = [row(self.version * 100 + number, text_bytes) for number in range(len(keys))]
        self.storage.update(zip(keys, rows, strict=True))
        self.table.apply(keys, rows)
        self.twin.apply(keys, rows)

    @rule()
    def clear(self) -> None:
        self.table.clear()
        self.twin.clear()

    @rule(pair=st.tuples(ENTITIES, VIEWS), event_time=st.integers(0, 3000), order=st.tuples(*[st.integers(0, 1)] * 4))
    def compare(self, pair: tuple[int, int], event_time: int, order: tuple[int, int, int, int]) -> None:
        one, other = [key(*pair)], [row(event_time, order=order)]
        assert self.table.compare(one, other) == self.twin.compare(one, other)

    @invariant()
    def rows_equal(self) -> None:
        keys = [key(entity, view) for entity in range(8) for view in range(1, 5)]
        found = self.table.lookup(keys)
        assert found == self.twin.lookup(keys)
        for one, held in zip(keys, found, strict=True):
            assert held == UNKNOWN or held == self.storage.get(one)

    @invariant()
    def counts_equal(self) -> None:
        stats = self.table.stats()
        assert (stats["entity_count"], stats["row_count"]) == self.twin.counts()
        assert stats["eviction_count"] == 0


class UnderEviction(RuleBasedStateMachine):
    """A table too small for its rows may forget, but what it knows is what storage holds."""

    def __init__(self) -> None:
        super().__init__()
        self.table = RowTable(CAPACITY_BYTES_MIN)
        self.storage: dict[bytes, bytes] = {}
        self.reads: list[tuple[int, list[bytes], list[bytes | None]]] = []
        self.version = 0

    def some(self, seed: int, count: int) -> list[bytes]:
        rng = random.Random(seed)
        return [key(rng.randrange(2000), rng.randrange(1, 3)) for _ in range(count)]

    @rule(seed=st.integers(0, 2**32), count=st.sampled_from([1, 10, 300]))
    def begin_to_read(self, seed: int, count: int) -> None:
        keys = self.some(seed, count)
        self.reads.append((self.table.ticket(), keys, [self.storage.get(one) for one in keys]))

    @rule(pick=st.integers(0, 99))
    def fill_what_was_read(self, pick: int) -> None:
        if self.reads:
            ticket, keys, rows = self.reads.pop(pick % len(self.reads))
            self.table.fill(keys, rows, ticket)

    @rule(seed=st.integers(0, 2**32), count=st.sampled_from([1, 10, 300]), text_bytes=st.sampled_from([0, 200, 9000]))
    def write(self, seed: int, count: int, text_bytes: int) -> None:
        keys = self.some(seed, count)
        self.version += 1
        rows = [row(self.version * 1000 + number, text_bytes) for number in range(count)]
        self.storage.update(zip(keys, rows, strict=True))
        self.table.apply(keys, rows)

    @invariant()
    def never_lies(self) -> None:
        keys = self.some(self.version, 200)
        for one, held in zip(keys, self.table.lookup(keys), strict=True):
            assert held == UNKNOWN or held == self.storage.get(one)

    @invariant()
    def stays_within_its_bound(self) -> None:
        assert self.table.stats()["used_bytes"] <= self.table.capacity_bytes


TestAgainstItsTwin = AgainstItsTwin.TestCase
TestAgainstItsTwin.settings = settings(max_examples=60, stateful_step_count=40)
TestUnderEviction = UnderEviction.TestCase
TestUnderEviction.settings = settings(max_examples=25, stateful_step_count=40)


def test_a_write_between_ticket_and_fill_drops_the_fill() -> None:
    table = RowTable(1 << 20)
    ticket = table.ticket()
    old = row(1)
    table.apply([key(1)], [row(2)])  # committed after the read of `old`
    assert table.fill([key(1)], [old], ticket) == 0
    assert table.lookup([key(1)]) == [UNKNOWN]
    assert table.stats()["dropped_fill_count"] == 1
    assert table.fill([key(1)], [row(2)], table.ticket()) == 1
    assert table.get(key(1)) == row(2)


def test_a_write_before_the_ticket_lets_the_fill_in() -> None:
    table = RowTable(1 << 20)
    table.apply([key(1)], [row(2)])
    assert table.fill([key(1)], [row(2)], table.ticket()) == 1


def test_a_write_of_another_view_of_the_entity_drops_the_fill() -> None:
    table = RowTable(1 << 20)
    ticket = table.ticket()
    table.apply([key(1, view=2)], [row(2)])
    assert table.fill([key(1, view=1)], [row(1)], ticket) == 0


def test_a_clear_between_ticket_and_fill_drops_the_fill() -> None:
    table = RowTable(1 << 20)
    ticket = table.ticket()
    table.clear()  # storage may have been rebuilt
    assert table.fill([key(1)], [row(1)], ticket) == 0


def test_a_fill_of_many_entities_enters_those_not_written() -> None:
    table = RowTable(1 << 20)
    ticket = table.ticket()
    table.apply([key(1)], [row(9)])
    assert table.fill([key(1), key(2), key(3)], [row(1), row(2), None], ticket) == 2
    assert table.lookup([key(1), key(2), key(3)]) == [UNKNOWN, row(2), None]


def test_a_known_absence_differs_from_an_unknown_row() -> None:
    table = RowTable(1 << 20)
    table.fill([key(1, 1)], [None], table.ticket())
    assert table.get(key(1, 1)) is None
    with pytest.raises(KeyError):
        table.get(key(1, 2))
    assert table.compare([key(1, 1), key(1, 2)], [row(1), row(1)]) == bytes([NEWER, UNKNOWN])
    table.apply([key(1, 1)], [row(5)])
    assert table.compare([key(1, 1)] * 3, [row(4), row(5), row(6)]) == bytes([NOT_NEWER, NOT_NEWER, NEWER])


def test_more_views_than_one_run_are_all_held() -> None:
    table = RowTable(4 << 20)
    keys = [key(1, view) for view in range(1, 201)]
    rows = [row(view) for view in range(1, 201)]
    assert table.fill(keys, rows, table.ticket()) == 200
    assert table.lookup(keys) == rows
    assert (table.stats()["entity_count"], table.stats()["row_count"]) == (1, 200)


def test_of_one_key_twice_the_last_row_counts() -> None:
    table = RowTable(1 << 20)
    table.fill([key(1), key(1)], [row(1), row(2)], table.ticket())
    assert table.get(key(1)) == row(2)
    table.apply([key(1), key(1)], [row(3), row(4)])
    assert table.get(key(1)) == row(4)
    assert table.stats()["row_count"] == 1


def test_the_index_grows_and_finds_every_entity() -> None:
    table = RowTable(64 << 20)
    keys = [key(entity) for entity in range(50_000)]
    assert table.fill(keys, [None] * len(keys), table.ticket()) == len(keys)
    assert table.lookup(keys) == [None] * len(keys)
    assert table.lookup([key(-1 - entity) for entity in range(1000)]) == [UNKNOWN] * 1000


def test_clear_gives_back_the_memory_of_an_empty_table() -> None:
    table = RowTable(64 << 20)
    empty = table.stats()
    for _ in range(3):
        keys = [key(entity) for entity in range(20_000)]
        table.fill(keys, [row(1)] * len(keys), table.ticket())
        assert table.stats()["used_bytes"] > 20_000 * len(row(1))
        table.clear()
        stats = table.stats()
        assert (stats["entity_count"], stats["row_count"]) == (0, 0)
        # The allocator may give a block some bytes more or fewer than it gave the first time.
        assert abs(stats["used_bytes"] - empty["used_bytes"]) < SEGMENTS * 32


def test_slots_of_evicted_entities_are_used_again() -> None:
    """Ten times as many entities pass through as fit: without reuse the index would grow for ever."""
    table = RowTable(CAPACITY_BYTES_MIN)
    for start in range(0, 20_000, 500):
        keys = [key(entity) for entity in range(start, start + 500)]
        table.fill(keys, [row(1)] * 500, table.ticket())
    stats = table.stats()
    assert stats["eviction_count"] > 15_000 and stats["entity_count"] > 100
    assert stats["used_bytes"] <= CAPACITY_BYTES_MIN


def test_entities_that_are_read_outlive_those_that_are_not() -> None:
    table = RowTable(1 << 20)
    hot = [key(entity) for entity in range(100)]
    table.fill(hot, [row(1)] * 100, table.ticket())
    for start in range(1000, 21_000, 250):
        table.lookup(hot)
        cold = [key(entity) for entity in range(start, start + 250)]
        table.fill(cold, [row(1)] * 250, table.ticket())
    assert table.stats()["eviction_count"] > 10_000
    assert sum(held != UNKNOWN for held in table.lookup(hot)) > 90


def test_what_is_no_row_or_key_is_refused() -> None:
    table = RowTable(1 << 20)
    with pytest.raises(ValueError, match="no row"):
        table.fill([key(1)], [b"x" * 80], 0)
    with pytest.raises(ValueError, match="no row"):
        table.apply([key(1)], [row(1)[:-4]])
    with pytest.raises(ValueError, match="storage key"):
        table.lookup([b"12345678"])
    with pytest.raises(ValueError, match="storage key"):
        table.fill([b"k" * 0x10000], [None], 0)
    with pytest.raises(ValueError, match="one row per key"):
        table.apply([key(1)], [])
    with pytest.raises(TypeError):
        table.compare([key(1)], [None])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        table.fill([None], [None], 0)  # type: ignore[list-item]
    with pytest.raises(TypeError):
        table.lookup([None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="at least"):
        RowTable(CAPACITY_BYTES_MIN - 1)
    assert table.stats()["entity_count"] == 0


WIDE = [(F64, SINGLE, 0)] * 40
THREAD_ENTITIES = 600


def wide_row(entity: int, version: int) -> bytes:
    return pack_row(7, WIDE, [struct.pack("<d", entity * 1e6 + version)] * 40, version)


def entity_of(storage_key: bytes) -> int:
    return int.from_bytes(storage_key[5:13], "big") - 2**63


def versions(entity: int) -> Iterator[bytes]:
    return (wide_row(entity, version) for version in range(1, 40))


def test_reads_through_the_core_see_whole_rows_while_others_write_fill_and_evict() -> None:
    """Every column of a row holds the same number, so that a torn row or a foreign one would show."""
    table = RowTable(1 << 19)  # about half of the rows
    core = RequestCore(table, 8)
    outputs = [("", 0, index, None) for index in range(40)]
    plan = Plan(bytes(32), 1, [("u", I64)], [(1, [0])], [(0, 7, Schema(7, WIDE), 0, 0, 1, None)], outputs)
    keys = [key(entity, 7) for entity in range(THREAD_ENTITIES)]
    storage = [wide_row(entity, 0) for entity in range(THREAD_ENTITIES)]
    all_versions = [list(versions(entity)) for entity in range(0, THREAD_ENTITIES, 7)]
    failures: list[str] = []
    ended = threading.Event()

    def read(seed: int) -> None:
        rng = random.Random(seed)
        while not ended.is_set():
            picked = [rng.randrange(THREAD_ENTITIES) for _ in range(100)]
            request = request_bytes(Sample([KeyColumn("u", I64, picked)], handle=bytes(32)))
            found = core.serve(request, 0, plan)
            if isinstance(found, Misses):
                ticket = table.ticket()
                rows = [storage[entity_of(one)] for one in found.storage_keys]
                table.fill(found.storage_keys, rows, ticket)
            for entity, held in zip(picked, table.lookup([keys[entity] for entity in picked]), strict=True):
                if isinstance(held, bytes):
                    check_row(held)
                    if held[72:80] != held[-12:-4] or int(struct.unpack_from("<d", held, 72)[0] // 1e6) != entity:
                        failures.append(f"entity {entity}")

    def write() -> None:
        for rows in zip(*all_versions, strict=True):
            for number, new in enumerate(rows):
                storage[7 * number] = new
                table.apply([keys[7 * number]], [new])

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    writer = threading.Thread(target=write)
    for thread in (*readers, writer):
        thread.start()
    writer.join()
    ended.set()
    for thread in readers:
        thread.join()
    assert failures == []
    for one, held in zip(keys, table.lookup(keys), strict=True):
        assert held == UNKNOWN or held == storage[entity_of(one)]
