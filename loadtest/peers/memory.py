"""Resident memory per row: of the row table in a process of its own, and of the loaded server above its caches."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa

from core_ext.arrow import arrow_column
from core_ext.keys import encode_keys
from core_ext.row_codec import Schema, encode_rows
from core_ext.row_table import RowTable
from headrace.types import parse_type
from loadtest.dataset import USER_VIEWS, key_ranges
from loadtest.peers.processes import usage
from loadtest.rows import EVENT_TIME_US, FEATURES_PER_VIEW, Keys, values

ENTITY_ID: Final = 1
TABLE_BYTES: Final = 4 << 30
CHUNK_KEYS: Final = 5_000  # small, so that what only fills the table hardly shows in the process
I64: Final = parse_type("i64")
F32: Final = parse_type("f32")


def view_rows(view_id: int, keys: Keys) -> tuple[Schema, list[bytes], list[bytes]]:
    """Schema, storage keys and packed rows of one view of 50 f32 for the keys."""
    schema = Schema(view_id, [(int(F32.scalar), int(F32.shape), 0)] * FEATURES_PER_VIEW)
    cells = np.asfortranarray(values(view_id - 1, keys))
    columns = [arrow_column(pa.array(cells[:, at])) for at in range(FEATURES_PER_VIEW)]
    every = np.arange(len(keys), dtype=np.int64)
    encoded = encode_rows(schema, columns, np.full(len(keys), EVENT_TIME_US, dtype=np.int64))
    rows = encoded.stamp(every, EVENT_TIME_US, None, 1, 0, 1)
    key_batch = encode_keys([int(I64.scalar)], [arrow_column(pa.array(keys))])
    return schema, key_batch.storage_keys(ENTITY_ID, view_id, every), rows


def fill(table: RowTable, entity_count: int) -> Iterator[Schema]:
    """Puts four rows per entity into the table, and gives the schemas."""
    schemas = {}
    for keys in key_ranges(0, entity_count, CHUNK_KEYS):
        for number in range(len(USER_VIEWS)):
            schemas[number], storage_keys, rows = view_rows(number + 1, keys)
            table.fill(storage_keys, rows, table.ticket())
    yield from schemas.values()


def table_ratio(entity_count: int) -> float:
    """Resident bytes that a row adds to the process, over the bytes of the packed row."""
    table = RowTable(TABLE_BYTES)
    list(fill(table, CHUNK_KEYS))  # buffers and code that are there once
    packed = len(view_rows(1, np.zeros(1, dtype=np.int64))[2][0])
    rows_before, before = table.stats()["row_count"], usage(os.getpid()).resident_bytes
    list(fill(table, entity_count))
    rows = table.stats()["row_count"] - rows_before
    return (usage(os.getpid()).resident_bytes - before) / rows / packed


def main() -> int:
    """Prints one ratio; a process of its own for each, as memory given back to it once would be used again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entities", type=int)
    sys.stdout.write(json.dumps(table_ratio(parser.parse_args().entities)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
