"""Which tiles of a stored map a read folds into a value: what native/hr_window_fold.h takes, told for people."""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from core_ext.window_plan import Ladder, Span, WindowPlan, tile_of, window_start

_NEWEST_AT: Final = 16  # places as native/hr_window_map.h draws them
_SECTIONS_AT: Final = 48
_SECTION: Final = struct.Struct("<II")
_TILE: Final = struct.Struct("<qqI")
_STATE_END_BYTES: Final = 4
_BATCH: Final = 1 << 31
_TIME_NONE: Final = -(1 << 63)


class FoldedTile(NamedTuple):
    """A tile holds the events of (start, start + width]; no covered offset where none is known."""

    start_us: int
    width_us: int
    event_count: int
    covered_offset: int | None
    is_batch: bool


class FoldedWindow(NamedTuple):
    """A window covers (start, read time], of a session what is open of it; no newest event where no map is stored."""

    start_us: int
    newest_us: int | None
    tiles: tuple[FoldedTile, ...]


def folded_window(plan: WindowPlan, tile_map: bytes | None, feature: int, read_us: int) -> FoldedWindow:
    """Window of a feature at a read time, and its tiles by their start.

    The map must have passed `Windows.check_map`; None is a row that is not stored.
    """
    span = plan.spans[plan.features[feature].span]
    start_us = window_start(read_us, span.window_us, span.hop_us)
    if tile_map is None:
        return FoldedWindow(start_us, None, ())
    newest_us = int.from_bytes(tile_map[_NEWEST_AT : _NEWEST_AT + 8], "little", signed=True)
    ladder = plan.ladders[span.ladder]
    cover = _Cover(ladder, _sections(plan, tile_map)[span.ladder], [])
    if span.gap_us:
        start_us = _session_start(ladder, _edges(plan, tile_map, span.ladder), span, read_us)
    if start_us < read_us:
        cover.take_window(start_us, read_us, span.level, newest_us)
    newest = None if newest_us == _TIME_NONE else newest_us
    return FoldedWindow(start_us, newest, tuple(sorted(cover.taken)))


def _session_start(ladder: Ladder, edges: dict[int, tuple[int, int]], span: Span, read_us: int) -> int:
    """Start of the tile that the open session begins in, as native/hr_window_session.h; the read time without one."""
    size_us = ladder.sizes_us[0]
    first_k = window_start(read_us, span.window_us, span.hop_us) // size_us
    start_us = since_us = read_us
    for k in sorted(edges, reverse=True):
        if k > tile_of(read_us, size_us):
            continue
        first_us, last_us = edges[k]
        if k < first_k or since_us - last_us > span.gap_us:
            break
        since_us, start_us = first_us, k * size_us
    return start_us


class _Cover(NamedTuple):
    """Tiles taken from the levels of one ladder."""

    ladder: Ladder
    levels: Sequence[dict[int, FoldedTile]]
    taken: list[FoldedTile]

    def take_window(self, at: int, read_us: int, level: int, newest_us: int) -> None:
        """Fine tiles up to the coarser ones, and the one that holds the read time whole where no event is later."""
        sizes = self.ladder.sizes_us
        while level + 1 < len(sizes):
            edge = -(-at // sizes[level + 1]) * sizes[level + 1]
            if edge >= read_us:
                break
            self._take(level, at // sizes[level], edge // sizes[level])
            at, level = edge, level + 1
        if newest_us <= read_us:
            self._take(level, at // sizes[level], tile_of(read_us, sizes[level]) + 1)
            return
        for lower in range(level, -1, -1):
            end = read_us // sizes[lower]
            if end * sizes[lower] > at:
                self._take(lower, at // sizes[lower], end)
                at = end * sizes[lower]
        if at < read_us:
            self._take(0, at // sizes[0], at // sizes[0] + 1)

    def _take(self, level: int, first: int, end: int) -> None:
        self.taken.extend(tile for k, tile in self.levels[level].items() if first <= k < end)


def _sections(plan: WindowPlan, tile_map: bytes) -> list[list[dict[int, FoldedTile]]]:
    """Tiles by number, for each ladder and level."""
    section_at = _SECTIONS_AT
    at = _SECTIONS_AT + _SECTION.size * sum(len(ladder.sizes_us) for ladder in plan.ladders)
    found = []
    for ladder in plan.ladders:
        levels = []
        entry_bytes = _TILE.size + _STATE_END_BYTES * ladder.state_count
        for size_us in ladder.sizes_us:
            count, state_bytes = _SECTION.unpack_from(tile_map, section_at)
            section_at += _SECTION.size
            levels.append(dict(_tile(tile_map, at + number * entry_bytes, size_us) for number in range(count)))
            at += count * entry_bytes + state_bytes
        found.append(levels)
    return found


def _edges(plan: WindowPlan, tile_map: bytes, wanted: int) -> dict[int, tuple[int, int]]:
    """Times of the first and last event of the finest tiles of a ladder, which its last two states keep, by tile."""
    section_at = _SECTIONS_AT
    at = _SECTIONS_AT + _SECTION.size * sum(len(ladder.sizes_us) for ladder in plan.ladders)
    for ladder in plan.ladders[:wanted]:
        for _ in ladder.sizes_us:
            count, state_bytes = _SECTION.unpack_from(tile_map, section_at)
            section_at += _SECTION.size
            at += count * (_TILE.size + _STATE_END_BYTES * ladder.state_count) + state_bytes
    ladder = plan.ladders[wanted]
    ends = struct.Struct(f"<{ladder.state_count}I")
    count, _ = _SECTION.unpack_from(tile_map, section_at)
    heap_at, begin = at + count * (_TILE.size + ends.size), 0
    found = {}
    for entry_at in range(at, heap_at, _TILE.size + ends.size):
        bounds = (begin, *ends.unpack_from(tile_map, entry_at + _TILE.size))
        k = _TILE.unpack_from(tile_map, entry_at)[0]
        found[k] = _signed(tile_map, heap_at + bounds[-3]), _signed(tile_map, heap_at + bounds[-2])
        begin = bounds[-1]
    return found


def _signed(data: bytes, at: int) -> int:
    folded = shift = 0
    while True:
        folded |= (data[at] & 0x7F) << shift
        if data[at] < 0x80:
            return folded >> 1 ^ -(folded & 1)
        at, shift = at + 1, shift + 7


def _tile(tile_map: bytes, at: int, size_us: int) -> tuple[int, FoldedTile]:
    k, covered, events = _TILE.unpack_from(tile_map, at)
    known = None if covered == _TIME_NONE else covered
    return k, FoldedTile(k * size_us, size_us, events & ~_BATCH, known, bool(events & _BATCH))
