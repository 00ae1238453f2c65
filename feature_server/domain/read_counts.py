"""What a store is asked for: rows read by service, rows fetched from storage and written by view, since it began."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from headrace.errors import HeadraceError
from headrace.serving.logging import EventLog

SAVE_INTERVAL_S: Final = 60.0
COUNTS_NAME: Final = "read-counts"  # of the file, in the folder of the store


@dataclass(frozen=True, slots=True)
class ReadCounts:
    """Rows by the name of a service with its version, and by view id as text."""

    read: Mapping[str, int] = field(default_factory=dict)
    fetched: Mapping[str, int] = field(default_factory=dict)
    written: Mapping[str, int] = field(default_factory=dict)

    def plus(self, other: "ReadCounts") -> "ReadCounts":
        """Both together."""
        pairs = ((self.read, other.read), (self.fetched, other.fetched), (self.written, other.written))
        return ReadCounts(*(dict(Counter(mine) + Counter(theirs)) for mine, theirs in pairs))


def encode_counts(counts: ReadCounts) -> bytes:
    """Bytes of a file of counts."""
    return json.dumps(asdict(counts)).encode()


def decode_counts(data: bytes | None) -> ReadCounts:
    """Counts of such a file; none of a store that has no such file yet."""
    return ReadCounts() if data is None else ReadCounts(**json.loads(data))


class CountsFile:
    """Adds what this process counts to what the file held, again and again."""

    def __init__(
        self, held: bytes | None, counted: Callable[[], ReadCounts], save: Callable[[bytes], None], log: EventLog
    ) -> None:
        self._before = decode_counts(held)
        self._counted = counted
        self._save = save
        self._log = log
        self._saved = b""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="read-counts", daemon=True)

    def start(self) -> None:
        """Saves every minute from now on."""
        self._thread.start()

    def close(self) -> None:
        """Saves once more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.save()

    def save(self) -> None:
        """Saves where something was counted; a disk that refuses is told to the log, as reads go on without."""
        data = encode_counts(self._before.plus(self._counted()))
        if data == self._saved:
            return
        try:
            self._save(data)
        except HeadraceError as error:
            self._log.error("read_counts_not_saved", reason=error.reason, detail=error.message)
        else:
            self._saved = data

    def _keep(self) -> None:
        while not self._stop.wait(SAVE_INTERVAL_S):
            self.save()
