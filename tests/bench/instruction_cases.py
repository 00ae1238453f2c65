"""Reads whose instructions are counted: plans by name, and what the counted process gets instead of making it.

Plans need compiled cores alone, as they are made under valgrind too; rows and requests are made outside of it.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from core_ext.computed import FROM_WINDOW, ComputedView
from core_ext.request_core import Plan, RequestCore
from core_ext.row_codec import Schema
from core_ext.row_table import RowTable
from core_ext.window_plan import WindowPlan, plan_windows
from core_ext.windows import Windows

READ_TIME_US: Final = 1_700_000_000_000_000
TABLE_BYTES: Final = 32 << 20
SHARD_COUNT: Final = 8
HANDLE: Final = bytes(32)
ENTITY_ID, I32, I64, F32, F64 = 1, 2, 3, 4, 5
VIEWS, COLUMNS = 4, 50  # 200 plain values
SCHEMA_ID: Final = 9
PLAIN: Final = [(F32, 0, 0)] * COLUMNS

MINUTE_US: Final = 60_000_000
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
WINDOWS_US: Final = (
    (HOUR_US, 5 * MINUTE_US),
    (6 * HOUR_US, 15 * MINUTE_US),
    (DAY_US, HOUR_US),
    (7 * DAY_US, 6 * HOUR_US),
)
AGGREGATES: Final = (
    (1, I64),
    (2, F64),
    (3, F64),
    (4, F32),
    (5, F32),
)  # count, sum, avg, min, max and what each answers
WINDOWED_COLUMNS: Final = 10  # five aggregates over four windows of ten columns are 200 values


class Case(NamedTuple):
    """One kind of read."""

    name: str
    is_windowed: bool
    rows: int
    is_missed: bool = False
    """No row is in the table: misses are told, fetched rows come in an overlay."""


CASES: Final = (
    Case("plain_1x200", False, 1),
    Case("plain_100x200", False, 100),
    Case("windowed_1x200", True, 1),
    Case("missed_1x200", False, 1, is_missed=True),
)

Data = dict[str, tuple[list[bytes], list[bytes], list[bytes]]]
"""By the name of a case: storage keys, their rows, requests."""


def window_plan() -> WindowPlan:
    """Five aggregates over four windows of each column."""
    features = [
        (number, column, -1, *window, 0)
        for column in range(WINDOWED_COLUMNS)
        for number, _ in AGGREGATES
        for window in WINDOWS_US
    ]
    return plan_windows(features, [F32] * WINDOWED_COLUMNS)


def windowed_view() -> ComputedView:
    """A view that stores tiles alone."""
    plan = window_plan()
    kinds = dict(AGGREGATES)
    columns = [(kinds[one.aggregate], 0, 0) for one in plan.features]
    return ComputedView(SCHEMA_ID, columns, [(FROM_WINDOW, at) for at in range(len(columns))], Windows(plan), [])


def core_of(case: Case, keys: Sequence[bytes], rows: Sequence[bytes]) -> RequestCore:
    """A core with the case's plan, and its rows in the table unless they are to be missed."""
    table = RowTable(TABLE_BYTES)
    if not case.is_missed and table.fill(keys, rows, table.ticket()) != len(rows):
        raise SystemExit("the table did not take every row")
    groups: list[tuple[int, int, Schema, int, int, int, ComputedView | None]]
    if case.is_windowed:
        view = windowed_view()
        groups = [(0, 1, view.answered, 0, 0, 1, view)]
        columns = [(f"f{at}", 0, at, None) for at in range(len(window_plan().features))]
    else:
        groups = [(0, number + 1, Schema(SCHEMA_ID, PLAIN), 0, 0, 2, None) for number in range(VIEWS)]
        columns = [("", number, at, None) for number in range(VIEWS) for at in range(COLUMNS)]
    core = RequestCore(table, SHARD_COUNT)
    core.publish([Plan(HANDLE, 1, [("user_id", I64)], [(ENTITY_ID, [0])], groups, columns)], {}, 1)
    return core
