"""The thread that writes the sample of answered reads down."""

import threading
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

import pyarrow as pa

from core_ext.served_ring import ServedRing
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.row_log import LogChunk, LogPosition, RowLogStatus
from feature_server.domain.selection import Prepared
from feature_server.domain.served_rows import read_record, served_rows
from headrace.served import encode_rows
from headrace.serving.logging import EventLog

WAIT_S: Final = 0.25
STOP_WAIT_S: Final = 10.0
FRAME_ROWS: Final = 20_000  # answers of one frame, unless a single read has more
SELECTIONS_MAX: Final = 1_024
QUEUE_BYTES_MAX: Final = 32 << 20  # records that wait: seconds of a sample of 1 % of a busy server


class ServedStore(Protocol):
    """Where the rows are kept until the offline store has them."""

    def append(self, stream: bytes, row_count: int) -> bool:
        """Writes one Arrow stream; False where there is no room."""

    def read(self, start: LogPosition, chunk_bytes: int) -> Iterator[LogChunk]:
        """Whole frames from a position on, up to now."""

    def acknowledge(self, position: LogPosition) -> None:
        """What lies before the position is safe elsewhere; repeating one changes nothing."""

    def status(self) -> RowLogStatus:
        """State now."""


class ServedWriter:
    """Takes records from the ring, makes rows of them and writes those; what it cannot write it drops and counts."""

    def __init__(self, ring: ServedRing, catalogue: Catalogue, store: ServedStore, log: EventLog) -> None:
        self._ring = ring
        self._catalogue = catalogue
        self._store = store
        self._log = log
        self._selections: dict[bytes, Prepared] = {}
        self._thread = threading.Thread(target=self._run, name="served-log", daemon=True)
        self._stop = threading.Event()
        self.written_count = 0
        self._dropped = {"unresolved": 0, "log_full": 0, "failed": 0}

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    def close(self) -> None:
        """Writes what waits and ends."""
        self._ring.close()
        self._stop.set()
        self._thread.join(STOP_WAIT_S)

    @property
    def sampled_count(self) -> int:
        """Reads that were chosen and handed over."""
        return self._ring.counts()["sampled"]

    def dropped(self) -> Mapping[str, int]:
        """Reads that were chosen and not written, by reason."""
        return {"queue_full": self._ring.counts()["dropped"], **self._dropped}

    def write_waiting(self, timeout_s: float = 0.0) -> None:
        """Writes the records that wait; waits up to the time for the first."""
        tables: list[pa.Table] = []
        row_count = 0
        for record in self._ring.take(timeout_s):
            table = self._rows(record)
            if table is None:
                continue
            if tables and row_count + table.num_rows > FRAME_ROWS:
                self._append(tables)
                tables, row_count = [], 0
            tables.append(table)
            row_count += table.num_rows
        if tables:
            self._append(tables)

    def _rows(self, record: bytes) -> pa.Table | None:
        try:
            read = read_record(record)
            prepared = self._selection(read.handle)
            if prepared is None:
                self._dropped["unresolved"] += 1
                return None
            return served_rows(read, prepared)
        except Exception as error:  # noqa: BLE001 - one answer that cannot be read must not end the log
            self._dropped["failed"] += 1
            self._log.failure("served_answer_not_read", error)
            return None

    def _selection(self, handle: bytes) -> Prepared | None:
        found = self._selections.get(handle) or self._catalogue.answered(handle)
        if found is not None:
            if len(self._selections) >= SELECTIONS_MAX:
                self._selections.clear()
            self._selections[handle] = found
        return found

    def _append(self, tables: list[pa.Table]) -> None:
        rows = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        if self._store.append(encode_rows(rows), rows.num_rows):
            self.written_count += rows.num_rows
        else:
            self._dropped["log_full"] += len(tables)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._step(WAIT_S)
        self._step(0.0)

    def _step(self, timeout_s: float) -> None:
        try:
            self.write_waiting(timeout_s)
        except Exception as error:  # noqa: BLE001 - the outermost loop of a thread
            self._dropped["failed"] += 1
            self._log.failure("served_log_failed", error)
