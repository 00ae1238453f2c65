"""Draws random histories and injects one cause into what a server answered from them."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from batch.skew.attribution import Cause
from batch.skew.served import Answer, Served
from core_ext.twin import rules
from headrace.names import FeatureRef
from tests.unit.batch.skew.history import History, Row, View, answer

HOUR_US = 3_600_000_000
NOW_US = 20_000 * 24 * HOUR_US
NAME = "flights.ops.delays"


@dataclass(frozen=True)
class Situation:
    """What a server had when it answered: rows up to an offset, and the versions of its view."""

    rows: tuple[Row, ...]
    views: dict[int, View]
    time_us: int
    applied_offset: int

    def applied(self) -> list[Row]:
        """The rows that the server had."""
        return [row for row in self.rows if row.offset <= self.applied_offset]

    def served(self, given: Answer, digest: bytes | None = None) -> Served:
        """The logged value."""
        ran = self.views[2].digest if digest is None else digest
        return Served(b"k", FeatureRef(NAME, 2, "x"), given, self.time_us, 0, 1, self.applied_offset, 7, ran)


Injection = Callable[[random.Random, Situation], tuple[Situation, Served] | None]


def situation(draw: random.Random) -> Situation:
    """A history before the read; a third of them with rows that came late or were not applied yet."""
    hop = draw.choice([60_000_000, HOUR_US])
    time_us = NOW_US + draw.randrange(24 * HOUR_US)
    time_us -= time_us % hop if draw.random() < 0.3 else 0
    view = _view(draw, hop)
    other = replace(view, factor=view.factor + draw.randint(1, 5), shift=draw.randint(1, 1_000))
    older = replace(view, kind="mean" if view.kind == "sum" else view.kind, factor=view.factor + 7)
    rows = [_row(draw, time_us, hop, offset) for offset in range(draw.randint(1, 12))]
    here = Situation(tuple(rows), {1: older, 2: view, 3: other}, time_us, len(rows) - 1)
    if draw.random() < 1 / 3:
        here = with_later_rows(draw, here, lag=draw.random() < 0.5, late=True)
    return here


def _view(draw: random.Random, hop: int) -> View:
    default = draw.randint(10**9, 2 * 10**9) if draw.random() < 0.5 else None
    fallback = draw.choice([rules.FALLBACK_NONE, rules.FALLBACK_DEFAULT])
    if draw.random() < 0.5:
        ttl = draw.choice([0, HOUR_US, 6 * HOUR_US])
        return View("latest", draw.randint(1, 9), ttl_us=ttl, default=default, fallback=fallback)
    kind = draw.choice(["sum", "mean"])
    return View(kind, draw.randint(1, 9), 0, draw.choice([1, 6]) * HOUR_US, hop, default=default, fallback=fallback)


def _row(draw: random.Random, time_us: int, hop: int, offset: int) -> Row:
    event_us = time_us - draw.randrange(1, 8 * HOUR_US)
    event_us -= event_us % hop if draw.random() < 0.2 else 0
    amount = None if draw.random() < 0.1 else draw.randint(-(10**8), 10**8)
    write_us = min(event_us + draw.randrange(1, HOUR_US), time_us)
    return Row(event_us, write_us, offset, amount, tombstone=draw.random() < 0.03)


def with_later_rows(draw: random.Random, here: Situation, lag: bool, late: bool) -> Situation:
    """The same with rows above the applied offset: written before the read, or after it."""
    rows = list(here.rows)
    for wanted, written in ((lag, -1), (late, 1)):
        for _ in range(draw.randint(1, 2) if wanted else 0):
            event_us = here.time_us - draw.randrange(2, HOUR_US // 2)
            write_us = here.time_us + written * draw.randrange(1, HOUR_US)
            write_us = max(write_us, event_us) if written < 0 else write_us
            rows.append(Row(event_us, write_us, len(rows), draw.randint(-(10**8), 10**8)))
    return replace(here, rows=tuple(rows))


def late_event(draw: random.Random, here: Situation) -> tuple[Situation, Served] | None:
    here = with_later_rows(draw, replace(here, rows=tuple(here.applied())), lag=False, late=True)
    return here, here.served(answer(here.applied(), here.views[2], here.time_us))


def apply_lag(draw: random.Random, here: Situation) -> tuple[Situation, Served] | None:
    here = with_later_rows(draw, replace(here, rows=tuple(here.applied())), lag=True, late=False)
    return here, here.served(answer(here.applied(), here.views[2], here.time_us))


def ttl(draw: random.Random, here: Situation) -> tuple[Situation, Served] | None:
    """The server holds another TTL, or its clock is hours off."""
    view = here.views[2]
    if view.kind != "latest" or not view.ttl_us:
        return None
    other = replace(view, ttl_us=int(view.ttl_us * draw.choice([0.1, 0.25, 4, 10])))
    return here, here.served(answer(here.applied(), other, here.time_us))


def version(draw: random.Random, here: Situation) -> tuple[Situation, Served] | None:
    """The server answers another version; half of the servers record its digest as well."""
    other = here.views[draw.choice([1, 3])]
    given = answer(here.applied(), other, here.time_us)
    if not given.has_value or given.status & rules.DEFAULTED:
        return None  # an empty slot is the same in every version
    return here, here.served(given, other.digest if draw.random() < 0.5 else None)


def default(draw: random.Random, here: Situation) -> tuple[Situation, Served] | None:
    """The server fills in the default where the view says none, or leaves out the one that it says."""
    view = here.views[2]
    if view.default is None:
        return None
    filled = view.fallback == rules.FALLBACK_DEFAULT
    other = replace(view, fallback=rules.FALLBACK_NONE if filled else rules.FALLBACK_DEFAULT)
    return here, here.served(answer(here.applied(), other, here.time_us))


def boundary(draw: random.Random, here: Situation) -> tuple[Situation, Served] | None:
    """An event lies on an edge, and the server compares it the other way or counts hops one off."""
    view, time_us = here.views[2], here.time_us
    start = (time_us - view.window_us) // view.hop_us * view.hop_us
    choices = [time_us, time_us + 1]
    choices += [] if view.kind == "latest" else [start, start + view.hop_us // 2, start - view.hop_us // 2]
    edge = draw.choice(choices)
    rows = here.applied()
    rows.append(Row(edge, min(time_us, edge), len(rows), draw.randint(-(10**8), 10**8)))
    here = replace(here, rows=tuple(rows), applied_offset=len(rows) - 1)
    if edge == time_us:  # event < T
        twisted = [row for row in rows if row.event_us != time_us]
    elif edge == time_us + 1:  # event <= T + 1
        twisted = [replace(row, event_us=time_us) if row is rows[-1] else row for row in rows]
    elif edge > start:  # one hop late
        twisted = [row for row in rows if not start < row.event_us <= start + view.hop_us]
    else:  # start <= event, or one hop early
        reach = start - 1 if edge == start else start - view.hop_us
        twisted = [replace(row, event_us=start + 1) if reach < row.event_us <= start else row for row in rows]
    seen_us = {time_us: time_us - 1, time_us + 1: time_us + 1}.get(edge, time_us)
    newest_us = max(row.event_us for row in rows if row.event_us <= seen_us)
    return here, here.served(replace(answer(twisted, view, time_us), event_time_us=newest_us))


def code(draw: random.Random, here: Situation) -> tuple[Situation, Served] | None:
    """The server computes otherwise: as the wrong unit, rounded, or with another digest."""
    view = here.views[2]
    twisted = draw.choice([replace(view, factor=view.factor * 1_000), replace(view, shift=view.shift + 1)])
    given = answer(here.applied(), twisted, here.time_us)
    if not given.has_value or given.status & rules.DEFAULTED:
        return None
    return here, here.served(given, b"another build" if draw.random() < 0.5 else None)


def missing(draw: random.Random, here: Situation) -> tuple[Situation, Served] | None:
    """The server has lost the newest row, or all rows of the entity."""
    rows = [row for row in here.applied() if row.event_us <= here.time_us]
    newest = max(rows, key=lambda row: rules.order_of(row.header()))
    kept = [row for row in here.applied() if row is not newest] if draw.random() < 0.5 else []
    return here, here.served(answer(kept, here.views[2], here.time_us))


INJECTIONS: dict[Cause, Injection] = {
    Cause.LATE_EVENT: late_event,
    Cause.APPLY_LAG: apply_lag,
    Cause.TTL: ttl,
    Cause.VERSION: version,
    Cause.DEFAULT: default,
    Cause.BOUNDARY: boundary,
    Cause.CODE: code,
    Cause.MISSING: missing,
}


def injected(cause: Cause, draw: random.Random) -> tuple[History, Served]:
    """A history and a served value that the cause made wrong; draws until the cause shows."""
    while True:
        made = INJECTIONS[cause](draw, situation(draw))
        if made is None:
            continue
        here, value = made
        right = answer(here.applied(), here.views[2], here.time_us)
        truth = answer(here.rows, here.views[2], here.time_us)
        by_time = cause in (Cause.LATE_EVENT, Cause.APPLY_LAG)
        if not value.answer.same_as(truth) and by_time == value.answer.same_as(right):
            return History(here.rows, here.views), value
