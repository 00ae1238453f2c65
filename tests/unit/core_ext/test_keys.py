"""Key bytes against their twin, their order, and every refusal."""

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from core_ext import keys
from core_ext.arrow import ArrowColumn, arrow_column
from core_ext.twin import keys as twin
from headrace.types import Scalar
from tests.unit.core_ext.rows import I64_VALUES

I64, STRING, BYTES = Scalar.I64, Scalar.STRING, Scalar.BYTES
PARTS = {I64: I64_VALUES, STRING: st.text(min_size=1, max_size=20), BYTES: st.binary(min_size=1, max_size=20)}
ARROW = {I64: pa.int64(), STRING: pa.string(), BYTES: pa.binary()}
Keys = tuple[list[Scalar], list[tuple[int | str | bytes, ...]]]
KEY_TYPES = st.lists(st.sampled_from([I64, STRING, BYTES]), min_size=1, max_size=8)


def typed_keys() -> st.SearchStrategy[Keys]:
    return KEY_TYPES.flatmap(
        lambda types: st.tuples(st.just(types), st.lists(st.tuples(*(PARTS[scalar] for scalar in types)), max_size=5))
    )


@given(typed_keys())
def test_keys_equal_their_twin_and_decode_to_their_values(case: Keys) -> None:
    types, values = case
    for parts in values:
        key = keys.encode_key(types, parts)
        assert key == twin.encode_key(types, parts)
        assert keys.decode_key(key) == twin.decode_key(key) == parts
        assert keys.slot_of_key(key) == twin.slot_of_key(key)


@given(typed_keys(), st.integers(0, 9), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_batch_of_columns_gives_the_same_keys(case: Keys, before: int, entity_id: int, view_id: int) -> None:
    types, values = case
    columns = [
        arrow_column(pa.array([filler(scalar)] * before + [row[i] for row in values], ARROW[scalar]).slice(before))
        for i, scalar in enumerate(types)
    ]
    batch = keys.encode_keys(types, columns)
    expected = [twin.encode_key(types, row) for row in values]
    assert [batch.key(i) for i in range(len(batch))] == expected
    assert batch.slots.tolist() == [twin.slot_of_key(key) for key in expected]
    backwards = np.arange(len(values), dtype=np.int64)[::-1].copy()
    stored = batch.storage_keys(entity_id, view_id, backwards)
    assert stored == [twin.storage_key(entity_id, key, view_id) for key in reversed(expected)]


def filler(scalar: Scalar) -> int | str | bytes:
    fillers: dict[Scalar, int | str | bytes] = {I64: 0, STRING: "x", BYTES: b"x"}
    return fillers[scalar]


def test_a_batch_large_enough_to_release_the_lock() -> None:
    values = np.arange(-10_000, 10_000)
    batch = keys.encode_keys([I64], [arrow_column(pa.array(values))])
    assert batch.key(19_999) == twin.encode_key([I64], [9_999])
    assert batch.slots[123] == twin.slot_of_key(batch.key(123))


@given(I64_VALUES, I64_VALUES)
def test_integer_keys_sort_as_their_values(a: int, b: int) -> None:
    assert (keys.encode_key([I64], [a]) < keys.encode_key([I64], [b])) == (a < b)


def test_equal_looking_values_of_different_types_are_different_keys() -> None:
    forms = [keys.encode_key([I64], [1]), keys.encode_key([STRING], ["1"]), keys.encode_key([BYTES], [b"1"])]
    assert len(set(forms)) == 3


@given(st.integers(0, 2**32 - 1), I64_VALUES, st.integers(0, 2**32 - 1))
def test_a_storage_key_splits_into_its_parts(entity_id: int, value: int, view_id: int) -> None:
    key = keys.encode_key([I64], [value])
    stored = keys.storage_key(entity_id, key, view_id)
    assert stored == twin.storage_key(entity_id, key, view_id)
    assert stored.startswith(keys.entity_prefix(entity_id, key))
    assert keys.split_storage_key(stored) == twin.split_storage_key(stored) == (entity_id, key, view_id)


@given(st.binary(max_size=60))
def test_any_bytes_decode_as_by_the_twin(data: bytes) -> None:
    assert outcome(keys.decode_key, data) == outcome(twin.decode_key, data)


@given(typed_keys(), st.data())
def test_a_damaged_key_decodes_as_by_the_twin(case: Keys, data: st.DataObject) -> None:
    for parts in case[1]:
        key = bytearray(keys.encode_key(case[0], parts))
        key[data.draw(st.integers(0, len(key) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(key)))
        assert outcome(keys.decode_key, bytes(key[:cut])) == outcome(twin.decode_key, bytes(key[:cut]))


def outcome(function: Callable[[bytes], object], data: bytes) -> object:
    try:
        return function(data)
    except ValueError:
        return "refused"


@pytest.mark.parametrize(
    ("types", "values", "message"),
    [
        ([], [], "1 to 8 parts"),
        ([I64] * 9, [1] * 9, "1 to 8 parts"),
        ([I64], [1, 2], "2 values are given for the 1 parts"),
        ([I64], [2**63], "part 0 must be a whole number of 64 bits"),
        ([I64], [-(2**63) - 1], "part 0 must be a whole number of 64 bits"),
        ([I64], [True], "part 0 must be a whole number"),
        ([I64], [1.0], "part 0 must be a whole number"),
        ([I64], ["1"], "part 0 must be a whole number"),
        ([I64], [None], "part 0 must be a whole number"),
        ([I64, STRING], [1, b"x"], "part 1 must be a string"),
        ([STRING], [1], "part 0 must be a string"),
        ([STRING], [""], "part 0 is empty"),
        ([STRING], ["\ud800"], "surrogate"),
        ([STRING], ["x" * 1022], "longer than 1024 bytes"),
        ([STRING], ["x" * 70_000], "longer than 1024 bytes"),
        ([STRING, I64], ["x" * 1015, 1], "longer than 1024 bytes"),
        ([BYTES], ["x"], "part 0 must be bytes"),
        ([BYTES], [b""], "part 0 is empty"),
        ([Scalar.F64], [1.0], "type 5: keys are i64, string or bytes"),
    ],
)
def test_a_wrong_key_is_refused(types: list[int], values: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        keys.encode_key(types, values)
    with pytest.raises(ValueError, match=r"part|type|key|surrogates"):  # the twin says it in fewer words
        twin.encode_key(types, values)


def test_the_longest_key_is_taken() -> None:
    key = keys.encode_key([STRING], ["x" * 1021])
    assert len(key) == keys.KEY_BYTES_MAX
    assert keys.decode_key(key) == ("x" * 1021,)


@pytest.mark.parametrize(
    ("types", "arrays", "message"),
    [
        ([I64], [pa.array([1, None])], "column 0, row 1: holds a null"),
        ([I64, STRING], [pa.array([1, 2]), pa.array(["a", ""])], "column 1, row 1: holds an empty value"),
        ([STRING], [pa.array(["a", "x" * 1022])], "column 0, row 1: makes the key longer than 1024 bytes"),
        ([STRING, I64], [pa.array(["x" * 1015]), pa.array([1])], "column 1, row 0: makes the key longer"),
        ([I64, I64], [pa.array([1, 2]), pa.array([1])], "column 1: holds another number of values"),
        ([I64], [], "0 columns are given for the 1 parts"),
        ([], [], "1 to 8 parts"),
        ([Scalar.F32], [pa.array([1.0], pa.float32())], "key column 0 has type 4"),
        ([I64], [pa.array([1], pa.int32())], "column 0: has a values buffer that is too short"),
        ([STRING], [pa.array([b"\xff"], pa.binary())], "column 0, row 0: holds a string that is not UTF-8"),
    ],
)
def test_wrong_key_columns_are_refused(types: list[int], arrays: list[pa.Array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        keys.encode_keys(types, [arrow_column(array) for array in arrays])


def test_a_claimed_length_beyond_its_buffers_takes_no_memory() -> None:
    for length in (2**31 - 1, 2**62):
        column = ArrowColumn(length, 0, None, bytes(8), None, None)
        with pytest.raises(ValueError, match="column 0"):
            keys.encode_keys([I64], [column])


@pytest.mark.parametrize("index", [-1, 2, 2**62])
def test_an_index_outside_the_batch_is_refused(index: int) -> None:
    batch = keys.encode_keys([I64], [arrow_column(pa.array([1, 2]))])
    with pytest.raises(IndexError, match="none of the 2 rows"):
        batch.key(index)
    with pytest.raises(ValueError, match="at 1 is none of the 2 rows"):
        batch.storage_keys(1, 1, np.array([0, index]))


@pytest.mark.parametrize("key", [b"", b"\x00" * 11])
def test_a_short_storage_key_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="too short"):
        keys.split_storage_key(key)


@pytest.mark.parametrize("wrong_id", [-1, 2**32])
def test_an_id_outside_32_bits_is_refused(wrong_id: int) -> None:
    with pytest.raises(ValueError, match="32 bits"):
        keys.storage_key(wrong_id, b"\x01" + bytes(8), 1)
    with pytest.raises(ValueError, match="32 bits"):
        keys.storage_key(1, b"\x01" + bytes(8), wrong_id)


@pytest.mark.parametrize("shard_count", [2**power for power in range(11)])
def test_shards_own_equal_ranges_of_slots(shard_count: int) -> None:
    owners = [keys.shard_of_slot(slot, shard_count) for slot in range(1024)]
    assert owners == [twin.shard_of_slot(slot, shard_count) for slot in range(1024)]
    assert owners == sorted(owners)
    assert {owners.count(shard) for shard in range(shard_count)} == {1024 // shard_count}


@pytest.mark.parametrize(("slot", "shard_count"), [(0, 0), (0, 3), (0, 2048), (-1, 8), (1024, 8), (0, -8)])
def test_a_slot_or_shard_count_out_of_range_is_refused(slot: int, shard_count: int) -> None:
    with pytest.raises(ValueError, match=r"slot|shard"):
        keys.shard_of_slot(slot, shard_count)


def test_a_batch_is_made_by_encode_keys_alone() -> None:
    with pytest.raises(TypeError, match="encode_keys"):
        keys.KeyBatch()
