"""Plans of windows: which states are kept, in which tiles. The kernel, its twin and the registry share this module."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

NO_COLUMN: Final = -1
EVENT_TIME: Final = -2  # instead of a column: the times of the events themselves
TIME_MAX_US: Final = 1 << 60  # of events and reads, either side of 1970
MERGES_MAX: Final = 48  # that a fold may need for one value
LEVELS_MAX: Final = 32
FEATURES_MAX: Final = 2_000  # as many as a request may read
HALF_LIVES_MAX: Final = 512  # of a window of decayed sums, as native/hr_state_value.h
WINDOW_MAX_US: Final = 1 << 50  # thirty-five years; definitions allow ten

COUNT, SUM, MOMENTS, MIN, MAX, FIRST, LAST, DISTINCT, QUANTILE, TOP, LAST_N, RATIO, DECAYED = range(1, 14)
"""Kinds of states, numbered as in native/hr_state_value.h."""

KIND_OF: Final = (
    0,
    COUNT,
    SUM,
    SUM,
    MIN,
    MAX,
    FIRST,
    LAST,
    MOMENTS,
    MOMENTS,
    DISTINCT,
    QUANTILE,
    TOP,
    LAST_N,
    RATIO,
    DECAYED,
)
"""Kind of state by aggregate, numbered as in headrace/definitions/transforms.py."""

MAP_LAYOUT: Final = 1  # as native/hr_window_map.h
_GROUP_MAX: Final = 6  # ratios up to it are one step; greater ones are split into steps near 4
_STEPS: Final = (4, 5, 3, 6, 2, 7, 8, 9, 10, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
_GROWTH: Final = 4
_TOP_TILES_MAX: Final = 8  # tiles of the coarsest size in the longest window, above which a coarser one is added
_HEADER_BYTES: Final = 52
_ENTRY_BYTES: Final = 20
_STATE_BYTES: Final = {
    COUNT: 4,
    SUM: 20,
    MOMENTS: 36,
    MIN: 9,
    MAX: 9,
    FIRST: 44,
    LAST: 44,
    DISTINCT: 512,
    QUANTILE: 128,
    TOP: 256,
    RATIO: 40,
    DECAYED: 28,
}
_ITEM_BYTES: Final = 44  # a kept value of last_n with its order
_TIMESTAMP_US: Final = 8  # of headrace.types.Scalar


class PlanError(ValueError):
    """Windows that no plan can serve; `feature` is the place of the one at fault."""

    def __init__(self, message: str, feature: int) -> None:
        super().__init__(message)
        self.feature = feature


class State(NamedTuple):
    """What is kept of the inputs, in every tile of its ladder. Types are those of headrace.types.Scalar, 0 for none.

    `column` is a place among the inputs, NO_COLUMN or EVENT_TIME.
    """

    kind: int
    scalar: int
    scalar2: int
    parameter: int
    column: int
    column2: int


class Ladder(NamedTuple):
    """Tile sizes from fine to coarse, each a multiple of the one before, and how long the tiles of each are read.

    The states of a ladder are states[first_state : first_state + state_count] of the plan. Where sessions are read from
    it, the last two are the times of the first and last event (docs/decisions/0033-session-windows.md).
    """

    sizes_us: tuple[int, ...]
    keeps_us: tuple[int, ...]
    first_state: int
    state_count: int


class Span(NamedTuple):
    """One window over one ladder. `level` is the coarsest level whose tiles fit between any two starts.

    With a gap it is a session: of the window's events those since the last pause that is longer. 0 is none.
    """

    ladder: int
    level: int
    window_us: int
    hop_us: int
    gap_us: int = 0


class PlannedFeature(NamedTuple):
    """Where the value of a feature comes from."""

    aggregate: int
    parameter: int
    state: int
    span: int


class WindowPlan(NamedTuple):
    """What the kernel computes. `check` is the number that maps carry: equal where the tiles mean the same."""

    input_scalars: tuple[int, ...]
    states: tuple[State, ...]
    ladders: tuple[Ladder, ...]
    spans: tuple[Span, ...]
    features: tuple[PlannedFeature, ...]
    check: int


class _Want(NamedTuple):
    """A feature on its way into a plan."""

    place: int
    aggregate: int
    state: State
    window_us: int
    hop_us: int
    parameter: int
    gap_us: int


class _Chain(NamedTuple):
    """Features that one state and one ladder serve."""

    wants: tuple[_Want, ...]
    state: State
    sizes: tuple[int, ...]
    keeps: tuple[int, ...]


_Ladders = dict[tuple[tuple[int, ...], tuple[int, ...], bool], list[_Chain]]
"""Chains by sizes, by how long the tiles are read, and by whether sessions are."""

_SESSION_EDGES: Final = tuple(State(kind, _TIMESTAMP_US, 0, 0, EVENT_TIME, NO_COLUMN) for kind in (MIN, MAX))


def plan_windows(features: Sequence[tuple[int, ...]], input_scalars: Sequence[int]) -> WindowPlan:
    """Plan of the window features of a view: (aggregate, column, column2, window_us, hop_us, parameter) each.

    A seventh number is the gap of a session. `input_scalars` are the types of the inputs. Raises PlanError.
    """
    if len(features) > FEATURES_MAX:
        raise PlanError(f"a view has at most {FEATURES_MAX} windows, not {len(features)}", FEATURES_MAX)
    wants = [_wanted(place, feature, input_scalars) for place, feature in enumerate(features)]
    families: dict[object, list[_Want]] = {}
    for want in wants:
        # Tiles of a session are one hop long, so that no pause lies inside of one.
        families.setdefault((_family(want.state), want.hop_us if want.gap_us > 0 else 0), []).append(want)
    chains = [chain for family in families.values() for chain in _chains(family)]
    by_ladder: _Ladders = {}
    for chain in chains:
        by_ladder.setdefault((chain.sizes, chain.keeps, chain.wants[0].gap_us > 0), []).append(chain)
    return _assembled(by_ladder, len(features), tuple(input_scalars))


def expected_bytes(plan: WindowPlan) -> int:
    """Size of a map whose tiles all hold events, texts of some twenty bytes assumed: what a busy entity reaches."""
    total = _HEADER_BYTES + 8 * sum(len(ladder.sizes_us) for ladder in plan.ladders)
    for ladder in plan.ladders:
        states = plan.states[ladder.first_state : ladder.first_state + ladder.state_count]
        tile_bytes = _ENTRY_BYTES + sum(4 + _expected_state_bytes(state) for state in states)
        for level, size in enumerate(ladder.sizes_us):
            total += tile_bytes * (-(-ladder.keeps_us[level] // size) + coarser(ladder, level) // size + 2)
    return total


def merges_max(ladder: Ladder, span: Span) -> int:
    """Most tiles that a fold of the span reads where no event is after the read time."""
    return _merges_max(ladder.sizes_us, span.level, span.window_us, span.hop_us)


def coarser(ladder: Ladder, level: int) -> int:
    """Size of the next coarser tile, or of the coarsest."""
    return ladder.sizes_us[min(level + 1, len(ladder.sizes_us) - 1)]


def window_start(time_us: int, window_us: int, hop_us: int) -> int:
    """Where the window of a read begins, itself excluded."""
    return (time_us - window_us) // hop_us * hop_us


def kept_from(ladder: Ladder, level: int, newest_us: int) -> int:
    """Start of the oldest tile of a level that a read can need, one finest tile before the newest event or later."""
    size = coarser(ladder, level)
    return (newest_us - ladder.keeps_us[level] - ladder.sizes_us[0]) // size * size


def tile_of(time_us: int, size_us: int) -> int:
    """Number k of the tile (k * size, (k + 1) * size] that holds a time."""
    return (time_us - 1) // size_us


def _expected_state_bytes(state: State) -> int:
    return state.parameter * _ITEM_BYTES if state.kind == LAST_N else _STATE_BYTES[state.kind]


def _wanted(place: int, feature: tuple[int, ...], scalars: Sequence[int]) -> _Want:
    aggregate, column, column2, window_us, hop_us, parameter, gap_us = (*feature, 0)[:7]
    if not 1 <= aggregate < len(KIND_OF):
        raise PlanError(f"feature {place}: aggregate {aggregate} is unknown", place)
    kind = KIND_OF[aggregate]
    for input_place, is_wanted in ((column, kind != COUNT), (column2, kind == RATIO)):
        if not (0 <= input_place < len(scalars)) and (is_wanted or input_place != NO_COLUMN):
            raise PlanError(f"feature {place}: input {input_place} is none of the {len(scalars)}", place)
    if not 1 <= hop_us <= window_us <= WINDOW_MAX_US:
        message = f"feature {place}: a window of {window_us} us with a hop of {hop_us} us: write 1 <= hop <= window"
        raise PlanError(f"{message} <= {WINDOW_MAX_US}", place)
    if gap_us != 0 and not hop_us <= gap_us <= window_us:
        message = f"feature {place}: a session with a gap of {gap_us} us in a window of {window_us} us with a hop of"
        raise PlanError(f"{message} {hop_us} us: write hop <= gap <= window", place)
    if kind == DECAYED and window_us > HALF_LIVES_MAX * parameter:
        message = f"feature {place}: a window of {window_us} us holds more than {HALF_LIVES_MAX} half lives"
        raise PlanError(f"{message} of {parameter} us: take a shorter window", place)
    state = State(
        kind,
        scalars[column] if column != NO_COLUMN else 0,
        scalars[column2] if kind == RATIO else 0,
        parameter if kind in (LAST_N, DECAYED) else 0,
        column,
        column2 if kind == RATIO else NO_COLUMN,
    )
    return _Want(place, aggregate, state, window_us, hop_us, parameter, gap_us)


def _family(state: State) -> object:
    """Equal for features that one state can serve: a moment answers what a sum does, a sum what a count does."""
    return state._replace(kind=SUM) if state.kind in (COUNT, SUM, MOMENTS) and state.column != NO_COLUMN else state


def _chains(family: list[_Want]) -> Iterator[_Chain]:
    """Chains of a family: hops that divide one another, for as long as the finer windows reach the coarser hop."""
    groups: list[list[_Want]] = []
    for want in sorted(family, key=lambda one: (one.hop_us, one.window_us, one.place)):
        for group in groups:
            reach = max(one.window_us for one in group)
            if want.hop_us % group[-1].hop_us == 0 and want.hop_us <= reach:
                group.append(want)
                break
        else:
            groups.append([want])
    for group in groups:
        chain = _chain(group)
        if _excess(chain) is None:
            yield chain
        else:
            yield from _split(group)


def _split(group: list[_Want]) -> Iterator[_Chain]:
    """One chain per hop, where a shared ladder would need too many merges."""
    for hop in dict.fromkeys(want.hop_us for want in group):
        chain = _chain([want for want in group if want.hop_us == hop])
        want = _excess(chain)
        if want is not None:
            raise PlanError(
                f"feature {want.place}: a window of {want.window_us} us with a hop of {want.hop_us} us needs more than "
                f"{MERGES_MAX} merges a value: take a longer hop",
                want.place,
            )
        yield chain


def _chain(group: list[_Want]) -> _Chain:
    sizes = _sizes([want.hop_us for want in group], max(want.window_us for want in group))
    keeps = tuple(
        max(want.window_us for want in group if _level(sizes, want.hop_us) <= level) for level in range(len(sizes))
    )
    kind = max(want.state.kind for want in group)
    return _Chain(tuple(group), group[0].state._replace(kind=kind), sizes, keeps)


def _sizes(hops: list[int], window_us: int) -> tuple[int, ...]:
    sizes = [min(hops)]
    for hop in sorted(set(hops)):
        while sizes[-1] < hop:
            ratio = hop // sizes[-1]
            step = ratio if ratio <= _GROUP_MAX else next((one for one in _STEPS if ratio % one == 0), ratio)
            sizes.append(sizes[-1] * step)
    while window_us > _TOP_TILES_MAX * sizes[-1] and len(sizes) <= LEVELS_MAX:
        sizes.append(sizes[-1] * _GROWTH)
    return tuple(sizes)


def _level(sizes: tuple[int, ...], hop_us: int) -> int:
    """Coarsest level whose size divides the hop."""
    return max(level for level, size in enumerate(sizes) if hop_us % size == 0)


def _merges_max(sizes: tuple[int, ...], level: int, window_us: int, hop_us: int) -> int:
    total = 0
    for at in range(level, len(sizes)):
        held = -(-(window_us + hop_us) // sizes[at]) + 1
        total += held if at + 1 == len(sizes) else min(held, sizes[at + 1] // sizes[at] - 1)
    return total


def _excess(chain: _Chain) -> _Want | None:
    """A feature that the ladder of the chain serves too slowly."""
    for want in chain.wants:
        level = _level(chain.sizes, want.hop_us)
        if _merges_max(chain.sizes, level, want.window_us, want.hop_us) > MERGES_MAX or len(chain.sizes) > LEVELS_MAX:
            return want
    return None


def _assembled(by_ladder: _Ladders, feature_count: int, input_scalars: tuple[int, ...]) -> WindowPlan:
    states: list[State] = []
    ladders: list[Ladder] = []
    spans: dict[Span, int] = {}
    features: list[PlannedFeature | None] = [None] * feature_count
    for (sizes, keeps, has_sessions), chains in by_ladder.items():
        first_state = len(states)
        for chain in chains:
            for want in chain.wants:
                span = Span(len(ladders), _level(sizes, want.hop_us), want.window_us, want.hop_us, want.gap_us)
                at = spans.setdefault(span, len(spans))
                features[want.place] = PlannedFeature(want.aggregate, want.parameter, len(states), at)
            states.append(chain.state)
        states += _SESSION_EDGES if has_sessions else ()
        ladders.append(Ladder(sizes, keeps, first_state, len(states) - first_state))
    placed = tuple(feature for feature in features if feature is not None)
    assert len(placed) == feature_count
    return WindowPlan(input_scalars, tuple(states), tuple(ladders), tuple(spans), placed, _check(states, ladders))


def _check(states: list[State], ladders: list[Ladder]) -> int:
    parts = [[MAP_LAYOUT], *[list(state) for state in states]]
    for ladder in ladders:
        parts.append([*ladder.sizes_us, *ladder.keeps_us, ladder.first_state, ladder.state_count])
    text = ";".join(",".join(map(str, part)) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
