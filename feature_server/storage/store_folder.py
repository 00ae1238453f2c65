"""The folder of one store: its lock, its identity and a folder per shard."""

import errno
import fcntl
import json
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from rocksdict import Options

from core_ext.hashing import SLOT_COUNT
from core_ext.row_table import RowTable
from feature_server.domain.row_store import StoreOpener
from feature_server.domain.shard import Shard
from feature_server.domain.shard_core import WAITER_COUNT_MAX
from feature_server.storage.files import read_file, write_file
from feature_server.storage.packed_rows import Packing, read_layout
from feature_server.storage.packed_store import PackedOpener
from feature_server.storage.rocks import RocksOpener
from feature_server.storage.rocks_options import SharedMemory, StoreBudget, shard_options
from feature_server.storage.row_log import SegmentLog
from headrace.errors import DataLoss, FailedPrecondition, InvalidArgument, Unavailable
from headrace.serving.logging import EventLog

IDENTITY_NAME: Final = "identity"
LOCK_NAME: Final = "lock"
STORE_LAYOUT: Final = 1  # of folder, keys, records and rows together
PACKED_LAYOUT: Final = 2  # the same with rows that lie together, which versions before it would not find
STORE_LAYOUTS: Final = (STORE_LAYOUT, PACKED_LAYOUT)
SHARD_COUNT: Final = 8


@dataclass(frozen=True, slots=True)
class Identity:
    """What a store is, for ever."""

    store_id: str
    shard_count: int
    layout: int = STORE_LAYOUT


class StoreFolder:
    """Holds the folder's lock from construction to close. Without a shard count, that of the store or the default."""

    def __init__(self, path: Path, shard_count: int | None = None) -> None:
        check_shard_count(SHARD_COUNT if shard_count is None else shard_count)
        self.path = path
        self._lock = _locked(path)
        try:
            self.identity = _identity(path / IDENTITY_NAME, shard_count)
        except BaseException:
            self.close()
            raise

    def shards(
        self,
        table: RowTable,
        budget: StoreBudget,
        clock_us: Callable[[], int],
        log: EventLog,
        row_log_bytes: int | None = None,
    ) -> list[Shard]:
        """The shards, not yet opened. They share block cache, write buffers and, in equal parts, the row log bytes."""
        layout = read_layout(self.path)
        if not layout.is_whole:
            raise FailedPrecondition(
                f"the rows of {self.path} are on their way from one layout to another; run the command "
                "`headrace service layout SERVICE --apply` again to its end",
                reason="LAYOUT_UNFINISHED",
                field="data",
            )
        options = shard_options(SharedMemory(budget), self.identity.shard_count)
        waiters = threading.BoundedSemaphore(WAITER_COUNT_MAX)
        return [
            Shard(
                number,
                self._opener(number, options, layout.packings),
                table,
                clock_us,
                log,
                waiters,
                self._row_log(number, row_log_bytes, log),
            )
            for number in range(self.identity.shard_count)
        ]

    def _opener(self, number: int, options: Options, packings: Sequence[Packing]) -> StoreOpener:
        opener = RocksOpener(self.shard_path(number), options)
        return PackedOpener(opener, packings) if packings else opener

    def shard_path(self, number: int) -> Path:
        """Folder of a shard."""
        return self.path / f"shard-{number:04}"

    def allow_packs(self) -> None:
        """Tells versions that know of no packs to leave the store alone, from now on."""
        self.identity = replace(self.identity, layout=PACKED_LAYOUT)
        write_file(self.path / IDENTITY_NAME, json.dumps(asdict(self.identity)).encode())

    def _row_log(self, number: int, bytes_of_all: int | None, log: EventLog) -> SegmentLog | None:
        if bytes_of_all is None:
            return None
        return SegmentLog(self.path / f"row-log-{number:04}", bytes_of_all // self.identity.shard_count, log)

    def close(self) -> None:
        """Gives the lock back."""
        os.close(self._lock)


def check_shard_count(shard_count: int) -> None:
    """Raises InvalidArgument unless the count is a power of two up to the number of slots."""
    if not 1 <= shard_count <= SLOT_COUNT or shard_count & (shard_count - 1):
        raise InvalidArgument(
            f"a store has a power of two of shards, 1 to {SLOT_COUNT}, not {shard_count}",
            reason="SHARD_COUNT",
            field="shards",
            metadata={"shards": str(shard_count)},
        )


def _locked(path: Path) -> int:
    try:
        descriptor = _lock_file(path)
    except OSError as error:
        raise Unavailable(
            f"data folder {path} cannot be used: {error.strerror}", reason="DATA_FOLDER_UNUSABLE"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
            raise Unavailable(
                f"data folder {path} cannot be locked: {error.strerror}", reason="DATA_FOLDER_UNUSABLE"
            ) from error
        raise FailedPrecondition(
            f"data folder {path} is in use by another process; stop it or choose another folder with --data",
            reason="DATA_FOLDER_IN_USE",
            field="data",
        ) from error
    return descriptor


def _lock_file(path: Path) -> int:
    try:
        path.mkdir(parents=True, exist_ok=True)
        return os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        # What a read-only disk holds can be served, and is locked as well.
        if error.errno == errno.EROFS and (path / LOCK_NAME).exists():
            return os.open(path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
        raise


def _identity(path: Path, shard_count: int | None) -> Identity:
    stored = read_file(path)
    if stored is None:
        if any(path.parent.glob("shard-*")):
            raise DataLoss(
                f"data folder {path.parent} holds shards and no identity; restore the file {path.name}",
                reason="IDENTITY_MISSING",
            )
        identity = Identity(str(uuid.uuid4()), SHARD_COUNT if shard_count is None else shard_count)
        write_file(path, json.dumps(asdict(identity)).encode())
        return identity
    identity = Identity(**json.loads(stored))
    if identity.layout not in STORE_LAYOUTS:
        raise FailedPrecondition(
            f"data folder {path.parent} has layout {identity.layout}; this version reads {STORE_LAYOUTS}",
            reason="STORE_LAYOUT",
            field="data",
        )
    if shard_count not in {None, identity.shard_count}:
        raise FailedPrecondition(
            f"data folder {path.parent} has {identity.shard_count} shards and {shard_count} were asked for; "
            f"the count is fixed per store: start with --shards {identity.shard_count}",
            reason="SHARD_COUNT",
            field="shards",
            metadata={"shards": str(shard_count), "stored": str(identity.shard_count)},
        )
    return identity
