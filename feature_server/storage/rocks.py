"""One shard's rows in RocksDB; the only place that sees an exception of rocksdict."""

import errno
import os
import shutil
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice, starmap
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, cast

from rocksdict import AccessType, Checkpoint, DbClosedError, Options, Rdict, ReadOptions, WriteBatch, WriteOptions

from feature_server.storage.files import sync_folder
from feature_server.storage.integrity import check_shard, forget_sequence, note_sequence
from headrace.errors import DataLoss, HeadraceError, InternalError, ResourceExhausted, Unavailable

CLOSE_WAIT_S: Final = 30.0  # a read of one chunk takes milliseconds, a failing disk may hold it for longer
CHECK_OPEN_FILES: Final = 32  # of the look into the manifest, which reads no rows
WRITTEN_BY_READERS: Final = frozenset({"rocksdict-config.json", "LOG", "LOCK"})
LINKS_SUFFIX: Final = ".links"
PROBE_NAME: Final = "probe.tmp"
PROBE_BYTES: Final = 4 << 20  # room that a shard needs to open again: a manifest, a log, a flushed record

# Parts of RocksDB's messages, in the order in which they decide.
_FULL: Final = ("No space left", "Space limit reached", "Disk quota exceeded")
_LOST: Final = ("Corruption", "No such file", "does not exist", "checksum mismatch")
_DENIED: Final = ("Read-only file system", "Permission denied", "Operation not permitted", "Too many open files")
_MESSAGE_LENGTH_MAX: Final = 500
_FULL_NUMBERS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class RocksStore:
    """Rows of one shard."""

    def __init__(self, path: Path, options: Options, *, is_read_only: bool = False) -> None:
        self.is_read_only = is_read_only
        self._path = path
        self._links = _linked(path) if is_read_only else None
        folder = self._links or path
        access = AccessType.read_only(False) if is_read_only else AccessType.read_write()
        try:
            self._rows = Rdict(str(folder), options, access_type=access)
        except Exception as error:
            self._remove_links()
            raise translated(error, path) from error
        self._synced = WriteOptions()
        self._synced.sync = True
        self._logged = WriteOptions()
        self._idle = threading.Condition()
        self._call_count = 0
        self._is_closing = False

    def get(self, key: bytes) -> bytes | None:
        """Value of one key."""
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys; gives up the GIL while it reads."""
        self._enter()
        try:
            values = self._rows.get(list(keys))
        except Exception as error:
            raise translated(error, self._path) from error
        finally:
            self._leave()
        return cast(list[bytes | None], values)

    def scan(self, start: bytes, count: int) -> list[tuple[bytes, bytes]]:
        """Up to so many keys from `start` on, with their values."""
        options = ReadOptions()
        options.fill_cache(False)  # type: ignore[call-arg]  # as it is compiled; its stub lacks the argument
        self._enter()
        try:
            found = list(islice(self._rows.items(from_key=start, read_opt=options), count))
        except Exception as error:
            raise translated(error, self._path) from error
        finally:
            self._leave()
        return cast(list[tuple[bytes, bytes]], found)

    def disk_bytes(self) -> int:
        """Bytes of the files; one that goes while they are counted counts as gone."""
        total = 0
        for file in self._path.iterdir():
            with suppress(FileNotFoundError):
                total += file.stat().st_size
        return total

    def write(self, keys: Sequence[bytes], values: Sequence[bytes], *, sync: bool) -> None:
        """Writes all or none; gives up the GIL while it writes."""
        if self.is_read_only:
            raise Unavailable(f"{self._path} is open for reads alone", reason="STORAGE_READ_ONLY")
        batch = WriteBatch(raw_mode=True)
        # In key order: the memtable then finds each place near the one before.
        deque(starmap(batch.put, sorted(zip(keys, values, strict=True))), maxlen=0)
        self._commit(batch, self._synced if sync else self._logged)

    def _commit(self, batch: WriteBatch, options: WriteOptions) -> None:
        self._enter()
        try:
            self._rows.write(batch, options)
        except Exception as error:
            raise translated(error, self._path) from error
        finally:
            self._leave()

    def replace(self, removed: Iterable[bytes], stored: Mapping[bytes, bytes]) -> None:
        """Removes keys and writes others, all or none."""
        batch = WriteBatch(raw_mode=True)
        deque(map(batch.delete, removed), maxlen=0)
        deque(starmap(batch.put, stored.items()), maxlen=0)
        self._commit(batch, self._logged)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key and value in the order of the keys, as they were at the first."""
        self._enter()
        try:
            yield from cast(Iterator[tuple[bytes, bytes]], self._rows.items())  # raw mode: bytes alone
        except HeadraceError:
            raise
        except Exception as error:
            raise translated(error, self._path) from error
        finally:
            self._leave()

    def compact(self) -> None:
        """Rewrites every table file, so that removed and replaced rows give their room back."""
        self._enter()
        try:
            self._rows.flush()
            self._rows.compact_range(None, None)
        except Exception as error:
            raise translated(error, self._path) from error
        finally:
            self._leave()

    def anchor(self) -> None:
        """Notes beside the folder how far it is, so that losing files is noticed when it is opened again."""
        note_sequence(self._path, self.sequence())

    def checkpoint(self, folder: Path) -> None:
        """Leaves a whole copy in a new folder; table files are links, without room of their own until a compaction."""
        self._enter()
        try:
            Checkpoint(self._rows).create_checkpoint(str(folder))
        except Exception as error:
            raise translated(error, self._path) from error
        finally:
            self._leave()

    def sequence(self) -> int:
        """RocksDB's number of the last write."""
        self._enter()
        try:
            return int(self._rows.latest_sequence_number())
        finally:
            self._leave()

    def flush(self) -> None:
        """Brings what is in memory into table files."""
        self._enter()
        try:
            self._rows.flush()
        except Exception as error:
            raise translated(error, self._path) from error
        finally:
            self._leave()

    def number(self, name: str) -> int:
        """A property of RocksDB such as rocksdb.estimate-num-keys; 0 where it is unknown."""
        try:
            self._enter()
        except Unavailable:
            return 0
        try:
            return int(self._rows.property_int_value(name) or 0)
        finally:
            self._leave()

    def close(self) -> None:
        """Closes the files once the calls that run have ended; rocksdict refuses to close beside them."""
        with self._idle:
            if self._is_closing:
                return
            self._is_closing = True
            self._idle.wait_for(lambda: self._call_count == 0, CLOSE_WAIT_S)
        try:
            self._rows.close()
        except Exception as error:
            raise translated(error, self._path) from error
        finally:
            self._remove_links()

    def _remove_links(self) -> None:
        if self._links is not None:
            shutil.rmtree(self._links, ignore_errors=True)

    def _enter(self) -> None:
        with self._idle:
            if self._is_closing:
                raise Unavailable(f"{self._path.name} is closed", reason="STORAGE_CLOSED")
            self._call_count += 1

    def _leave(self) -> None:
        with self._idle:
            self._call_count -= 1
            if self._is_closing and not self._call_count:
                self._idle.notify_all()


class RocksOpener:
    """Opens one shard's folder."""

    def __init__(self, path: Path, options: Options) -> None:
        self._path = path
        self._options = options

    def open(self) -> RocksStore:
        """For reads and writes; makes the folder where there is none."""
        try:
            if not self._path.exists():
                self._path.mkdir()
                sync_folder(self._path.parent)
            check_shard(self._path, self._flushed_sequence)
        except OSError as error:
            raise from_os(error, self._path) from error
        return RocksStore(self._path, self._options)

    def open_read_only(self) -> RocksStore:
        """For reads alone."""
        return RocksStore(self._path, self._options, is_read_only=True)

    def _flushed_sequence(self) -> int:
        options = Options(raw_mode=True)
        options.set_max_open_files(CHECK_OPEN_FILES)
        options.set_skip_stats_update_on_db_open(True)
        # The parent holds no logs: what is seen is what the manifest has flushed.
        options.set_wal_dir(str(self._path.parent))
        store = RocksStore(self._path, options, is_read_only=True)
        try:
            return store.sequence()
        finally:
            store.close()

    def remove(self) -> None:
        """Deletes the folder. The note beside it goes first: a note without files tells of lost ones."""
        try:
            forget_sequence(self._path)
            shutil.rmtree(self._path, ignore_errors=False)
            sync_folder(self._path.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise from_os(error, self._path) from error

    def install(self, folder: Path) -> None:
        """Puts a checkpoint in the place of the folder."""
        self.remove()
        try:
            os.replace(folder, self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            raise from_os(error, self._path) from error

    def probe(self) -> None:
        """Writes, syncs and removes a scratch file."""
        path = self._path / PROBE_NAME
        try:
            with path.open("wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise from_os(error, self._path) from error
        finally:
            path.unlink(missing_ok=True)


def _linked(path: Path) -> Path:
    # rocksdict writes its settings and a log beside the files even where it only reads: let it write elsewhere.
    try:
        links = _links_folder(path)
        for file in path.iterdir():
            if file.name not in WRITTEN_BY_READERS:
                Path(links, file.name).symlink_to(file.absolute())
    except OSError as error:
        raise from_os(error, path) from error
    return links


def _links_folder(path: Path) -> Path:
    # Beside the shard, where the next start removes what a killed one has left; elsewhere if the disk is read-only.
    links = path.with_name(path.name + LINKS_SUFFIX)
    shutil.rmtree(links, ignore_errors=True)
    try:
        links.mkdir()
    except OSError:
        return Path(mkdtemp(prefix="headrace-links-"))
    return links


def translated(error: Exception, path: Path) -> HeadraceError:
    """Our error for one of rocksdict, told apart by RocksDB's own words: it raises plain Exception."""
    message = " ".join(str(error).split())[:_MESSAGE_LENGTH_MAX]
    if isinstance(error, DbClosedError):
        return Unavailable(f"{path.name} is closed", reason="STORAGE_CLOSED")
    if any(part in message for part in _FULL):
        return ResourceExhausted(f"the disk is full: {message}", reason="DISK_FULL")
    if any(part in message for part in _DENIED):
        return Unavailable(f"the disk refuses: {message}", reason="STORAGE_READ_ONLY")
    if any(part in message for part in _LOST):
        return DataLoss(f"stored bytes are damaged: {message}", reason="STORAGE_CORRUPT")
    if "error" in message.lower():
        return Unavailable(f"the disk fails: {message}", reason="STORAGE_IO")
    return InternalError(f"storage failed: {message}", reason="STORAGE")


def from_os(error: OSError, path: Path) -> HeadraceError:
    """Our error for one of the operating system."""
    facts = {"path": path.name}
    if error.errno in _FULL_NUMBERS:
        return ResourceExhausted(f"the disk is full: {error.strerror}", reason="DISK_FULL", metadata=facts)
    return Unavailable(f"the disk refuses: {error.strerror}", reason="STORAGE_READ_ONLY", metadata=facts)
