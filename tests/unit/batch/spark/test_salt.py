"""Groups of keys: slots of the online store, or bits that the hash table of a join does not use."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from batch.historical.checks import keys_of
from batch.spark.salt import SALT, by_product, by_slot, salted, with_salt
from core_ext.arrow import arrow_column
from core_ext.hashing import SLOT_COUNT, xxh3_64
from core_ext.keys import KEY_PARTS_MAX, encode_key, encode_keys, slot_of_key
from headrace.types import Scalar
from tests.unit.batch.historical import samples


def test_slot_range_is_that_of_the_online_slot() -> None:
    names = [f"user-{i}" for i in range(500)]
    keys = encode_keys([int(Scalar.STRING)], [arrow_column(pa.array(names))])
    expected = [slot_of_key(encode_key([int(Scalar.STRING)], [name])) * 16 // SLOT_COUNT for name in names]
    assert by_slot(keys, 16).tolist() == expected


@pytest.mark.parametrize("groups", [4, 64, SLOT_COUNT])
def test_groups_of_integers_are_even_and_their_hashes_too(groups: int) -> None:
    integers = np.concatenate([np.arange(-60_000, 60_000), np.array([-(2**63), 2**63 - 1])])
    found = by_product(integers, groups)
    counts = np.bincount(found, minlength=groups)
    assert len(counts) == groups
    assert counts.max() < 2 * len(integers) / groups
    low_bits = {xxh3_64(encode_key([int(Scalar.I64)], [int(one)])) % 64 for one in integers[found == 1][:2_000]}
    assert len(low_bits) > 48


def test_salt_spreads_the_hashes_of_one_slot() -> None:
    one = samples.view(())
    view = salted(one)
    assert [key.history for key in view.keys] == [*(key.history for key in one.keys), SALT]
    key = one.keys[0]
    names = [f"user-{number}" for number in range(20_000)]
    plain = pa.record_batch({key.history: names})
    of_one_slot = [
        name
        for name, slot in zip(names, keys_of(plain, [key.history], [key], "x").slots.tolist(), strict=True)
        if slot < SLOT_COUNT // 64
    ]
    batch = with_salt(pa.record_batch({key.history: of_one_slot}))
    slots = keys_of(batch, [key.history, SALT], [key, view.keys[-1]], "x").slots
    assert len(of_one_slot) > 100
    assert len(set((slots // (SLOT_COUNT // 64)).tolist())) > 48


def test_key_of_all_parts_stays_as_it_is() -> None:
    view = samples.view(())
    full = replace(view, keys=view.keys[:1] * KEY_PARTS_MAX)
    assert salted(full) is full
