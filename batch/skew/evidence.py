"""Answers hypotheses about served values from the history of their views, by the kernel of the historical join."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch.offline import columns as system
from batch.skew.canonical import value_bytes
from batch.skew.computed_evidence import Asked, MakeHistory, Seen, computed_answers
from batch.skew.served import NO_ROW, Answer, Derivation, Edge, Knowledge, Rule, Served
from core_ext import rules
from core_ext.arrow import arrow_column
from core_ext.asof import Matches, Spine
from core_ext.keys import KeyBatch, decode_key, encode_keys
from headrace.types import Scalar, ValueType

FOREVER_US: Final = 2**62


@dataclass(frozen=True, slots=True)
class ViewHistory:
    """One view version: how to read its rows, and its rules. `read` gives every row of the table with these columns.

    A computed view has `make`, and `stored` names the columns that it is computed from.
    """

    ref: str
    keys: tuple[tuple[str, Scalar], ...]
    features: Mapping[str, ValueType]
    defaults: Mapping[str, object]  # only of features that have one
    ttl_us: int
    fallback: int
    digest: bytes
    read: Callable[[Sequence[str]], pa.RecordBatchReader]
    make: MakeHistory | None = None
    stored: tuple[str, ...] = ()

    @property
    def value_names(self) -> list[str]:
        """Columns of the table beside keys and order."""
        return list(self.features if self.make is None else self.stored)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of some entities: sorted by entity, [starts[e], starts[e + 1]) are those of entity e."""

    places: Mapping[bytes, int]
    starts: NDArray[np.int64]
    event_us: NDArray[np.int64]
    write_us: NDArray[np.int64]
    source: NDArray[np.uint32]
    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    tombstone: NDArray[np.uint8]
    values: pa.Table


class LakeEvidence:
    """Evidence over views; `versions` gives every registered version of a view by its number.

    Holds the rows of the entities of one batch of answers at a time.
    """

    def __init__(self, versions: Mapping[str, Mapping[int, ViewHistory]]) -> None:
        self._versions = versions
        self._held: dict[str, _Rows] = {}

    def begin(self, served: Sequence[Served]) -> None:
        """Forgets the rows of the batch before, and reads those of this one when they are asked for."""
        self._held = {}
        keys: dict[str, set[bytes]] = {}
        for one in served:
            keys.setdefault(one.feature.view, set()).add(one.entity_key)
        self._keys = {view: sorted(held) for view, held in keys.items()}  # entities differ in the types of their keys

    def derive(self, served: Sequence[Served], derivation: Derivation) -> Sequence[Answer]:
        """The answer of each value under a hypothesis, in order."""
        answers: list[Answer] = [Answer(rules.MISSING)] * len(served)
        groups: dict[tuple[str, int], list[int]] = {}
        for at, one in enumerate(served):
            groups.setdefault((one.feature.view, derivation.version or one.feature.version), []).append(at)
        for (name, version), places in groups.items():
            view = self._versions.get(name, {}).get(version)
            if view is None:
                continue
            derive = _derived if view.make is None else _computed
            told = derive(view, self._rows(name, view), [served[at] for at in places], derivation)
            for at, answer in zip(places, told, strict=True):
                answers[at] = answer
        return answers

    def transform_digests(self, served: Sequence[Served]) -> Sequence[Mapping[int, bytes]]:
        """Digest of every version of each value's view."""
        return [
            {number: view.digest for number, view in self._versions.get(one.feature.view, {}).items()} for one in served
        ]

    def _rows(self, name: str, view: ViewHistory) -> _Rows:
        rows = self._held.get(view.ref)
        if rows is None:
            rows = self._held[view.ref] = _read(view, self._keys[name])
        return rows


def _read(view: ViewHistory, keys: Sequence[bytes]) -> _Rows:
    """Rows of the entities, by a first look at the first key column and a second at the whole key."""
    places = {key: at for at, key in enumerate(keys)}
    first_name, _ = view.keys[0]
    wanted = pa.array({decode_key(key)[0] for key in keys}, ValueType(view.keys[0][1]).arrow)
    parts, owners = [], []
    names = [name for name, _ in view.keys]
    order = (system.EVENT_TIME, system.WRITE_TIME, system.SOURCE_ID, system.PARTITION, system.OFFSET, system.TOMBSTONE)
    for batch in view.read([*names, *view.value_names, *order]):
        near = batch.filter(pc.is_in(batch.column(first_name), value_set=wanted))
        if near.num_rows == 0:
            continue
        owner = np.array([places.get(key, -1) for key in _batch_keys(near, view)], np.int64)
        kept = owner >= 0
        parts.append(near.filter(pa.array(kept)))
        owners.append(owner[kept])
    schema = parts[0].schema if parts else view.read([*names, *view.value_names, *order]).schema
    table = pa.Table.from_batches(parts, schema)
    owner = np.concatenate(owners) if owners else np.empty(0, np.int64)
    by_owner = np.argsort(owner, kind="stable")
    table = table.take(pa.array(by_owner)).combine_chunks()
    starts = np.searchsorted(owner[by_owner], np.arange(len(keys) + 1))

    return _Rows(
        places,
        starts.astype(np.int64),
        _numbers_of(table, system.EVENT_TIME).astype(np.int64),
        _numbers_of(table, system.WRITE_TIME).astype(np.int64),
        _numbers_of(table, system.SOURCE_ID).astype(np.uint32),
        _numbers_of(table, system.PARTITION).astype(np.int32),
        _numbers_of(table, system.OFFSET).astype(np.int64),
        _numbers_of(table, system.TOMBSTONE).astype(np.uint8),
        table,
    )


def _numbers_of(table: pa.Table, name: str) -> NDArray[np.generic]:
    values = table[name]
    return np.asarray(values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values)


def _batch_keys(batch: pa.RecordBatch, view: ViewHistory) -> list[bytes]:
    columns = [batch.column(name) for name, _ in view.keys]
    encoded = encode_keys([int(scalar) for _, scalar in view.keys], [arrow_column(column) for column in columns])
    return [encoded.key(at) for at in range(batch.num_rows)]


# ---- one hypothesis over many answers ----


def _derived(view: ViewHistory, rows: _Rows, served: Sequence[Served], derivation: Derivation) -> list[Answer]:
    query, row = _pairs(rows, served)
    seen = _seen(rows, served, query, row, derivation)
    query, row = query[seen], row[seen]
    past = int(derivation.edge is Edge.PAST_TIME)
    times = np.array([one.time_us for one in served], np.int64) + past
    pairs = (query, row)
    newest = _newest(rows, pairs, times)[0]
    if derivation.knowledge is Knowledge.WITHOUT_NEWEST:
        kept = newest[query] != row
        pairs = (query[kept], row[kept])
        newest = _newest(rows, pairs, times)[0]
    ttl_us = 0 if derivation.expiry is Rule.NEVER or not view.ttl_us else view.ttl_us + past
    indexes, statuses = _newest(rows, pairs, times, ttl_us, rows.tombstone)
    if derivation.expiry is Rule.ALWAYS and view.ttl_us:
        present = (statuses & rules.STATE_MASK) == rules.PRESENT
        statuses = np.where(present, statuses + (rules.EXPIRED - rules.PRESENT), statuses)
    return [
        _answer(view, rows, one, _Found(int(indexes[at]), int(statuses[at]), int(newest[at])), derivation)
        for at, one in enumerate(served)
    ]


def _computed(view: ViewHistory, rows: _Rows, served: Sequence[Served], derivation: Derivation) -> list[Answer]:
    assert view.make is not None, "the caller has looked"
    reads: dict[tuple[bytes, int, int, int], int] = {}
    firsts: list[Served] = []
    asked = []
    for one in served:
        place = (one.entity_key, one.time_us, one.shard, one.applied_offset)
        if place not in reads:
            reads[place] = len(firsts)
            firsts.append(one)
        asked.append(Asked(reads[place], one.feature.feature, _shows_expired(one)))
    query, row = _pairs(rows, firsts)
    seen = _seen(rows, firsts, query, row, derivation)
    query, row = query[seen], row[seen]
    times = np.array([one.time_us for one in firsts], np.int64) + int(derivation.edge is Edge.PAST_TIME)
    if derivation.knowledge is Knowledge.WITHOUT_NEWEST:
        kept = _newest(rows, (query, row), times)[0][query] != row
        query, row = query[kept], row[kept]
    return computed_answers(
        view.make, view.features, Seen(rows.values.take(pa.array(row)), query, times), asked, derivation
    )


def _pairs(rows: _Rows, served: Sequence[Served]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every answer with every row of its entity."""
    entity = np.array([rows.places[one.entity_key] for one in served], np.int64)
    counts = rows.starts[entity + 1] - rows.starts[entity]
    query = np.repeat(np.arange(len(served)), counts)
    before = np.cumsum(counts) - counts
    row = np.arange(len(query)) - before[query] + rows.starts[entity][query]
    return query.astype(np.int64), row.astype(np.int64)


def _seen(
    rows: _Rows,
    served: Sequence[Served],
    query: NDArray[np.int64],
    row: NDArray[np.int64],
    derivation: Derivation,
) -> NDArray[np.bool_]:
    """Which of the pairs the hypothesis lets the answer see."""
    times = np.array([one.time_us for one in served], np.int64)[query]
    shard = np.array([one.shard for one in served], np.int64)[query]
    offset = np.array([one.applied_offset for one in served], np.int64)[query]
    in_time = {
        Edge.BEFORE_TIME: rows.event_us[row] < times,
        Edge.PAST_TIME: rows.event_us[row] <= times + 1,
    }.get(derivation.edge, rows.event_us[row] <= times)
    if derivation.knowledge is Knowledge.NOTHING:
        return np.zeros(len(query), np.bool_)
    if derivation.knowledge is Knowledge.KNOWN:
        return np.asarray(in_time, np.bool_)
    # A row of another log was never in this shard's: what had been written by then counts as applied.
    own = rows.partition[row] == shard
    written = rows.write_us[row] <= times
    applied = np.where(own, rows.offset[row] <= offset, written)
    if derivation.knowledge is Knowledge.ACKNOWLEDGED:
        applied = applied | written
    return np.asarray(in_time & applied, np.bool_)


def _newest(
    rows: _Rows,
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    times: NDArray[np.int64],
    ttl_us: int = 0,
    tombstones: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Row and status of each answer, by the total order; each answer is an entity of its own to the kernel."""
    query, row = pairs
    spine = Spine(_numbers(np.arange(len(times))), times)
    matches = Matches(spine)
    if len(query):
        event_us = np.ascontiguousarray(rows.event_us[row])
        matches.feed(
            _numbers(query),
            event_us,
            0,
            FOREVER_US,
            write_us=np.ascontiguousarray(rows.write_us[row]),
            available_us=event_us,  # what is seen has been decided already
            tombstones=None if tombstones is None else np.ascontiguousarray(tombstones[row]),
            source_ids=np.ascontiguousarray(rows.source[row]),
            partitions=np.ascontiguousarray(rows.partition[row]),
            offsets=np.ascontiguousarray(rows.offset[row]),
        )
    found, statuses = matches.resolve(ttl_us, 0)
    places = np.where(found >= 0, row[np.maximum(found, 0)] if len(row) else -1, -1)
    return places.astype(np.int64), statuses


def _numbers(numbers: NDArray[np.int64]) -> KeyBatch:
    return encode_keys([int(Scalar.I64)], [arrow_column(pa.array(numbers, pa.int64()))])


class _Found(NamedTuple):
    """What the kernel gave for one answer: its row or -1, the row's status, the newest row though it be a tombstone."""

    row: int
    status: int
    newest: int


def _shows_expired(one: Served) -> bool:
    """Whether the read asked for expired values: only then does one lie in its slot."""
    answer = one.answer
    is_plain = not answer.status & (rules.WITHHELD | rules.DEFAULTED)
    return answer.state == rules.EXPIRED and is_plain


def _answer(view: ViewHistory, rows: _Rows, one: Served, found: _Found, derivation: Derivation) -> Answer:
    kind = view.features.get(one.feature.feature)
    if kind is None:
        return Answer(rules.MISSING)
    value = rows.values[one.feature.feature][found.row].as_py() if found.row >= 0 else None
    default = view.defaults.get(one.feature.feature)
    has_default = default is not None and derivation.defaulting is not Rule.NEVER
    fallback = rules.FALLBACK_DEFAULT if derivation.defaulting is Rule.ALWAYS else view.fallback
    status, slot = rules.value_status(found.status, value is None, fallback, has_default, _shows_expired(one))
    event_us = int(rows.event_us[found.newest]) if found.newest >= 0 else NO_ROW
    if slot == rules.SLOT_EMPTY:
        return Answer(status, b"", event_us)
    held = default if slot == rules.SLOT_DEFAULT else value
    return Answer(status, value_bytes(held, kind), event_us)
