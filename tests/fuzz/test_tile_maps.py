"""Damaged tile maps under a right checksum: refused, or read, merged and folded within their bounds."""

from collections.abc import Iterator

import pytest

from core_ext.twin.hashing import with_checksum
from core_ext.twin.windows import Row
from core_ext.window_plan import WindowPlan, plan_windows
from core_ext.windows import CorruptMapError, Windows
from headrace.types import Scalar
from tests.fuzz.mutations import mutations
from tests.unit.core_ext.window_samples import delta_of, feature

COUNTS = pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
SCALARS = (Scalar.I64, Scalar.F32, Scalar.STRING)
PASSED_MIN = 0.02  # share of inputs that must pass the checks, else the fuzz no longer reaches what reads behind them
HEAD_BYTES = 48


def plan() -> WindowPlan:
    """Every kind of state, in two ladders, and sessions in another."""
    numbers = ["count", "sum", "avg", "min", "last", "variance", "approx_distinct"]
    features = [feature(name, 60, 5, column) for name in numbers for column in (0, 1)]
    features += [feature("quantile", 60, 5, 1, parameter=500_000), feature("top_k", 300, 20, 2, parameter=2)]
    features += [feature("last_n", 300, 20, 2, parameter=3), feature("ratio", 300, 7, 0, 1)]
    features += [feature("sum", 60, 5, 0, gap_us=9), feature("last", 60, 5, 2, gap_us=5)]
    return plan_windows([*features, feature("decayed_sum", 60, 5, 0, parameter=30)], SCALARS)


def corpus(windows: Windows) -> list[bytes]:
    """A short delta, a longer full map, and that of a batch under a stream."""
    rows = [Row((at % 7 or None, at / 3, "ab" * (at % 3)), at * at % 310, offset=at) for at in range(24)]
    short, long = delta_of(windows, rows[:2]), delta_of(windows, rows)
    batch = windows.stamp(short, 400, 1)
    return [short, windows.apply(None, long, 3).map, windows.apply(batch, long, 2).map]


def damaged(maps: list[bytes], seed: int, count: int) -> Iterator[bytes]:
    """Damaged maps, whose length, plan and checksum are mostly made right again."""
    for number, (index, data) in enumerate(mutations(maps, seed, count)):
        body = bytearray(data[:-4].ljust(HEAD_BYTES, b"\0"))
        body += bytes(-len(body) % 4)
        if number % 5:
            body[4:8] = (len(body) + 4).to_bytes(4, "little")
        if number % 7:
            body[:4], body[8:16] = maps[index][:4], maps[index][8:16]
        yield with_checksum(bytes(body))


@COUNTS
def test_damaged_maps_are_refused_or_hold_together(seed: int, count: int) -> None:
    windows = Windows(plan())
    maps = corpus(windows)
    passed = 0
    for data in damaged(maps, seed, count):
        try:
            windows.check_map(data)
            is_sound = True
        except CorruptMapError:
            is_sound = False
        passed += is_sound
        for act in (
            lambda data=data: windows.fold(data, 300),
            lambda data=data: windows.fold(data, 100),
            lambda data=data: windows.stamp(data, 2**60, 5),
            lambda data=data: windows.apply(data, maps[0], 9).map,
            lambda data=data: windows.apply(maps[1], data, 9).map,
            lambda data=data: windows.merge(data, maps[2]).map,
            lambda data=data: windows.merge(maps[1], data).map,
        ):
            try:
                made = act()
            except ValueError:  # of CorruptMapError as well
                continue
            if is_sound and isinstance(made, bytes):
                windows.check_map(made)
    assert passed > PASSED_MIN * count
