"""Keys of a slot range for the hash table of a join: a slot is made of the bits by which the table finds its places."""

from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.historical.inputs import HistoryInput, KeyColumn
from core_ext.hashing import SLOT_COUNT
from core_ext.keys import KEY_PARTS_MAX, KeyBatch
from headrace.types import Scalar

SALT: Final = "__salt"
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
_BITS: Final = 64


def by_slot(keys: KeyBatch, groups: int) -> NDArray[np.uint32]:
    """Slot range of every key."""
    return keys.slots.astype(np.uint32) * np.uint32(groups) // np.uint32(SLOT_COUNT)


def by_product(integers: NDArray[np.int64], groups: int) -> NDArray[np.uint32]:
    """A group for every key of one integer, by bits that its hash does not share; `groups` is a power of two."""
    shift = np.uint64(_BITS - groups.bit_length() + 1)
    return (integers.view(np.uint64) * _FACTOR >> shift).astype(np.uint32)


def salted(view: HistoryInput) -> HistoryInput:
    """The view with one more part in its keys, the same in every row: so the hashes of a slot range spread again."""
    if len(view.keys) >= KEY_PARTS_MAX:
        return view  # right all the same, and slower
    return replace(view, keys=(*view.keys, KeyColumn(SALT, SALT, Scalar.I64)))


def with_salt(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows with that part."""
    return batch.append_column(SALT, pa.array(np.zeros(batch.num_rows, np.int64)))
