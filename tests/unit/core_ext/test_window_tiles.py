"""The tiles that people are shown are those that the kernel folds, no more and no fewer."""

import random
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from core_ext.twin import windows as twin
from core_ext.twin.windows import TileMap
from core_ext.window_plan import plan_windows
from core_ext.window_tiles import FoldedWindow, folded_window
from core_ext.windows import Windows
from tests.unit.core_ext.state_samples import bits
from tests.unit.core_ext.test_windows import SEEDS, chunks_of
from tests.unit.core_ext.window_samples import Case, cases, feature


def twin_of(case: Case, seed: int) -> TileMap:
    """A map that was stored chunk by chunk."""
    plan, rows = case
    choose = random.Random(seed)
    found = TileMap()
    for offset, chunk in enumerate(chunks_of(rows, choose)):
        found, _ = twin.apply(plan, found, twin.delta(plan, chunk)[0], offset)
    return found


@settings(max_examples=250)
@given(cases(), SEEDS, st.integers(-300, 500))
def test_a_map_of_these_tiles_alone_folds_to_the_same_value(case: Case, seed: int, later: int) -> None:
    plan, rows = case
    windows, whole = Windows(plan), twin_of(case, seed)
    read_us = max(min(max(row.event_us for row in rows) + later, 2**60), -(2**60))
    stored = twin.encode(plan, whole)
    windows.check_map(stored)
    expected = windows.fold(stored, read_us)
    for place in range(len(plan.features)):
        found = folded_window(plan, stored, place, read_us)
        span = plan.spans[plan.features[place].span]
        assert span.gap_us or read_us - found.start_us >= span.window_us
        assert all(tile.start_us >= found.start_us for tile in found.tiles)
        assert all(one.start_us + one.width_us <= other.start_us for one, other in pairwise(found.tiles))
        alone = windows.fold(twin.encode(plan, only(case, whole, found, bool(span.gap_us))), read_us)
        assert bits(alone.values[place]) == bits(expected.values[place])


@settings(max_examples=100)
@given(SEEDS)
def test_the_events_of_the_tiles_are_what_a_count_counts(seed: int) -> None:
    choose = random.Random(seed)
    plan = plan_windows([feature("count", 600, 10, -1), feature("count", 3_600, 60, -1)], [])
    windows = Windows(plan)
    rows = [twin.Row((), choose.randrange(10_000)) for _ in range(choose.randrange(1, 80))]
    stored = twin.encode(plan, twin_of(Case(plan, rows), seed))
    read_us = max(row.event_us for row in rows) + choose.randrange(2_000)
    counts = [sum(t.event_count for t in folded_window(plan, stored, place, read_us).tiles) for place in range(2)]
    assert counts == windows.fold(stored, read_us).values


def test_no_map_has_no_tiles_and_still_a_window() -> None:
    plan = plan_windows([feature("count", 600, 60, -1)], [])
    assert folded_window(plan, None, 0, 1_000) == FoldedWindow(360, None, ())


def only(case: Case, whole: TileMap, found: FoldedWindow, is_session: bool) -> TileMap:
    """The map with these tiles of every ladder alone, and of a session the finest in them, whose edges open it."""
    plan, _ = case
    kept = {(tile.start_us, tile.width_us) for tile in found.tiles}
    if is_session:
        finest = {ladder.sizes_us[0] for ladder in plan.ladders}
        kept |= {(at, size) for start, width in kept for size in finest for at in range(start, start + width, size)}
    sizes = [size for ladder in plan.ladders for size in ladder.sizes_us]
    sections = [
        {k: tile for k, tile in section.items() if (k * size, size) in kept}
        for size, section in zip(sizes, whole.sections, strict=True)
    ]
    return replace(whole, sections=tuple(sections))


def test_of_a_session_only_what_is_open_is_shown() -> None:
    minute = 60_000_000
    ten = 10 * 60 * minute
    plan = plan_windows([feature("count", 60 * minute, minute, -1, gap_us=5 * minute)], [])
    rows = [twin.Row((), ten), twin.Row((), ten + 50 * minute)]
    stored = twin.encode(plan, twin_of(Case(plan, rows), 1))
    shown = folded_window(plan, stored, 0, ten + 52 * minute)
    begun = ten + 49 * minute  # of the tile that ends with the event
    assert shown.start_us == begun
    assert [(tile.start_us, tile.event_count) for tile in shown.tiles] == [(begun, 1)]
    closed = folded_window(plan, stored, 0, ten + 58 * minute)
    assert (closed.start_us, closed.tiles) == (ten + 58 * minute, ())
    assert [Windows(plan).fold(stored, ten + at * minute).values for at in (52, 58)] == [[1], [0]]
