"""CPU of the request core alone: 100 entities x 200 plain f32 features, all rows in the table, no transport."""

import argparse
import json
import sys
import time
from typing import Final

from core_ext.request_core import Plan, RequestCore
from core_ext.row_table import RowTable
from loadtest.calls import Calls
from loadtest.dataset import SCENARIOS
from loadtest.peers.memory import ENTITY_ID, I64, fill
from loadtest.rows import EVENT_TIME_US, SEED

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
    groups, columns = [], []
    for number, schema in enumerate(fill(table, entity_count)):
        groups.append((0, number + 1, schema, 0, 0, 1, None))
        columns += [(name, number, at, None) for at, name in enumerate(scenario.views[number].features)]
    plan = Plan(HANDLE, 1, [("user_id", int(I64.scalar))], [(ENTITY_ID, [0])], groups, columns)
    core = RequestCore(table, SHARD_COUNT)
    core.publish([plan], {}, 1)
    return core


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
