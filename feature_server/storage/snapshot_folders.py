"""Checkpoints of shards as folders of files: those that are sent, and those that arrive."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from feature_server.ring.snapshot import SnapshotChunk, SnapshotEnd, made_chunk
from feature_server.storage.files import sync_folder
from feature_server.storage.rocks import from_os

SENT_PREFIX: Final = "snapshot-out-"
ARRIVED_PREFIX: Final = "snapshot-in-"


class SentFolders:
    """Satisfies SnapshotFolders below a data folder. What a killed process left is removed at the start."""

    def __init__(self, data: Path) -> None:
        self._data = data
        for prefix in (SENT_PREFIX, ARRIVED_PREFIX):
            for left in data.glob(f"{prefix}*"):
                shutil.rmtree(left, ignore_errors=True)

    def new(self, shard: int) -> Path:
        """A path that is not there yet."""
        return self._data / f"{SENT_PREFIX}{shard:04}-{uuid.uuid4().hex}"

    def chunks(self, folder: Path, chunk_bytes: int) -> Iterator[SnapshotChunk]:
        """The files of a folder, by name; one without bytes is a chunk without bytes."""
        try:
            for path in sorted(folder.iterdir()):
                with path.open("rb") as file:
                    position = 0
                    while (data := file.read(chunk_bytes)) or not position:
                        yield made_chunk(path.name, position, data)
                        position += len(data)
                        if not data:
                            break
        except OSError as error:
            raise from_os(error, folder) from error

    def remove(self, folder: Path) -> None:
        """Deletes a folder."""
        shutil.rmtree(folder, ignore_errors=True)


class ArrivingFolder:
    """Satisfies SnapshotSink: files in a folder of their own until all are there, then the content of a copy."""

    def __init__(
        self, data: Path, shard: int, *, begin: Callable[[], None], install: Callable[[Path, SnapshotEnd], None]
    ) -> None:
        self._folder = data / f"{ARRIVED_PREFIX}{shard:04}"
        self._begin = begin
        self._install = install
        self._file: IO[bytes] | None = None
        self._part = ""

    def begin(self) -> None:
        """Empties folder and copy."""
        self.discard()
        self._begin()
        try:
            self._folder.mkdir()
        except OSError as error:
            raise from_os(error, self._folder) from error

    def write(self, chunk: SnapshotChunk) -> None:
        """The next bytes of a file."""
        try:
            if chunk.part != self._part:
                self._end_file()
                self._file = (self._folder / chunk.part).open("xb")
                self._part = chunk.part
            assert self._file is not None, "a part begins with its name"
            self._file.write(chunk.data)
        except OSError as error:
            raise from_os(error, self._folder) from error

    def install(self, end: SnapshotEnd) -> None:
        """Makes it durable and hands it over."""
        try:
            self._end_file()
            sync_folder(self._folder)
        except OSError as error:
            raise from_os(error, self._folder) from error
        self._install(self._folder, end)

    def discard(self) -> None:
        """Deletes what has arrived."""
        if self._file is not None:
            self._file.close()
        self._file, self._part = None, ""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end_file(self) -> None:
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
