"""Images of computed rows hold what the kernels of their parts say, and the request core answers from them."""

import random
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_ext.arrow import arrow_column
from core_ext.computed import FROM_DERIVED, FROM_LATEST, FROM_WINDOW, ComputedView
from core_ext.expressions import Program
from core_ext.keys import encode_key, storage_key
from core_ext.request_core import Plan, RequestCore
from core_ext.row_codec import CorruptRowError, Schema, check_row, decode_row, encode_rows, encode_tombstone
from core_ext.row_table import RowTable
from core_ext.twin import request_core as twin
from core_ext.window_plan import plan_windows
from core_ext.windows import CorruptMapError, Windows
from headrace.definitions.transforms import AGGREGATES
from headrace.expressions import compile_expression
from headrace.types import Scalar, Shape, ValueType
from protos.feature.v1 import online_feature_service_pb2 as pb

F64, I64, STRING = Scalar.F64, Scalar.I64, Scalar.STRING
MINUTE_US, HOUR_US = 60_000_000, 3_600_000_000
NOW_US = 1_700_000_000_000_000
SCHEMA_ID, VIEW_ID, ENTITY_ID = 7, 5, 3
TILES_AT = 56
HANDLE = bytes(range(32))
MEAN = compile_expression("total / cast(n as f64)", {"total": ValueType(F64), "n": ValueType(I64)})
COLUMNS = [(F64, 0, 0), (STRING, 0, 0), (I64, 0, 0), (F64, 0, 0), (STRING, Shape.VARIABLE, 0), (F64, 0, 0)]
SOURCES = [(FROM_WINDOW, 0), (FROM_LATEST, 0), (FROM_WINDOW, 1), (FROM_WINDOW, 2), (FROM_WINDOW, 3), (FROM_DERIVED, 0)]
TOTAL, NAME, COUNT, LARGEST, LAST, RATE = range(6)
COMPUTED = frozenset({TOTAL, COUNT, LARGEST, LAST, RATE})


def made() -> ComputedView:
    features = [
        (AGGREGATES["sum"], 0, -1, HOUR_US, MINUTE_US, 0),
        (AGGREGATES["count"], 0, -1, HOUR_US, MINUTE_US, 0),
        (AGGREGATES["max"], 0, -1, 24 * HOUR_US, HOUR_US, 0),
        (AGGREGATES["last_n"], 1, -1, HOUR_US, MINUTE_US, 3),
    ]
    windows = Windows(plan_windows(features, [F64, STRING]))
    places = {"total": TOTAL, "n": COUNT}
    columns = [(int(scalar), int(shape), size) for scalar, shape, size in COLUMNS]
    programs = [(Program(MEAN.program), [places[name] for name in MEAN.columns])]
    return ComputedView(SCHEMA_ID, columns, SOURCES, windows, programs)


VIEW = made()
Event = tuple[int, float | None, str | None]
TEXTS = st.one_of(st.none(), st.text(max_size=5))
EVENTS = st.lists(
    st.tuples(st.integers(0, 2 * HOUR_US), st.one_of(st.none(), st.floats(-1e9, 1e9)), TEXTS), min_size=1, max_size=20
)


def delta(events: list[Event], first_offset: int = 0) -> bytes:
    """Row whose tile map is a delta."""
    assert VIEW.windows is not None
    times = np.array([NOW_US - before for before, _, _ in events], np.int64)
    values, texts = (
        pa.array([one for _, one, _ in events], pa.float64()),
        pa.array([one for _, _, one in events], pa.string()),
    )
    count = len(events)
    found = VIEW.windows.update(
        [arrow_column(values), arrow_column(texts)],
        times,
        np.zeros(count, np.int64),
        1,
        write_us=np.full(count, NOW_US, np.int64),
        offsets=np.arange(first_offset, first_offset + count, dtype=np.int64),
    )
    newest = int(np.lexsort((np.arange(count), times))[-1])
    rows = encode_rows(VIEW.stored, [arrow_column(texts)], times)
    latest = rows.stamp(np.array([newest], np.int64), NOW_US, None, 0, 0, first_offset)[0]
    assert found.maps[0] is not None
    return VIEW.with_tiles(latest, found.maps[0])


def stored(*parts: list[Event]) -> bytes | None:
    """Row of some writes, one after the other."""
    row, offset = None, 0
    for events in parts:
        offset += len(events)
        row = VIEW.merge(row, delta(events, offset - len(events)), offset - 1).row
    return row


@given(st.lists(EVENTS, max_size=4), st.integers(0, 3 * HOUR_US))
def test_an_image_holds_what_its_parts_say(parts: list[list[Event]], after_us: int) -> None:
    row, read_us = stored(*parts), NOW_US + after_us
    header, values = decode_row(VIEW.answered, VIEW.image(row, read_us))
    assert VIEW.windows is not None
    tiles = row[struct.unpack_from("<I", row, 56)[0] : -4] if row is not None else None
    folded = VIEW.windows.fold(tiles, read_us).values
    assert [values[TOTAL], values[COUNT], values[LARGEST], values[LAST]] == folded
    events = [one for part in parts for one in part]
    assert values[NAME] == (min(enumerate(events), key=lambda one: (one[1][0], -one[0]))[1][2] if events else None)
    inputs = [{"total": values[TOTAL], "n": values[COUNT]}[name] for name in MEAN.columns]
    assert values[RATE] == Program(MEAN.program).evaluate_row(inputs)[0]
    assert header.event_time_us == (max(NOW_US - before for before, _, _ in events) if events else 0)


@given(EVENTS, st.randoms(use_true_random=False))
def test_chunks_and_their_order_change_nothing_but_ties(events: list[Event], chance: random.Random) -> None:
    distinct = list({before: (before, value, text) for before, value, text in events}.values())
    shuffled = chance.sample(distinct, len(distinct))
    cut = chance.randint(0, len(distinct))
    one = VIEW.image(stored(distinct), NOW_US)
    other = VIEW.image(stored(*[part for part in (shuffled[:cut], shuffled[cut:]) if part]), NOW_US)
    assert decode_row(VIEW.answered, one)[1] == decode_row(VIEW.answered, other)[1]


def test_a_delta_before_an_erasure_changes_nothing_and_one_after_starts_anew() -> None:
    grave = encode_tombstone(SCHEMA_ID, NOW_US + 10, NOW_US, 0, 0, 9)
    merged = VIEW.merge(grave, delta([(0, 1.0, "a")]), 10)
    assert merged.is_stale
    assert merged.row == grave
    anew = VIEW.merge(encode_tombstone(SCHEMA_ID, NOW_US - 10, NOW_US, 0, 0, 9), delta([(0, 1.0, "a")]), 10)
    assert not anew.is_stale
    assert decode_row(VIEW.answered, VIEW.image(anew.row, NOW_US))[1][:3] == [1.0, "a", 1]


@pytest.mark.parametrize("at", [3, 40, 70, 90, 120, -5])
def test_damaged_rows_are_refused(at: int) -> None:
    row = bytearray(stored([(5, 1.0, "a")]) or b"")
    row[at] ^= 0x41
    with pytest.raises(CorruptRowError):
        VIEW.image(bytes(row), NOW_US)
    with pytest.raises(CorruptRowError):
        VIEW.merge(bytes(row), delta([(0, 1.0, "a")]), 3)


def batch_row(events: list[Event], covered: int) -> bytes:
    """Row that a batch has made of all events up to an offset."""
    assert VIEW.windows is not None
    row = delta(events)
    tiles = struct.unpack_from("<I", row, TILES_AT)[0]
    return VIEW.with_tiles(row, VIEW.windows.stamp(row[tiles:-4], NOW_US, covered))


def offsets_in(row: bytes) -> list[int]:
    """Log offsets of all tiles, read by the layout of native/hr_window_map.h."""
    assert VIEW.windows is not None
    tile_map = row[struct.unpack_from("<I", row, TILES_AT)[0] : -4]
    ladders = VIEW.windows.plan.ladders
    sizes = [20 + 4 * ladder.state_count for ladder in ladders for _ in ladder.sizes_us]
    found, at = [], 48 + 8 * len(sizes)
    for section, size in enumerate(sizes):
        count, heap = struct.unpack_from("<II", tile_map, 48 + 8 * section)
        found += [struct.unpack_from("<q", tile_map, at + size * tile + 8)[0] for tile in range(count)]
        at += size * count + heap
    return found


@given(EVENTS, EVENTS, st.integers(-1, 60), st.integers(0, 60))
def test_a_batch_takes_the_place_of_what_it_has_seen_and_of_nothing_else(
    streamed: list[Event], batched: list[Event], covered: int, offset: int
) -> None:
    held = VIEW.merge(None, delta(streamed), offset).row
    assert VIEW.covered(held) == max(offsets_in(held))
    row = batch_row(batched, covered)
    found = VIEW.replace(held, row, covered)
    if offset > covered:
        assert found == (held, False, True)
        return
    assert not found.is_deferred
    assert VIEW.covered(found.row) == max(offsets_in(found.row)) == covered
    windows = [place for place in COMPUTED if place != RATE]
    ours, theirs = (decode_row(VIEW.answered, VIEW.image(one, NOW_US))[1] for one in (found.row, row))
    assert [ours[place] for place in windows] == [theirs[place] for place in windows]
    assert VIEW.replace(found.row, row, covered) == (found.row, True, False), "once more changes nothing"
    VIEW.check(found.row)


def test_a_batch_never_wakes_what_was_erased_later_and_buries_what_was_erased_before() -> None:
    row = batch_row([(0, 1.0, "a")], 5)
    later = encode_tombstone(SCHEMA_ID, NOW_US + 10, NOW_US, 0, 0, 9)
    earlier = encode_tombstone(SCHEMA_ID, NOW_US - 10, NOW_US - 10, 0, 0, 3)
    assert VIEW.replace(later, row, 5) == (later, True, False)
    assert VIEW.replace(earlier, row, 5) == (row, False, False)
    assert VIEW.replace(None, row, 5) == (row, False, False)
    assert VIEW.replace(row, later, 5) == (later, False, False)
    assert VIEW.replace(row, later, 4) == (row, False, True)
    assert VIEW.replace(row, earlier, 5) == (row, True, False)


def test_rows_that_no_batch_makes_are_refused() -> None:
    row = batch_row([(0, 1.0, "a")], 5)
    VIEW.check(row)
    with pytest.raises(CorruptMapError):
        VIEW.check(delta([(0, 1.0, "a")]))
    bare = encode_rows(VIEW.stored, [arrow_column(pa.array(["a"]))], np.array([NOW_US]))
    with pytest.raises(CorruptRowError, match="no tiles"):
        VIEW.check(bare.stamp(np.array([0]), NOW_US, None, 0, 0, 0)[0])
    for at in (3, 90, len(row) - 9):
        damaged = bytearray(row)
        damaged[at] ^= 0x41
        with pytest.raises(CorruptRowError):
            VIEW.check(bytes(damaged))


def test_a_map_of_other_windows_is_refused() -> None:
    other = Windows(plan_windows([(AGGREGATES["count"], -1, -1, HOUR_US, MINUTE_US, 0)], []))
    tiles = other.update([], np.array([NOW_US]), np.zeros(1, np.int64), 1).maps[0]
    assert tiles is not None
    rows = encode_rows(VIEW.stored, [arrow_column(pa.array(["a"]))], np.array([NOW_US]))
    row = VIEW.with_tiles(rows.stamp(np.array([0]), NOW_US, None, 0, 0, 0)[0], tiles)
    check_row(row)
    with pytest.raises(CorruptMapError):
        VIEW.image(row, NOW_US)


def test_rows_that_grow_too_long_are_refused() -> None:
    with pytest.raises(ValueError, match="longer than a row may be"):
        VIEW.with_tiles(stored([(0, 1.0, "a")]) or b"", bytes(1 << 20))


@given(
    st.dictionaries(st.integers(0, 5), st.one_of(st.none(), EVENTS, st.just("erased"), st.just("damaged")), max_size=6),
    st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=8),
    st.sampled_from([0, HOUR_US]),
    st.booleans(),
)
def test_the_request_core_answers_as_its_twin(
    held: dict[int, list[Event] | str | None], users: list[int | None], ttl_us: int, expired: bool
) -> None:
    def row_of(what: list[Event] | str | None) -> bytes | None:
        if what == "erased":
            return encode_tombstone(SCHEMA_ID, NOW_US - 9, NOW_US, 0, 0, 9)
        if isinstance(what, str):
            return encode_rows(Schema(SCHEMA_ID, []), [], np.array([NOW_US])).stamp(np.array([0]), 0, None, 0, 0, 0)[0]
        return stored(what) if what else None

    rows = {
        storage_key(ENTITY_ID, encode_key([int(I64)], [user]), VIEW_ID): row_of(held.get(user)) for user in range(6)
    }
    table = RowTable(1 << 20)
    table.fill(list(rows), list(rows.values()), table.ticket())
    core = RequestCore(table, 1)
    outputs = [
        ("total", TOTAL, None),
        ("name", NAME, b"none"),
        ("n", COUNT, None),
        ("last", LAST, None),
        ("rate", RATE, bytes(8)),
    ]
    columns = [(name, 0, place, default) for name, place, default in outputs]
    groups = [(0, VIEW_ID, VIEW.answered, ttl_us, 0, 2, VIEW)]
    plan = Plan(HANDLE, 1, [("user", int(I64))], [(ENTITY_ID, [0])], groups, columns)
    request = pb.GetOnlineFeaturesRequest(
        handle=HANDLE,
        entity_columns=[
            pb.EntityColumn(
                join_key="user",
                int64_values=[user or 0 for user in users],
                null_rows=[place for place, user in enumerate(users) if user is None],
            )
        ],
        options=pb.ReadOptions(include_event_times=True, include_expired=expired),
    ).SerializeToString()
    kinds = [(int(scalar), int(shape), size) for scalar, shape, size in COLUMNS]
    computed = twin.Computed([kinds[NAME]], VIEW.image, COMPUTED)
    group = twin.Group(0, VIEW_ID, SCHEMA_ID, kinds, ttl_us, 0, 2, computed)
    wanted = twin.Plan(
        HANDLE,
        1,
        [("user", int(I64))],
        [(ENTITY_ID, [0])],
        [group],
        [twin.Output(name, 0, place, default) for name, place, default in outputs],
    )
    read_us = NOW_US + HOUR_US // 2
    assert core.serve(request, read_us, plan) == twin.serve(request, wanted, rows, read_us)


def test_views_that_do_not_fit_together_are_refused() -> None:
    windows = VIEW.windows
    whole, wide = (int(I64), 0, 0), (int(F64), 0, 0)
    rate = (Program(MEAN.program), [0, 1])
    cases = [
        ([wide], [], windows, [], "one source per column"),
        ([wide], [(9, 0)], windows, [], "no source"),
        ([wide], [(FROM_WINDOW, 4)], windows, [], "is window 4"),
        ([whole], [(FROM_WINDOW, 0)], windows, [], "another type than its window"),
        ([wide], [(FROM_LATEST, 1)], windows, [], "comes next"),
        ([wide], [(FROM_DERIVED, 0)], windows, [], "is program 0"),
        ([wide, whole], [(FROM_LATEST, 0), (FROM_DERIVED, 0)], windows, [rate], "as another type"),
    ]
    for columns, sources, given_windows, programs, message in cases:
        with pytest.raises(ValueError, match=message):
            ComputedView(1, columns, sources, given_windows, programs)
