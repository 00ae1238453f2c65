"""A small history of one entity and the views over it: what row parity re-derives, said in plain Python."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from batch.skew.served import NO_ROW, Answer, Derivation, Edge, Knowledge, Rule, Served
from core_ext.twin import rules

HEADER_BYTES = 68
TOMBSTONE = 1


@dataclass(frozen=True)
class Row:
    """One written event; `amount` None is a null."""

    event_us: int
    write_us: int
    offset: int
    amount: int | None
    tombstone: bool = False

    def header(self) -> bytes:
        """As much of a row as the value rules read."""
        out = bytearray(HEADER_BYTES)
        struct.pack_into("<H", out, 2, TOMBSTONE if self.tombstone else 0)
        struct.pack_into("<qq", out, 16, self.event_us, self.write_us)
        struct.pack_into("<qi", out, 40, self.offset, 0)
        return bytes(out)


@dataclass(frozen=True)
class View:
    """One version: kind latest, sum, count or mean of amount * factor + shift."""

    kind: str
    factor: int = 1
    shift: int = 0
    window_us: int = 0
    hop_us: int = 1
    ttl_us: int = 0
    default: int | None = None
    fallback: int = rules.FALLBACK_DEFAULT

    @property
    def digest(self) -> bytes:
        """Identity of what is computed; TTL and default are only served."""
        return repr((self.kind, self.factor, self.shift, self.window_us, self.hop_us)).encode()

    def pack(self, value: float) -> bytes:
        return struct.pack("<d", float(value))


def answer(rows: Sequence[Row], view: View, time_us: int, derivation: Derivation = Derivation()) -> Answer:  # noqa: B008
    """The answer of a view at a time over rows, under the value rules or a hypothesis about them."""
    newest = time_us + 1 if derivation.edge is Edge.PAST_TIME else time_us
    newest -= 1 if derivation.edge is Edge.BEFORE_TIME else 0
    seen = [row for row in rows if row.event_us <= newest]
    given = _folded(seen, view, time_us, derivation)
    return replace(given, event_time_us=max((row.event_us for row in seen), default=NO_ROW))


def _folded(seen: Sequence[Row], view: View, time_us: int, derivation: Derivation) -> Answer:
    if view.kind == "latest":
        return _latest(seen, view, time_us, derivation)
    start = (time_us - view.window_us) // view.hop_us * view.hop_us
    start += {Edge.HOP_EARLIER: -view.hop_us, Edge.HOP_LATER: view.hop_us, Edge.FROM_START: -1}.get(derivation.edge, 0)
    amounts = [row.amount for row in seen if row.event_us > start and row.amount is not None and not row.tombstone]
    values = [amount * view.factor + view.shift for amount in amounts]
    if view.kind == "mean":
        folded = sum(values) / len(values) if values else None
    else:
        folded = sum(values) if view.kind == "sum" else len(values)
    return _finished(rules.PRESENT, folded, view, derivation)


def _latest(rows: Sequence[Row], view: View, time_us: int, derivation: Derivation) -> Answer:
    newest = max(rows, key=lambda row: rules.order_of(row.header()), default=None)
    if newest is None:
        return _finished(rules.MISSING, None, view, derivation)
    ttl_us = 0 if derivation.expiry is Rule.NEVER else view.ttl_us
    status = rules.row_status(newest.header(), time_us, ttl_us, 0)
    if derivation.expiry is Rule.ALWAYS and view.ttl_us and status & rules.STATE_MASK == rules.PRESENT:
        status += rules.EXPIRED - rules.PRESENT
    value = None if newest.amount is None or newest.tombstone else newest.amount * view.factor + view.shift
    return _finished(status, value, view, derivation)


def _finished(row_status: int, value: float | None, view: View, derivation: Derivation) -> Answer:
    has_default = view.default is not None and derivation.defaulting is not Rule.NEVER
    fallback = rules.FALLBACK_DEFAULT if derivation.defaulting is Rule.ALWAYS else view.fallback
    status, slot = rules.value_status(row_status, value is None, fallback, has_default, False)
    if slot == rules.SLOT_EMPTY:
        return Answer(status)
    held = view.default if slot == rules.SLOT_DEFAULT else value
    assert held is not None
    return Answer(status, view.pack(held))


@dataclass
class History:
    """Evidence over one history: the rows of one entity, the versions of one view."""

    rows: tuple[Row, ...]
    views: dict[int, View]
    asked: int = 0

    def derive(self, served: Sequence[Served], derivation: Derivation) -> Sequence[Answer]:
        """Answers under a hypothesis."""
        self.asked += len(served)
        return [self._one(value, derivation) for value in served]

    def transform_digests(self, served: Sequence[Served]) -> Sequence[Mapping[int, bytes]]:
        """Digests of all versions."""
        return [{version: view.digest for version, view in self.views.items()} for _ in served]

    def _one(self, value: Served, derivation: Derivation) -> Answer:
        version = derivation.version or value.feature.version
        rows = self._known(value, derivation.knowledge)
        return answer(rows, self.views[version], value.time_us, replace(derivation, version=0))

    def _known(self, value: Served, knowledge: Knowledge) -> list[Row]:
        applied = [row for row in self.rows if row.offset <= value.applied_offset]
        if knowledge is Knowledge.KNOWN:
            return list(self.rows)
        if knowledge is Knowledge.ACKNOWLEDGED:
            return [row for row in self.rows if row.offset <= value.applied_offset or row.write_us <= value.time_us]
        if knowledge is Knowledge.NOTHING:
            return []
        if knowledge is Knowledge.WITHOUT_NEWEST:
            seen = sorted(
                (row for row in applied if row.event_us <= value.time_us), key=lambda row: rules.order_of(row.header())
            )
            return [row for row in applied if row is not (seen[-1] if seen else None)]
        return applied
