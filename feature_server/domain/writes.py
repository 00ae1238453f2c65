"""Online writes and erasures: checks everything first, then hands each shard its rows."""

import itertools
import threading
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from core_ext.hashing import SLOT_COUNT
from core_ext.keys import encode_key, shard_of_slot, slot_of_key, storage_key
from core_ext.row_codec import CorruptRowError, check_row, encode_tombstone
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.layouts import EntityLayout, ViewLayout
from feature_server.domain.lookups import Lookups
from feature_server.domain.shard import Position, Shard
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.shard_writes import Deltas, Durability
from feature_server.domain.write_columns import EncodedRows, encode_batch
from feature_server.domain.write_events import DeltaRows, EncodedEvents, encode_events
from headrace.errors import DataLoss, FailedPrecondition, InvalidArgument
from headrace.serving.principal import Principal

WRITE_ROWS_MAX: Final = 1_024  # handed to a shard at once: half a millisecond of the interpreter at most
REMEMBERED_COUNT_MAX: Final = 10_000  # request ids whose answer is kept, so that repeating one changes nothing
DIRECT_SOURCE_ID: Final = 0  # rows that came through WriteFeatures


@dataclass(frozen=True, slots=True)
class WriteAck:
    """What a write reached."""

    positions: Sequence[Position]
    row_count: int
    stale_count: int


class Writes:
    """Accepts rows and erasures."""

    def __init__(
        self,
        catalogue: Catalogue,
        shards: ShardSet,
        clock_us: Callable[[], int],
        beside_reads: Callable[[], AbstractContextManager[None]] = nullcontext,
        check_owned: Callable[[Collection[int]], None] = lambda numbers: None,
    ) -> None:
        self._check_owned = check_owned
        self._beside_reads = beside_reads
        self._catalogue = catalogue
        self._shards = shards
        self._clock_us = clock_us
        self._answers = _Answers()
        self._lookups = Lookups(catalogue, shards, check_owned)
        self.row_count = 0
        self.rows_by_view: Counter[int] = Counter()  # by view id
        self.stale_count = 0

    def write(
        self,
        feature_view: str,
        batches: Callable[[ViewLayout], Iterable[pa.RecordBatch]],
        durability: Durability,
        request: tuple[str, int],
        principal: Principal,
    ) -> WriteAck:
        """Writes rows of one view version. `request` is its id, empty for none, and a digest of its content."""
        principal.require("FEATURE_WRITE")
        known = self._answers.find(principal, request)
        if known is not None:
            return known
        target = self._view(feature_view)
        answer = self._commit(batches(target), target, durability)
        self._answers.remember(principal, request, answer)
        return answer

    def target(self, feature_view: str, principal: Principal) -> ViewLayout:
        """The view of a long write, checked before its first batch."""
        principal.require("FEATURE_WRITE")
        return self._view(feature_view)

    def write_batch(
        self,
        batch: pa.RecordBatch,
        target: ViewLayout,
        durability: Durability,
        request: tuple[str, int],
        principal: Principal,
    ) -> WriteAck:
        """One batch of a long write whose caller and view are checked; `request` as in `write`."""
        known = self._answers.find(principal, request)
        if known is not None:
            return known
        answer = self._commit([batch], target, durability)
        self._answers.remember(principal, request, answer)
        return answer

    def erase(
        self,
        entity: str,
        keys: Callable[[EntityLayout], Sequence[Sequence[int | str | bytes]]],
        durability: Durability,
        request: tuple[str, int],
        principal: Principal,
    ) -> WriteAck:
        """Erases entities by tombstones in every view. `keys` gives a row of key parts per entity."""
        principal.require("FEATURE_ERASE")
        # Repeated as a new erasure it would take rows that happened after the first.
        known = self._answers.find(principal, request)
        if known is not None:
            return known
        layout = self._catalogue.entity(entity)
        views = self._catalogue.views_of_entity(entity)
        try:
            encoded = [encode_key(layout.key_types, row) for row in keys(layout)]
        except ValueError as error:
            raise InvalidArgument(str(error), reason="BAD_ENTITY_KEY", field="entity_columns") from error
        by_shard: dict[int, list[bytes]] = {}
        for key in dict.fromkeys(encoded):
            by_shard.setdefault(shard_of_slot(slot_of_key(key), len(self._shards)), []).append(key)
        positions = self._erase(by_shard, layout.entity_id, views, durability)
        answer = WriteAck(highest_positions(positions), len(set(encoded)), 0)
        self._answers.remember(principal, request, answer)
        return answer

    def _view(self, name: str) -> ViewLayout:
        view = self._catalogue.view(name)
        if not view.is_active:
            raise FailedPrecondition(
                f"feature view {view.ref} is retired and takes no rows; write to another version",
                reason="FEATURE_VIEW_RETIRED",
                field="feature_view",
                metadata={"feature_view": view.ref},
            )
        return view

    def _commit(self, batches: Iterable[pa.RecordBatch], target: ViewLayout, durability: Durability) -> WriteAck:
        now_us = self._clock_us()
        with self._beside_reads():
            encoded = [part for batch in batches for part in self._encoded(batch, target, now_us)]
            return self._append(encoded, target, durability)

    def _erase(
        self, by_shard: Mapping[int, Sequence[bytes]], entity_id: int, views: Sequence[ViewLayout],
        durability: Durability,
    ) -> list[Position]:  # fmt: skip
        self._check_writable(by_shard)
        with self._beside_reads():
            return [
                position
                for number, keys in by_shard.items()
                for position in self._erase_on(self._shards[number], keys, entity_id, views, durability)
            ]

    def _erase_on(
        self,
        shard: Shard,
        keys: Sequence[bytes],
        entity_id: int,
        views: Sequence[ViewLayout],
        durability: Durability,
    ) -> Iterator[Position]:
        if not (keys and views):
            return
        shard.commit_queued()
        for is_logged in (True, False):
            pairs = [
                (storage_key(entity_id, key, view.view_id), view.schema.schema_id)
                for key in keys
                for view in views
                if view.definition.offline is is_logged
            ]
            for start in range(0, len(pairs), WRITE_ROWS_MAX):
                part = pairs[start : start + WRITE_ROWS_MAX]
                storage_keys = [key for key, _ in part]
                # Rows may lie in the near future of this clock: a tombstone must come after them, sent again as well.
                newest = [_event_time_us(shard, row) for row in shard.read(storage_keys)]
                stamp = _tombstones([schema_id for _, schema_id in part], newest, shard.number)
                yield shard.append(storage_keys, stamp, durability, is_logged=is_logged)[0]

    def _encoded(self, batch: pa.RecordBatch, target: ViewLayout, now_us: int) -> Iterator[EncodedRows | EncodedEvents]:
        if target.computed is None:
            return encode_batch(batch, target, now_us)
        return encode_events(batch, target, target.computed, now_us, self._lookups.columns)

    def _append(
        self, parts: Sequence[EncodedRows | EncodedEvents], target: ViewLayout, durability: Durability
    ) -> WriteAck:
        grouped = [(part, rows_by_shard(part, len(self._shards))) for part in parts]
        self._check_writable({number for _, groups in grouped for number, _ in groups})
        positions: list[Position] = []
        stale_count = 0
        entity_id, view_id = target.entity.entity_id, target.view_id
        for part, groups in grouped:
            for number, indexes in groups:
                for start in range(0, len(indexes), WRITE_ROWS_MAX):
                    chosen = indexes[start : start + WRITE_ROWS_MAX]
                    keys = part.keys.storage_keys(entity_id, view_id, chosen)
                    position, stale = _append_chunk(
                        self._shards[number], part, chosen, keys, durability, is_logged=target.definition.offline
                    )
                    positions.append(position)
                    stale_count += stale
        return self._counted(positions, target, sum(part.row_count for part in parts), stale_count)

    def _counted(self, positions: Sequence[Position], target: ViewLayout, row_count: int, stale_count: int) -> WriteAck:
        self.row_count += row_count
        self.rows_by_view[target.view_id] += row_count
        self.stale_count += stale_count
        return WriteAck(highest_positions(positions), row_count, stale_count)

    def _check_writable(self, numbers: Collection[int]) -> None:
        # Before the first row, so that a write seldom ends half done.
        self._check_owned(numbers)
        for number in numbers:
            self._shards[number].check_writable()


class _Answers:
    """The newest answers by principal and request id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], tuple[int, WriteAck]] = OrderedDict()

    def find(self, principal: Principal, request: tuple[str, int]) -> WriteAck | None:
        """Answer to an earlier request with this id; the same id for another content is refused."""
        request_id, digest = request
        if not request_id:
            return None
        _check_uuid(request_id)
        with self._lock:
            known = self._known.get((principal.name, request_id))
        if known is None:
            return None
        if known[0] != digest:
            raise InvalidArgument(
                f"request_id {request_id} was used for another write; make a new UUID for each",
                reason="REQUEST_ID_REUSED",
                field="request_id",
                metadata={"request_id": request_id},
            )
        return known[1]

    def remember(self, principal: Principal, request: tuple[str, int], answer: WriteAck) -> None:
        """Keeps an answer; the oldest is forgotten."""
        request_id, digest = request
        if not request_id:
            return
        with self._lock:
            self._known[principal.name, request_id] = digest, answer
            if len(self._known) > REMEMBERED_COUNT_MAX:
                self._known.popitem(last=False)


def _append_chunk(
    shard: Shard,
    part: EncodedRows | EncodedEvents,
    chosen: np.typing.NDArray[np.int64],
    keys: list[bytes],
    durability: Durability,
    *,
    is_logged: bool,
) -> tuple[Position, int]:
    if isinstance(part, EncodedRows):
        return shard.append(keys, _stamp(part, chosen, shard.number), durability, is_logged=is_logged)
    rows = DeltaRows(part, chosen, keys)

    def stamp(write_time_us: int, first_offset: int) -> list[bytes]:
        return rows.stamped(write_time_us, DIRECT_SOURCE_ID, shard.number, first_offset)

    def logged(write_time_us: int, first_offset: int) -> tuple[Sequence[bytes], Sequence[bytes]]:
        return rows.logged(write_time_us, DIRECT_SOURCE_ID, shard.number, first_offset)

    deltas = Deltas(rows.merge, rows.event_count, logged)
    return shard.append(rows.keys, stamp, durability, is_logged=is_logged, deltas=deltas)


def rows_by_shard(part: EncodedRows | EncodedEvents, shard_count: int) -> list[tuple[int, np.typing.NDArray[np.int64]]]:
    """Rows of an encoded slice by their shard, in the order of the write."""
    shards = part.keys.slots.astype(np.int64) * shard_count // SLOT_COUNT
    order = np.argsort(shards, kind="stable")  # rows of one shard stay in the order of the write
    numbers, starts = np.unique(shards[order], return_index=True)
    return list(zip(numbers.tolist(), np.split(order, starts)[1:], strict=True))


def _stamp(part: EncodedRows, indexes: np.typing.NDArray[np.int64], shard: int) -> Callable[[int, int], list[bytes]]:
    def stamp(write_time_us: int, first_offset: int) -> list[bytes]:
        return part.rows.stamp(indexes, write_time_us, None, DIRECT_SOURCE_ID, shard, first_offset)

    return stamp


def _tombstones(schema_ids: Sequence[int], newest_us: Sequence[int], shard: int) -> Callable[[int, int], list[bytes]]:
    def stamp(write_time_us: int, first_offset: int) -> list[bytes]:
        rows = zip(itertools.count(first_offset), schema_ids, newest_us, strict=False)
        return [
            encode_tombstone(
                schema_id, max(write_time_us, event_us + 1), write_time_us, DIRECT_SOURCE_ID, shard, offset
            )
            for offset, schema_id, event_us in rows
        ]

    return stamp


def _event_time_us(shard: Shard, row: bytes | None) -> int:
    if row is None:
        return 0
    try:
        return check_row(row).event_time_us
    except CorruptRowError as error:
        damage = DataLoss(f"a stored row is damaged: {error}", reason="STORED_ROW_CORRUPT")
        shard.quarantine(damage)
        raise damage from error


def highest_positions(positions: Iterable[Position]) -> list[Position]:
    """The last position of each shard."""
    highest: dict[int, Position] = {}
    for position in positions:
        highest[position.shard] = max(position, highest.get(position.shard, position))
    return sorted(highest.values())


def part_id(request_id: str, number: int) -> str:
    """Id of one part of a long request, the same whenever the request is repeated; raises InvalidArgument."""
    return str(uuid.uuid5(_check_uuid(request_id), str(number))) if request_id else ""


def _check_uuid(request_id: str) -> uuid.UUID:
    try:
        return uuid.UUID(request_id)
    except ValueError as error:
        raise InvalidArgument(
            f"request_id {request_id[:64]!r} is no UUID", reason="BAD_REQUEST_ID", field="request_id"
        ) from error
