"""What messages of the log of a shard are for its copy: writes in order, and marks of what streams have brought."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_server.domain.catalogue import Catalogue
from feature_server.domain.input_marks import NOTHING_TAKEN, InputMark, decode_mark, mark_key
from feature_server.domain.layouts import ViewLayout
from feature_server.domain.log_messages import (
    KEY,
    LOG_MESSAGE,
    OFFSET_BITS,
    POSITION,
    WRITE_TIME,
    Kind,
    Logged,
    LogMessage,
    Origin,
    read_message,
)
from feature_server.domain.log_writes import LogWrite
from feature_server.domain.logged_rows import MadeRows, Outgrown, Place, erased_rows, view_rows
from feature_server.domain.replays import replayed_rows
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.writes import DIRECT_SOURCE_ID
from feature_server.pipeline.sources import view_batch
from headrace.errors import DataLoss, HeadraceError, InvalidArgument, Unavailable
from headrace.serving.logging import EventLog

RETRY_MS: Final = 1_000


class LogFold:
    """Turns messages into writes; of one thread. A message that is none changes nothing, at every copy alike."""

    def __init__(self, catalogue: Catalogue, shards: ShardSet, log: EventLog) -> None:
        self._catalogue = catalogue
        self._shards = shards
        self._log = log
        self._marks: dict[int, dict[int, InputMark]] = {}  # by shard and view, as they will be once all is applied
        self._outgrown = Outgrown()
        self.damaged_count = 0
        self.unusable_count = 0  # events that a view cannot take
        self.repeated_count = 0  # events that were in the log before

    @property
    def outgrown_count(self) -> int:
        """Entities whose events were left out, as their rows would be too large."""
        return self._outgrown.count

    def forget(self, shard: int) -> None:
        """What was turned into writes may not have been applied: marks are read from the shard again."""
        self._marks.pop(shard, None)

    def writes(self, shard: int, messages: Sequence[Logged]) -> list[LogWrite]:
        """Writes of messages in the order of the log.

        Raises Unavailable where the registry of a message is not known here yet, and what a view is refused with.
        """
        found: list[LogWrite] = []
        for logged in messages:
            try:
                message = read_message(logged)
                found += self._writes(shard, logged, message, self._views(message))
            except (DataLoss, InvalidArgument) as error:
                if isinstance(error, DataLoss) and error.reason != LOG_MESSAGE:
                    raise
                self.damaged_count += 1
                self._log.error(
                    "log_message_refused", shard=shard, offset=logged.offset, reason=error.reason, detail=error.message
                )
        return found

    def _views(self, message: LogMessage) -> list[ViewLayout]:
        found = []
        for view_id in message.views:
            view = self._catalogue.view_of_id(view_id)
            if view is None and self._catalogue.revision < message.revision:
                raise Unavailable(
                    f"the log has rows of a view of registry revision {message.revision}, and this server knows "
                    f"{self._catalogue.revision}; they wait until it has followed",
                    reason="REGISTRY_BEHIND",
                    retry_after_ms=RETRY_MS,
                )
            if view is None:
                raise DataLoss(f"no view has the id {view_id}", reason=LOG_MESSAGE)
            if view.refusal is not None:
                raise _waiting(view, view.refusal)
            found.append(view)
        return found

    def _writes(
        self, shard: int, logged: Logged, message: LogMessage, views: Sequence[ViewLayout]
    ) -> Iterator[LogWrite]:
        first = logged.offset << OFFSET_BITS
        times = np.full(message.batch.num_rows, logged.write_us, np.int64)
        place = Place(times, DIRECT_SOURCE_ID, shard, first)
        made: list[tuple[ViewLayout, Sequence[MadeRows], InputMark | None]] = []
        if message.kind is Kind.ROWS:
            made = [(view, [view_rows(view, message.batch, place, self._outgrown)], None) for view in views]
        elif message.kind is Kind.REPLAY:
            made = [(view, [replayed_rows(view, message.batch)], None) for view in views]
        elif message.kind is Kind.ERASE:
            keys = message.batch.column(KEY).to_pylist()
            made = [(view, [erased_rows(view, keys, place)], None) for view in views]
        else:
            made = [(view, *self._events(shard, view, message, place)) for view in views]
        for view, parts, mark in made:
            records = {}
            if mark is not None:
                self._marks[shard][view.view_id] = mark
                records = {mark_key(view.view_id, shard): mark.encode()}
            for rows in parts or [MadeRows((), ())]:
                yield LogWrite(logged.offset + 1, rows.keys, rows.rows, logged.write_us, rows.merge, records)

    def _events(
        self, shard: int, view: ViewLayout, message: LogMessage, place: Place
    ) -> tuple[Sequence[MadeRows], InputMark | None]:
        """Rows of the events that the view has not taken before, whoever sent them again."""
        origin = message.origin
        assert origin is not None, "events have one"
        source = origin.source_id, origin.partition
        mark = self._mark(shard, view)
        positions, write_us = _system_columns(message.batch)
        fresh = np.flatnonzero(positions > mark.taken.get(source, NOTHING_TAKEN))
        self.repeated_count += len(positions) - len(fresh)
        if not len(fresh):
            return (), None
        batch = view_batch(message.batch.take(pa.array(fresh)), view, self._catalogue.layouts[0])
        if batch is None:
            raise DataLoss(f"events of {origin.source} lack columns of {view.ref}", reason=LOG_MESSAGE)
        times = np.where(write_us[fresh] < 0, place.write_us[fresh], write_us[fresh])
        made = list(self._usable(view, batch, Place(times, origin.source_id, shard, place.first_offset), origin))
        return made, InputMark(next_offset=0, taken={**mark.taken, source: int(positions[fresh[-1]])})

    def _usable(self, view: ViewLayout, batch: pa.RecordBatch, place: Place, origin: Origin) -> Iterator[MadeRows]:
        """Rows of all events but those that the view cannot take: they are left out alone, by every copy alike."""
        try:
            yield view_rows(view, batch, place, self._outgrown)
        except InvalidArgument as error:
            if batch.num_rows == 1:
                self.unusable_count += 1
                self._log.error(
                    "event_refused", view=view.ref, source=origin.source, partition=origin.partition,
                    reason=error.reason, detail=error.message,
                )  # fmt: skip
                return
            middle = batch.num_rows // 2
            behind = place._replace(write_us=place.write_us[middle:], first_offset=place.first_offset + middle)
            yield from self._usable(
                view, batch.slice(0, middle), place._replace(write_us=place.write_us[:middle]), origin
            )
            yield from self._usable(view, batch.slice(middle), behind, origin)

    def _mark(self, shard: int, view: ViewLayout) -> InputMark:
        marks = self._marks.setdefault(shard, {})
        if view.view_id not in marks:
            data = self._shards[shard].read([mark_key(view.view_id, shard)])[0]
            try:
                marks[view.view_id] = InputMark() if data is None else decode_mark(data)
            except DataLoss as error:
                self._shards[shard].quarantine(error)
                raise
        return marks[view.view_id]


def _system_columns(batch: pa.RecordBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if not {POSITION, WRITE_TIME} <= set(batch.schema.names):
        raise DataLoss("events of the log have no positions", reason=LOG_MESSAGE)
    positions = batch.column(POSITION).to_numpy(zero_copy_only=False)
    write_us = batch.column(WRITE_TIME).to_numpy(zero_copy_only=False)
    if positions.dtype != np.int64 or write_us.dtype != np.int64 or np.any(np.diff(positions) <= 0):
        raise DataLoss("positions of events of the log do not rise", reason=LOG_MESSAGE)
    return positions, write_us


def _waiting(view: ViewLayout, refusal: HeadraceError) -> Unavailable:
    return Unavailable(
        f"rows of {view.ref} wait in the log, as this server cannot compute it: {refusal.message}",
        reason=refusal.reason,
        metadata={"feature_view": view.ref},
    )
