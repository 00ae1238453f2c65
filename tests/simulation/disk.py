"""A copy's store on a disk that loses what was not synced: whole batches from the end, rows and offset together."""

from random import Random

from feature_server.ring.log import LogRows
from headrace.errors import DataLoss


class SimStore:
    """Satisfies CopyStore."""

    def __init__(self) -> None:
        self._is_complete = False
        self.is_damaged = False
        self.rows: dict[bytes, bytes] = {}
        self.offset = 0
        self._synced: tuple[bool, dict[bytes, bytes], int] = (False, {}, 0)
        self._unsynced: list[LogRows] = []

    @property
    def is_complete(self) -> bool:
        return self._is_complete and not self.is_damaged

    @property
    def next_offset(self) -> int:
        return self.offset

    @property
    def synced_offset(self) -> int:
        """What a crash cannot take."""
        return self._synced[2]

    def begin(self) -> None:
        self._is_complete, self.is_damaged, self.rows, self.offset = False, False, {}, 0
        self.sync()

    def spoil(self) -> None:
        self._is_complete = False
        self.sync()

    def apply(self, log_rows: LogRows) -> None:
        if self.is_damaged:
            raise DataLoss("the simulated disk is damaged", reason="STORAGE_CORRUPT")
        self._put(log_rows)
        self._unsynced.append(log_rows)

    def complete(self) -> None:
        self._is_complete = True
        self.sync()

    def drop(self) -> None:
        if self._is_complete or self.rows or self.offset:
            self.begin()

    def sync(self) -> None:
        """Makes everything durable."""
        self._synced = (self._is_complete, dict(self.rows), self.offset)
        self._unsynced.clear()

    def crash(self, random: Random) -> None:
        """Loses a suffix of what was not synced."""
        kept = self._unsynced[: random.randint(0, len(self._unsynced))]
        self._is_complete, rows, self.offset = self._synced
        self.rows = dict(rows)
        for log_rows in kept:
            self._put(log_rows)
        self.sync()

    def damage(self, random: Random) -> None:
        """Bytes rot, and a check has found it: the copy is not whole until it is begun anew."""
        self.is_damaged = True
        for key in random.sample(sorted(self.rows), (len(self.rows) + 1) // 2):
            self.rows[key] = b"rotten"

    def _put(self, log_rows: LogRows) -> None:
        for write in log_rows.writes:
            self.rows.update(zip(write.keys, write.rows, strict=True))
        self.offset = log_rows.next_offset
