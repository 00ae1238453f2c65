"""Golden tile maps: what was once stored is written the same way, and read, for ever."""

from typing import Any

import pytest

from core_ext.twin import windows as twin
from core_ext.twin.windows import Row
from core_ext.window_plan import WindowPlan, plan_windows
from core_ext.windows import Windows
from tests.unit.core_ext.golden import described
from tests.unit.core_ext.state_samples import bits
from tests.unit.core_ext.window_samples import delta_of

MAPS = pytest.mark.parametrize("case", described("maps"), ids=lambda case: case["name"])


def plan_of_case(case: dict[str, Any]) -> WindowPlan:
    return plan_windows([tuple(one) for one in case["features"]], case["scalars"])


def rows_of_case(case: dict[str, Any]) -> tuple[list[Row], list[Row]]:
    """The rows up to the cut and those after it."""
    rows = [Row(tuple(inputs), *order) for inputs, *order in case["rows"]]
    return [row for row in rows if row.event_us <= case["cut"]], [row for row in rows if row.event_us > case["cut"]]


@MAPS
def test_a_golden_plan_keeps_its_number(case: dict[str, Any]) -> None:
    assert plan_of_case(case).check == case["check"]


@MAPS
def test_a_golden_map_is_written_again(case: dict[str, Any]) -> None:
    windows = Windows(plan_of_case(case))
    early, late = rows_of_case(case)
    delta = delta_of(windows, early)
    assert delta.hex() == case["delta"] == twin.encode(windows.plan, twin.delta(windows.plan, early)[0]).hex()
    full = windows.stamp(delta, case["cut"], case["covered"])
    if late:
        full = windows.apply(full, delta_of(windows, late), case["offset"]).map
    assert full.hex() == case["map"]


@MAPS
def test_a_golden_map_is_read(case: dict[str, Any]) -> None:
    windows = Windows(plan_of_case(case))
    stored = bytes.fromhex(case["map"])
    early, late = rows_of_case(case)
    newest = max(row.event_us for row in early + late)
    assert windows.check_map(stored)[:3] == (newest, case["cut"], case["covered"])
    assert bits(windows.fold(stored, case["read_us"]).values) == bits(case["values"])
