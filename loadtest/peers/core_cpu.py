"""CPU of the request core alone: 100 entities x 200 plain f32 features, all rows in the table, no transport."""

import argparse
import json
import sys
import time
from typing import Final

import numpy as np
import pyarrow as pa

from core_ext.arrow import arrow_column
from core_ext.keys import KeyBatch, encode_keys
from core_ext.request_core import Plan, RequestCore
from core_ext.row_codec import Schema, encode_rows
from core_ext.row_table import RowTable
from headrace.types import parse_type
from loadtest.calls import Calls
from loadtest.dataset import SCENARIOS
from loadtest.rows import EVENT_TIME_US, FEATURES_PER_VIEW, SEED, Keys, values

ENTITY_ID: Final = 1
SHARD_COUNT: Final = 8
ENTITY_COUNT: Final = 20_000  # 22 MB of rows: larger than the last-level cache share of one core, as in service
TABLE_BYTES: Final = 256 << 20
HANDLE: Final = b"h" * 32
BODIES: Final = 200
CALLS_PER_ROUND: Final = 1_000


def build(entity_count: int) -> RequestCore:
    """A core whose table holds four views of 50 f32 for every entity."""
    scenario = SCENARIOS["100x200"]
    table = RowTable(TABLE_BYTES)
    keys = np.arange(entity_count, dtype=np.int64)
    key_batch = encode_keys([int(parse_type("i64").scalar)], [arrow_column(pa.array(keys))])
    groups, columns = [], []
    for number, view in enumerate(scenario.views):
        plain = parse_type("f32")
        schema = Schema(number + 1, [(int(plain.scalar), int(plain.shape), 0)] * FEATURES_PER_VIEW)
        _fill(table, schema, key_batch, number + 1, keys)
        groups.append((0, number + 1, schema, 0, 0, 1))
        columns += [(name, number, at, None) for at, name in enumerate(view.features)]
    join_keys = [("user_id", int(parse_type("i64").scalar))]
    plan = Plan(HANDLE, 1, join_keys, [(ENTITY_ID, [0])], groups, columns)
    core = RequestCore(table, SHARD_COUNT)
    core.publish([plan], {}, 1)
    return core


def _fill(table: RowTable, schema: Schema, key_batch: KeyBatch, view_id: int, keys: Keys) -> None:
    rows = values(view_id - 1, keys)
    columns = [arrow_column(pa.array(np.ascontiguousarray(rows[:, at]))) for at in range(rows.shape[1])]
    every = np.arange(len(keys), dtype=np.int64)
    encoded = encode_rows(schema, columns, np.full(len(keys), EVENT_TIME_US, dtype=np.int64))
    stamped = encoded.stamp(every, EVENT_TIME_US, None, 1, 0, 1)
    table.fill(key_batch.storage_keys(ENTITY_ID, view_id, every), stamped, table.ticket())


def measure(rounds: int) -> list[float]:
    """Microseconds of thread CPU per call, one mean per round; every answer is compared with its rows first."""
    core = build(ENTITY_COUNT)
    calls = Calls(SCENARIOS["100x200"], ENTITY_COUNT, SEED, HANDLE)
    requests = []
    for users, request in calls.stream(BODIES):
        answer = core.serve(request, EVENT_TIME_US)
        if not isinstance(answer, bytes) or calls.faults(users, answer):
            raise SystemExit(f"the core answered wrongly: {answer!r:.200}")
        requests.append(request)
    out = []
    for _ in range(rounds):
        began_ns = time.thread_time_ns()
        for number in range(CALLS_PER_ROUND):
            core.serve(requests[number % BODIES], EVENT_TIME_US)
        out.append((time.thread_time_ns() - began_ns) / CALLS_PER_ROUND / 1_000)
    return out


def main() -> int:
    """Prints the rounds as one JSON list; a process of its own keeps other threads out of the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    sys.stdout.write(json.dumps(measure(parser.parse_args().rounds)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
