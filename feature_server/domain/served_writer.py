"""The thread that writes the sample of answered reads down."""

import threading
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from core_ext.served_ring import ServedRing
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.row_log import LogChunk, LogPosition, RowLogStatus
from feature_server.domain.served_rows import Selection, ServedRead, read_record, served_rows
from headrace.served import encode_rows
from headrace.serving.logging import EventLog
from headrace.serving.priority import BESIDE_READS, lower_priority

WAIT_S: Final = 0.25
STOP_WAIT_S: Final = 10.0
FRAME_ROWS: Final = 20_000  # answers of one frame: some megabytes
READ_ROWS_MAX: Final = 1_000_000  # answers of one read; their rows take a hundred megabytes for a moment
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
        self._selections: dict[bytes, Selection] = {}
        self._thread = threading.Thread(target=self._run, name="served-log", daemon=True)
        self._stop = threading.Event()
        self.written_count = 0
        self._dropped = {"unresolved": 0, "too_large": 0, "log_full": 0, "failed": 0}

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

    def write_waiting(self, gather_s: float = 0.0) -> None:
        """Writes the records that wait; lets them gather for a time first."""
        waiting: dict[bytes, list[ServedRead]] = {}
        row_counts: dict[bytes, int] = {}
        for record in self._ring.take(gather_s):
            read = read_record(record)
            selection = self._selection(read.handle)
            if selection is None:
                self._dropped["unresolved"] += 1
                continue
            row_count = read.row_count * len(selection.kinds)
            if row_count > READ_ROWS_MAX:
                self._dropped["too_large"] += 1
                continue
            if row_counts.get(read.handle, 0) + row_count > FRAME_ROWS:
                self._write(waiting.pop(read.handle, []), selection)
                row_counts[read.handle] = 0
            waiting.setdefault(read.handle, []).append(read)
            row_counts[read.handle] = row_counts.get(read.handle, 0) + row_count
        for handle, reads in waiting.items():
            self._write(reads, self._selections[handle])

    def _selection(self, handle: bytes) -> Selection | None:
        found = self._selections.get(handle)
        if found is None:
            prepared = self._catalogue.answered(handle)
            if prepared is None:
                return None
            found = self._selections[handle] = Selection(prepared)
        return found

    def _write(self, reads: list[ServedRead], selection: Selection) -> None:
        if not reads:
            return
        try:
            rows = served_rows(reads, selection)
            parts = [rows.slice(first, FRAME_ROWS) for first in range(0, rows.num_rows, FRAME_ROWS)]
            written = sum(part.num_rows for part in parts if self._store.append(encode_rows(part), part.num_rows))
        except Exception as error:  # noqa: BLE001 - answers that cannot be read must not end the log
            self._dropped["failed"] += len(reads)
            self._log.failure("served_answers_not_written", error)
            return
        self.written_count += written
        if written < rows.num_rows:
            self._dropped["log_full"] += len(reads)

    def _forget(self) -> None:
        if len(self._selections) > SELECTIONS_MAX:
            self._selections.clear()

    def _run(self) -> None:
        lower_priority(BESIDE_READS)
        while not self._stop.is_set():
            self._step(WAIT_S)
        self._step(0.0)

    def _step(self, timeout_s: float) -> None:
        try:
            self.write_waiting(timeout_s)
            self._forget()
        except Exception as error:  # noqa: BLE001 - the outermost loop of a thread
            self._dropped["failed"] += 1
            self._log.failure("served_log_failed", error)
