"""Takes rows of retired view versions away: of what is stored, all that no read may ask for."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from feature_server.domain.catalogue import Catalogue
from feature_server.domain.shard import Shard
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.storage_keys import is_record, view_id_of
from feature_server.domain.storage_use import SCAN_BYTES_PER_S, SCAN_ROWS, StorageUse
from headrace.errors import FailedPrecondition, HeadraceError
from headrace.serving.logging import EventLog
from headrace.serving.principal import Principal

PERMISSION: Final = "FEATURE_ERASE"
GRACE_S: Final = 60.0  # since a version was first seen retired: reads that began before have ended, 10 s at most
CHECK_S: Final = 5.0
STOP_WAIT_S: Final = 30.0


@dataclass(slots=True)
class Reclaimed:
    """What was taken away of one shard; `problem` says why the walk ended early."""

    shard: int
    row_count: int = 0
    row_bytes: int = 0
    problem: str = ""


class Reclaim:
    """Walks over shards when asked and, with an interval, by itself; one walk at a time with those that measure."""

    def __init__(
        self,
        shards: ShardSet,
        catalogue: Catalogue,
        storage: StorageUse,
        log: EventLog,
        interval_s: float = 0.0,
        *,
        is_alone: bool = True,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shards = shards
        self._catalogue = catalogue
        self._storage = storage
        self._is_alone = is_alone
        self._log = log
        self._interval_s = interval_s
        self._sleep = sleep
        self._monotonic = monotonic
        self._seen_s: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="reclaim", daemon=True)
        self.row_count = 0
        self.byte_count = 0

    def start(self) -> None:
        """Starts the thread that notes which versions are retired and, with an interval, walks."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread between two steps."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_WAIT_S)

    def due(self) -> frozenset[int]:
        """Versions that have been retired for long enough, as far as this server has seen."""
        now_s, retired = self._monotonic(), self._catalogue.retired_ids
        self._seen_s = {view_id: self._seen_s.get(view_id, now_s) for view_id in retired}
        return frozenset(view_id for view_id, seen_s in self._seen_s.items() if now_s - seen_s >= GRACE_S)

    def run(self, principal: Principal, is_wanted: Callable[[], bool] = lambda: True) -> Iterator[Reclaimed]:
        """Takes away what is due, shard by shard. Raises HeadraceError."""
        principal.require(PERMISSION)
        if not self._is_alone:
            raise FailedPrecondition(
                "rows are taken away outside of the log, and copies in a ring are compared by their rows; "
                "reclaim on servers without --ring",
                reason="RING_WITH_RECLAIM",
            )
        with self._storage.turn():
            yield from self._walked(is_wanted)

    def _walked(self, is_wanted: Callable[[], bool]) -> Iterator[Reclaimed]:
        due = self.due()
        for shard in self._shards.shards if due else ():
            done = Reclaimed(shard.number)
            try:
                self._walk(shard, due, done, is_wanted)
            except HeadraceError as error:
                done.problem = error.message
            self.row_count += done.row_count
            self.byte_count += done.row_bytes
            if done.row_count:
                self._log.info("rows_reclaimed", shard=shard.number, row_count=done.row_count, bytes=done.row_bytes)
            yield done
            if not is_wanted():
                return

    def _walk(self, shard: Shard, due: frozenset[int], done: Reclaimed, is_wanted: Callable[[], bool]) -> None:
        start = b""
        while is_wanted():
            begun_s = self._monotonic()
            rows = shard.scan(start, SCAN_ROWS)
            gone = [key for key, _ in rows if not is_record(key) and view_id_of(key) in due]
            if gone:
                row_count, row_bytes = shard.remove(gone)
                done.row_count += row_count
                done.row_bytes += row_bytes
            if len(rows) < SCAN_ROWS:
                return
            start = rows[-1][0] + b"\0"
            byte_count = sum(len(row) for _, row in rows)
            self._sleep(max(self._monotonic() - begun_s, byte_count / SCAN_BYTES_PER_S))

    def _repeat(self) -> None:
        next_s = self._monotonic() + self._interval_s
        while not self._stop.wait(CHECK_S):
            try:
                self.due()
                if self._interval_s and self._monotonic() >= next_s:
                    with self._storage.turn():
                        for _ in self._walked(lambda: not self._stop.is_set()):
                            pass
                    next_s = self._monotonic() + self._interval_s
            except HeadraceError as error:
                self._log.info("reclaim_waits", detail=error.message)
            except Exception as error:  # noqa: BLE001 - the outermost loop of a thread
                self._log.failure("reclaim_failed", error)
