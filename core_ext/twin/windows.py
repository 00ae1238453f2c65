"""Twin of core_ext.windows: tiles keep the events themselves, and states are derived from them when written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from core_ext.twin import states
from core_ext.twin.hashing import crc32c
from core_ext.window_plan import (
    EVENT_TIME,
    MAP_LAYOUT,
    NO_COLUMN,
    Ladder,
    State,
    WindowPlan,
    kept_from,
    tile_of,
    window_start,
)

TIME_NONE: Final = -(1 << 63)
FULL, DELTA = 1, 2
NAMES: Final = (
    *("", "count", "sum", "avg", "min", "max", "first", "last", "stddev", "variance", "approx_distinct"),
    *("quantile", "top_k", "last_n", "ratio", "decayed_sum"),
)
"""Aggregates by their number."""

_MAGIC: Final = 0xD8
_BATCH: Final = 1 << 31


class Row(NamedTuple):
    """One event: its inputs, and the fields of the total order."""

    inputs: tuple[Any, ...]
    event_us: int
    write_us: int = 0
    source_id: int = 0
    partition: int = 0
    offset: int = 0


class Tile(NamedTuple):
    """Events of one tile."""

    rows: tuple[Row, ...]
    covered: int = TIME_NONE
    is_batch: bool = False


class Left(NamedTuple):
    """What a merge left out, as core_ext.windows.Merged names it."""

    late_events: int = 0
    replayed_tiles: int = 0
    overtaken_tiles: int = 0
    split_tiles: int = 0


@dataclass(frozen=True)
class TileMap:
    """A map; `sections` hold the tiles of each ladder and level by their number."""

    kind: int = FULL
    newest: int = TIME_NONE
    cut: int = TIME_NONE
    covered: int = TIME_NONE
    sections: tuple[dict[int, Tile], ...] = ()


@dataclass
class _Counts:
    late: int = 0
    replayed: int = 0
    overtaken: int = 0
    split: int = 0
    tops: list[int] = field(default_factory=list)


def delta(plan: WindowPlan, rows: Sequence[Row]) -> tuple[TileMap, int]:
    """Delta of the events of one group, and how many are in none of its tiles."""
    newest = max(row.event_us for row in rows)
    sections, late = [], []
    for ladder, level in _levels(plan):
        tiles: dict[int, Tile] = {}
        for row in rows:
            k = tile_of(row.event_us, ladder.sizes_us[level])
            tiles[k] = Tile((*tiles.get(k, Tile(())).rows, row))
        kept = _kept(tiles, ladder, level, newest)
        sections.append(kept)
        if level + 1 == len(ladder.sizes_us):
            late.append(len(rows) - sum(len(tile.rows) for tile in kept.values()))
    return TileMap(DELTA, newest, sections=tuple(sections)), min(late, default=0)


def apply(plan: WindowPlan, base: TileMap, added: TileMap, offset: int) -> tuple[TileMap, Left]:
    """Full map with a delta that was written at an offset."""
    newest, counts = max(base.newest, added.newest), _Counts()
    sections: list[dict[int, Tile]] = []
    for at, (ladder, level) in enumerate(_levels(plan)):
        size, cut = ladder.sizes_us[level], _cut(ladder, base.cut)
        old, new, merged = _section(base, at), added.sections[at], {}
        for k in sorted(old.keys() | new.keys()):
            if _is_split(k, size, cut) and _has_children(ladder, level, k, newest):
                tile = _parent(sections[-1], ladder, level, k)
            else:
                covered = base.covered if cut != TIME_NONE and (k + 1) * size <= cut else TIME_NONE
                tile = _added(old.get(k), new.get(k), covered, offset, counts)
            if tile is not None:
                merged[k] = tile
        sections.append(merged)
        if level + 1 == len(ladder.sizes_us):
            kept = _kept(new, ladder, level, newest)
            counts.tops.append(sum(len(new[k].rows) for k in new.keys() - kept.keys()))
    full = TileMap(FULL, newest, base.cut, base.covered, _pruned(plan, sections, newest))
    return full, Left(min(counts.tops, default=0), counts.replayed)


def merge(plan: WindowPlan, base: TileMap, other: TileMap) -> tuple[TileMap, Left]:
    """What two full maps say together."""
    newest, counts = max(base.newest, other.newest), _Counts()
    owner, loser = (other, base) if (other.cut, other.covered) > (base.cut, base.covered) else (base, other)
    sections: list[dict[int, Tile]] = []
    for at, (ladder, level) in enumerate(_levels(plan)):
        size, cut, merged = ladder.sizes_us[level], _cut(ladder, owner.cut), {}
        for k in sorted(_section(base, at).keys() | _section(other, at).keys()):
            ours, theirs = _section(base, at).get(k), _section(other, at).get(k)
            tile = max((one for one in (ours, theirs) if one is not None), key=lambda one: one.covered)
            if _is_split(k, size, cut) and _has_children(ladder, level, k, newest):
                tile = _parent(sections[-1], ladder, level, k)  # type: ignore[assignment]
            elif _is_split(k, size, cut):
                counts.split += 1
            elif cut != TIME_NONE and (k + 1) * size <= cut:
                tile = _section(owner, at).get(k)  # type: ignore[assignment]
                passed = _section(loser, at).get(k)
                counts.overtaken += passed is not None and passed.covered > owner.covered
            if tile is not None:
                merged[k] = tile
        sections.append(merged)
    full = TileMap(FULL, newest, owner.cut, owner.covered, _pruned(plan, sections, newest))
    return full, Left(0, 0, counts.overtaken, counts.split)


def stamp(added: TileMap, cut: int, covered: int) -> TileMap:
    """Full map of a batch."""
    sections = tuple(
        {k: Tile(tile.rows, covered, is_batch=True) for k, tile in section.items()} for section in added.sections
    )
    return TileMap(FULL, added.newest, cut, covered, sections)


def encode(plan: WindowPlan, tile_map: TileMap) -> bytes:
    """Bytes of a map."""
    table, body = b"", b""
    for at, (ladder, _) in enumerate(_levels(plan)):
        kept = plan.states[ladder.first_state : ladder.first_state + ladder.state_count]
        entries, heap = b"", b""
        for k, tile in sorted(_section(tile_map, at).items()):
            entries += _number(k, 8) + _number(tile.covered, 8) + _number(len(tile.rows) | _BATCH * tile.is_batch, 4)
            for state in kept:
                heap += state_bytes(state, tile.rows)
                entries += _number(len(heap), 4)
        table += _number(len(_section(tile_map, at)), 4) + _number(len(heap), 4)
        body += entries + heap
    body += bytes(-len(body) % 4)
    length = 48 + len(table) + len(body) + 4
    head = bytes([_MAGIC, MAP_LAYOUT, tile_map.kind, 0]) + _number(length, 4) + _number(plan.check, 8)
    head += b"".join(_number(one, 8) for one in (tile_map.newest, tile_map.cut, tile_map.covered))
    whole = head + _number(len(table) // 8, 4) + bytes(4) + table + body
    return whole + _number(crc32c(whole), 4)


def evaluate(plan: WindowPlan, rows: Sequence[Row], read_us: int) -> list[tuple[Any, int]]:
    """Value and loss of every feature at a time, from all events of one group."""
    found = []
    for feature in plan.features:
        state, span = plan.states[feature.state], plan.spans[feature.span]
        start = window_start(read_us, span.window_us, span.hop_us)
        seen = [row for row in rows if start < row.event_us <= read_us]
        if span.gap_us > 0:
            seen = _session(seen, span.gap_us, read_us)
        spec = states.Spec(*state[:4])
        found.append(states.result(spec, _events(state, seen), NAMES[feature.aggregate], feature.parameter, read_us))
    return found


def _session(rows: Sequence[Row], gap_us: int, read_us: int) -> list[Row]:
    """Rows, all at or before the read, of the session that is open then."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda row: -row.event_us):
        if (found[-1].event_us if found else read_us) - row.event_us > gap_us:
            break
        found.append(row)
    return found


def state_bytes(state: State, rows: Sequence[Row]) -> bytes:
    """Encoded state of some events."""
    return states.encode(states.Spec(*state[:4]), _events(state, rows))


def _events(state: State, rows: Sequence[Row]) -> list[states.Event]:
    return [states.Event(_input(row, state.column), _input(row, state.column2), *row[1:]) for row in rows]


def _input(row: Row, column: int) -> Any:
    if column == EVENT_TIME:
        return row.event_us
    return None if column == NO_COLUMN else row.inputs[column]


def _levels(plan: WindowPlan) -> Iterator[tuple[Ladder, int]]:
    return ((ladder, level) for ladder in plan.ladders for level in range(len(ladder.sizes_us)))


def _section(tile_map: TileMap, at: int) -> dict[int, Tile]:
    return tile_map.sections[at] if tile_map.sections else {}


def _cut(ladder: Ladder, cut: int) -> int:
    return cut if cut == TIME_NONE else cut // ladder.sizes_us[0] * ladder.sizes_us[0]


def _is_split(k: int, size: int, cut: int) -> bool:
    return cut != TIME_NONE and k * size < cut < (k + 1) * size


def _has_children(ladder: Ladder, level: int, k: int, newest: int) -> bool:
    return level > 0 and k * ladder.sizes_us[level] >= kept_from(ladder, level - 1, newest)


def _parent(below: dict[int, Tile], ladder: Ladder, level: int, k: int) -> Tile | None:
    ratio = ladder.sizes_us[level] // ladder.sizes_us[level - 1]
    children = [below[child] for child in range(k * ratio, (k + 1) * ratio) if child in below]
    if not children:
        return None
    rows = tuple(row for child in children for row in child.rows)
    return Tile(rows, max(child.covered for child in children), all(child.is_batch for child in children))


def _added(old: Tile | None, new: Tile | None, covered: int, offset: int, counts: _Counts) -> Tile | None:
    if new is None or offset <= (covered if old is None else old.covered):
        counts.replayed += new is not None
        return old
    return Tile(new.rows, offset) if old is None else Tile((*old.rows, *new.rows), offset, old.is_batch)


def _kept(tiles: dict[int, Tile], ladder: Ladder, level: int, newest: int) -> dict[int, Tile]:
    first = kept_from(ladder, level, newest)
    return {k: tile for k, tile in tiles.items() if k * ladder.sizes_us[level] >= first}


def _pruned(plan: WindowPlan, sections: list[dict[int, Tile]], newest: int) -> tuple[dict[int, Tile], ...]:
    pairs = zip(sections, _levels(plan), strict=True)
    return tuple(_kept(section, ladder, level, newest) for section, (ladder, level) in pairs)


def _number(value: int, size: int) -> bytes:
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")
