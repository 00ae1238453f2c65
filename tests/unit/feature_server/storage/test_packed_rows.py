"""Rows under one key of storage: what is read equals what was written, in every layout and after every crash."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core_ext.keys import encode_key, storage_key
from feature_server.domain.shard_record import RECORD_KEY
from feature_server.storage.packed_rows import (
    PACK_BIT,
    Packing,
    StoreLayout,
    decode_pack,
    encode_pack,
    joined,
    read_layout,
    rows_of,
    write_layout,
)
from feature_server.storage.packed_store import PackedStore
from feature_server.storage.repack import content_hash, repack
from feature_server.storage.rocks import RocksStore
from feature_server.storage.rocks_options import SharedMemory, StoreBudget, shard_options
from headrace.errors import DataLoss

SMALL = StoreBudget(block_cache_bytes=4 << 20, write_buffer_bytes=4 << 20)
ROWS = st.dictionaries(st.integers(1, 2**31 - 1), st.binary(max_size=300), min_size=1, max_size=20)
PACKINGS = (Packing(7, (3, 5, 6)), Packing(8, (11, 12)))
VIEWS = {7: (3, 4, 5, 6), 8: (11, 12), 9: (20,)}


@contextmanager
def opened(path: Path) -> Iterator[RocksStore]:
    store = RocksStore(path, shard_options(SharedMemory(SMALL), 1))
    try:
        yield store
    finally:
        store.close()


def key_of(entity_id: int, number: int, view_id: int) -> bytes:
    return storage_key(entity_id, encode_key([3], [number]), view_id)


def random_rows(rng: random.Random, count: int) -> dict[bytes, bytes]:
    rows = {}
    for _ in range(count):
        entity_id = rng.choice(list(VIEWS))
        key = key_of(entity_id, rng.randrange(40), rng.choice(VIEWS[entity_id]))
        rows[key] = rng.randbytes(rng.randrange(1, 200))
    return rows


@given(ROWS)
def test_pack_gives_back_its_rows(rows: dict[int, bytes]) -> None:
    assert decode_pack(encode_pack(rows)) == rows


@given(ROWS, st.integers(0, 2**32), st.integers(0, 255))
def test_damaged_pack_is_refused_or_its_rows_differ_alone(rows: dict[int, bytes], place: int, value: int) -> None:
    data = bytearray(encode_pack(rows))
    at = place % len(data)
    is_same = data[at] == value
    data[at] = value
    directory = len(data) - sum(map(len, rows.values()))
    if at >= directory or is_same:  # a row has a checksum of its own
        assert decode_pack(bytes(data)).keys() == rows.keys()
        return
    with pytest.raises(DataLoss) as caught:
        decode_pack(bytes(data))
    assert caught.value.reason == "STORED_PACK_CORRUPT"


@given(ROWS, st.integers(0, 10_000))
def test_pack_cut_short_is_refused(rows: dict[int, bytes], cut: int) -> None:
    data = encode_pack(rows)
    with pytest.raises(DataLoss):
        decode_pack(data[: cut % len(data)])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_store_with_packs_answers_as_one_without(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng, truth = random.Random(seed), dict[bytes, bytes]()
    with opened(tmp_path_factory.mktemp("packed") / "shard") as rocks:
        store = PackedStore(rocks, PACKINGS)
        for _ in range(8):
            rows = random_rows(rng, rng.choice([1, 2, 30]))
            store.write([*rows, RECORD_KEY], [*rows.values(), b"record"], sync=False)
            truth |= rows
            asked = list(random_rows(rng, 40)) + list(rows)
            rng.shuffle(asked)
            assert store.get_many(asked) == [truth.get(key) for key in asked]
        assert store.get(RECORD_KEY) == b"record"
        flat = {
            key: row
            for place, value in rocks.items()
            if place != RECORD_KEY
            for key, row in rows_of(place, value).items()
        }
        assert flat == truth
        packed = [place for place, _ in rocks.items() if int.from_bytes(place[-4:], "big") & PACK_BIT]
        assert len({place[:-4] for place in packed}) == len(packed)


def bookmarks() -> dict[bytes, bytes]:
    """Records whose last bytes are those of packed views."""
    return {b"\0\0\0\0mark" + view_id.to_bytes(4, "big"): b"mark %d" % view_id for view_id in (3, 5, 11)}


def test_records_that_end_in_the_id_of_a_packed_view_keep_their_keys(tmp_path: Path) -> None:
    marks, row = bookmarks(), key_of(7, 1, 3)
    with opened(tmp_path / "shard") as rocks:
        store = PackedStore(rocks, PACKINGS)
        store.write([*marks, row], [*marks.values(), b"row"], sync=False)
        assert marks.items() <= dict(rocks.items()).items()
        assert store.get_many([*marks, row]) == [*marks.values(), b"row"]
        first, *others = marks
        assert store.get(first) == marks[first]
        assert dict(store.scan(b"", 100)) == {**marks, row: b"row"}
        store.replace([first], {others[0]: b"moved"})
        assert store.get_many([*marks, row]) == [None, b"moved", marks[others[1]], b"row"]
        assert others[0] in dict(rocks.items())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_scan_gives_rows_in_order_of_their_keys_and_parts_no_entity(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = random.Random(seed)
    truth = random_rows(rng, 120) | bookmarks()
    with opened(tmp_path_factory.mktemp("scanned") / "shard") as rocks:
        store = PackedStore(rocks, PACKINGS)
        store.write(list(truth), list(truth.values()), sync=False)
        for count in (1, 2, 7, len(truth), len(truth) + 1):
            found, start = list[tuple[bytes, bytes]](), b""
            while part := store.scan(start, count):
                left = len(truth) - len(found)
                assert len(part) >= min(count, left)
                found += part
                start = part[-1][0] + b"\0"
                assert not any(key[:-4] == part[-1][0][:-4] for key in truth if key >= start)
            assert found == sorted(truth.items())
        middle = rng.choice(sorted(truth))
        assert store.scan(middle, 1_000) == sorted(row for row in truth.items() if row[0] >= middle)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_replace_removes_and_writes_rows_as_without_packs(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    truth = random_rows(rng, 100)
    with opened(tmp_path_factory.mktemp("replaced") / "shard") as rocks:
        store = PackedStore(rocks, PACKINGS)
        store.write(list(truth), list(truth.values()), sync=False)
        for _ in range(6):
            stored = random_rows(rng, rng.choice([0, 1, 20]))
            removed = [key for key in rng.sample(sorted(truth), len(truth) // 4) if key not in stored]
            removed += [key for key in random_rows(rng, 3) if key not in stored]  # some are not there
            store.replace(removed, stored)
            truth = {key: row for key, row in truth.items() if key not in removed} | stored
            assert store.scan(b"", 10_000) == sorted(truth.items())
        assert store.get_many(list(truth)) == list(truth.values())


def test_a_pack_goes_with_its_last_row(tmp_path: Path) -> None:
    one, other, alone = (key_of(7, 1, view_id) for view_id in (3, 5, 4))
    with opened(tmp_path / "shard") as rocks:
        store = PackedStore(rocks, PACKINGS)
        store.write([one, other, alone], [b"1", b"2", b"3"], sync=False)
        store.replace([one], {})
        assert store.get_many([one, other, alone]) == [None, b"2", b"3"]
        store.replace([other], {alone: b"4"})
        assert list(rocks.items()) == [(alone, b"4")]
        store.replace([alone], {one: b"5", other: b"6"})
        assert store.scan(b"", 10) == [(one, b"5"), (other, b"6")]


def test_repack_moves_rows_there_and_back_and_goes_on_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("feature_server.storage.repack.BATCH_ROWS", 7)
    truth = random_rows(random.Random(seed), 600)
    with opened(tmp_path / "shard") as rocks:
        rocks.write([*truth, RECORD_KEY], [*truth.values(), b"record"], sync=False)
        hashed = content_hash(rocks)
        plain = dict(rocks.items())
        for packings in (PACKINGS, (Packing(7, (3, 4)),), (), PACKINGS):
            with monkeypatch.context() as crashing:
                crash_after(crashing, 3)
                with pytest.raises(KeyboardInterrupt):
                    repack(rocks, packings)
            assert content_hash(rocks) == hashed
            repack(rocks, packings)
            assert repack(rocks, packings) == 0
            assert content_hash(rocks) == hashed
            store = PackedStore(rocks, packings)
            assert store.get_many(list(truth)) == list(truth.values())
            assert store.get(RECORD_KEY) == b"record"
            if not packings:
                assert dict(rocks.items()) == plain


def crash_after(patch: pytest.MonkeyPatch, count: int) -> None:
    replace, done = RocksStore.replace, 0

    def some(self: RocksStore, removed: list[bytes], stored: dict[bytes, bytes]) -> None:
        nonlocal done
        if done == count:
            raise KeyboardInterrupt
        done += 1
        replace(self, removed, stored)

    patch.setattr(RocksStore, "replace", some)


def test_layout_is_kept_and_a_new_packing_takes_the_place_of_those_it_shares_views_with(tmp_path: Path) -> None:
    assert read_layout(tmp_path) == StoreLayout()
    layout = StoreLayout(joined(PACKINGS, [Packing(7, (4, 5))]), is_whole=False)
    assert layout.packings == (PACKINGS[1], Packing(7, (4, 5)))
    write_layout(tmp_path, layout)
    assert read_layout(tmp_path) == layout
