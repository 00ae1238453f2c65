"""Looks features of stored views up for events, each as of its own event time."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core_ext import rules
from core_ext.arrow import arrow_column
from core_ext.asof import settle
from core_ext.hashing import SLOT_COUNT
from core_ext.keys import encode_keys
from core_ext.row_codec import CorruptRowError, Schema, check_row
from core_ext.row_columns import decode_rows
from core_ext.windows import CorruptMapError
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.computed_layouts import ComputedLayout
from feature_server.domain.layouts import ViewLayout
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.write_columns import bad_value
from headrace.arrays import array_of
from headrace.definitions.lookups import TIME, Lookup
from headrace.definitions.views import Feature
from headrace.errors import DataLoss, FailedPrecondition, HeadraceError

NO_IMAGE: Final = -1

_MICROSECOND: Final = timedelta(microseconds=1)
_FLAG_TOMBSTONE: Final = 1  # HR_FLAG_TOMBSTONE


@dataclass(frozen=True, slots=True)
class _Stored:
    """What was stored of some entities: row, event time and whether it is an erasure, and when that was known."""

    rows: list[bytes | None]
    event_us: list[int]
    is_erased: list[bool]
    known_us: list[int]


@dataclass(frozen=True, slots=True)
class _Images:
    """Answers for events: rows of one schema, and of every event the place of its row and the status of that row.

    `is_unknown`: what is stored is newer than the event, and nobody here knows what was before.
    """

    schema: Schema
    rows: list[bytes]
    places: NDArray[np.int64]
    statuses: NDArray[np.uint8]
    is_unknown: NDArray[np.bool_]


class Lookups:
    """Reads what is known of entities when events of other views arrive."""

    def __init__(
        self,
        catalogue: Catalogue,
        shards: ShardSet,
        check_owned: Callable[[Collection[int]], None] = lambda numbers: None,
    ) -> None:
        self._catalogue = catalogue
        self._shards = shards
        self._check_owned = check_owned

    def columns(
        self, lookup: Lookup, events: Mapping[str, pa.Array], event_us: NDArray[np.int64], start: int
    ) -> dict[str, pa.Array]:
        """Columns that a lookup gives to events; `start` is the row of the first one in the request, for messages.

        An event with a null key gets nulls.
        """
        target = self._catalogue.pinned_view(lookup.entry.feature_view)
        keys = [events[name] for name in lookup.keys]
        asked = np.flatnonzero(~np.logical_or.reduce([np.asarray(key.is_null()) for key in keys]))
        stored, entities = self._stored(target, lookup, [key.take(pa.array(asked)) for key in keys], start)
        images = _images(target, stored, entities, event_us[asked])
        back = np.full(len(event_us), NO_IMAGE, np.int64)
        back[asked] = np.arange(len(asked))
        places = pa.array(back, mask=back == NO_IMAGE)
        known = pa.array(np.array(stored.known_us, np.int64)[entities], pa.int64()).cast(TIME.arrow)
        settled = _settled(target, images, lookup.entry.features)
        found = {lookup.entry.output_prefix + name: column.take(places) for name, column in settled.items()}
        return found | {lookup.known_time: known.take(places)}

    def _stored(
        self, target: ViewLayout, lookup: Lookup, keys: Sequence[pa.Array], start: int
    ) -> tuple[_Stored, NDArray[np.int64]]:
        """What is stored of every different entity, and the entity of each row."""
        try:
            encoded = encode_keys(target.entity.key_types, [arrow_column(key) for key in keys])
        except ValueError as error:
            raise bad_value(error, lookup.keys, start, "BAD_ENTITY_KEY") from error
        every = encoded.storage_keys(target.entity.entity_id, target.view_id, np.arange(len(encoded)))
        first: dict[bytes, int] = {}
        entities = np.fromiter((first.setdefault(key, len(first)) for key in every), np.int64, len(every))
        distinct = list(first)
        slots = np.zeros(len(distinct), np.int64)
        slots[entities] = encoded.slots
        shards = slots * len(self._shards) // SLOT_COUNT
        self._check_here(target, np.unique(shards).tolist())
        rows: list[bytes | None] = [None] * len(distinct)
        known_us = [0] * len(distinct)
        for number in np.unique(shards).tolist():
            chosen = np.flatnonzero(shards == number).tolist()
            found, time_us = self._shards[number].read_known([distinct[place] for place in chosen])
            for place, row in zip(chosen, found, strict=True):
                rows[place], known_us[place] = row, time_us
        headers = [None if row is None else check_row(row) for row in rows]
        event_us = [0 if header is None else header.event_time_us for header in headers]
        is_erased = [header is not None and bool(header.flags & _FLAG_TOMBSTONE) for header in headers]
        return _Stored(rows, event_us, is_erased, known_us), entities

    def _check_here(self, target: ViewLayout, numbers: Collection[int]) -> None:
        try:
            self._check_owned(numbers)
        except HeadraceError as error:
            raise FailedPrecondition(
                f"rows of {target.ref} that these events look up lie on other servers of the ring, which a lookup does "
                "not ask: write such events to a server without --ring",
                reason="LOOKUP_ELSEWHERE",
                field="feature_view",
                metadata={"feature_view": target.ref},
            ) from error


def _images(target: ViewLayout, stored: _Stored, entities: NDArray[np.int64], event_us: NDArray[np.int64]) -> _Images:
    computed, ttl = target.computed, target.definition.ttl
    ttl_us = 0 if ttl is None else ttl // _MICROSECOND
    rows: list[bytes] = []
    by_entity: dict[int, int] = {}
    places = np.full(len(entities), NO_IMAGE, np.int64)
    statuses = np.full(len(entities), rules.UNAVAILABLE, np.uint8)
    is_unknown = np.zeros(len(entities), np.bool_)
    for at, (entity, time_us) in enumerate(zip(entities.tolist(), event_us.tolist(), strict=True)):
        row = stored.rows[entity]
        if row is not None and not stored.is_erased[entity] and stored.event_us[entity] > time_us:
            is_unknown[at] = True
            continue
        statuses[at] = rules.row_status(row, time_us, ttl_us, 0)
        if computed is not None:
            places[at] = len(rows)
            rows.append(_image(computed, row, time_us))
        elif row is not None and not stored.is_erased[entity]:
            if entity not in by_entity:
                by_entity[entity] = len(rows)
                rows.append(row)
            places[at] = by_entity[entity]
    schema = target.schema if computed is None else computed.view.answered
    return _Images(schema, rows, places, statuses, is_unknown)


def _image(computed: ComputedLayout, row: bytes | None, time_us: int) -> bytes:
    try:
        return computed.view.image(row, time_us)
    except (CorruptRowError, CorruptMapError) as error:
        raise DataLoss(f"a stored row is damaged: {error}", reason="STORED_ROW_CORRUPT") from error


def _settled(target: ViewLayout, images: _Images, names: Sequence[str]) -> dict[str, pa.Array]:
    """Values of features by the value rules, null where the slot of an answer would be empty."""
    ends = np.cumsum([len(row) for row in images.rows], dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
    decoded = decode_rows(images.schema, b"".join(images.rows), starts, ends).columns
    is_missing = images.statuses & rules.STATE_MASK == rules.MISSING
    own = np.where(is_missing, np.uint8(rules.PRESENT), images.statuses)
    fallback = int(target.definition.fallback)
    found = {}
    for name in names:
        feature = target.definition.feature(name)
        assert feature is not None, "the lookup was resolved"
        column = array_of(decoded[target.columns[name]], feature.type.arrow)
        statuses = own if target.has_own_value(name) else images.statuses
        found[name] = _chosen(column, feature, images, statuses, fallback)
    return found


def _chosen(
    column: pa.Array, feature: Feature, images: _Images, statuses: NDArray[np.uint8], fallback: int
) -> pa.Array:
    is_found = images.places != NO_IMAGE
    nulls = np.ones(len(images.places), np.uint8)
    nulls[is_found] = np.asarray(column.is_null())[images.places[is_found]]
    mark = None if feature.default is None else b""
    _, slots = settle(statuses, nulls, fallback, mark, False)
    default = pa.array([feature.default], feature.type.arrow)
    places = np.where(slots == rules.SLOT_DEFAULT, len(column), images.places)
    is_empty = (slots == rules.SLOT_EMPTY) | images.is_unknown
    return pa.concat_arrays([column, default]).take(pa.array(places, mask=is_empty))
