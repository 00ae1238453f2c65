"""Opens files for import: only under configured roots, never through a symbolic link."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from core_ext.hashing import xxh3_64
from feature_server.domain.shard import Position
from feature_server.domain.shard_writes import Durability
from feature_server.domain.writes import WriteAck, Writes, part_id
from headrace.errors import InvalidArgument, NotFound, PermissionDenied
from headrace.serving.principal import Principal

BATCH_ROWS: Final = 8_192
URI_LENGTH_MAX: Final = 4_096

_PARQUET_MAGIC: Final = b"PAR1"
_ARROW_MAGIC: Final = b"ARROW1"


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is."""

    row_count: int
    stale_count: int
    total_count: int
    is_done: bool
    positions: Sequence[Position] = ()


class Imports:
    """Writes the rows of Parquet and Arrow IPC files."""

    def __init__(self, roots: Sequence[Path], writes: Writes) -> None:
        self._roots = [root.resolve() for root in roots]
        self._writes = writes

    def run(
        self, feature_view: str, uri: str, durability: Durability, principal: Principal, request_id: str = ""
    ) -> Iterator[ImportProgress]:
        """Progress after each batch; the last has is_done. What was written before an error stays.

        Repeated with its request id, an import writes no batch again that is still remembered, and the rest.
        """
        target = self._writes.target(feature_view, principal)
        row_count = stale_count = 0
        highest: dict[int, Position] = {}
        with self._opened(uri) as (total_count, batches):
            for number, batch in enumerate(batches):
                request = (part_id(request_id, number), _digest(batch, target.ref) if request_id else 0)
                answer: WriteAck = self._writes.write_batch(batch, target, durability, request, principal)
                row_count += answer.row_count
                stale_count += answer.stale_count
                highest |= {position.shard: position for position in answer.positions}
                yield ImportProgress(row_count, stale_count, total_count, is_done=False)
        yield ImportProgress(row_count, stale_count, total_count, True, sorted(highest.values()))

    @contextmanager
    def _opened(self, uri: str) -> Iterator[tuple[int, Iterator[pa.RecordBatch]]]:
        with os.fdopen(self._descriptor(uri), "rb") as file:
            magic = file.read(len(_ARROW_MAGIC))
            file.seek(0)
            try:
                if magic[: len(_PARQUET_MAGIC)] == _PARQUET_MAGIC:
                    yield _parquet(file)
                elif magic == _ARROW_MAGIC:
                    yield _arrow(file)
                else:
                    raise _refused(uri, "is neither Parquet nor an Arrow IPC file", "UNKNOWN_FILE_FORMAT")
            except (pa.ArrowException, OSError) as error:
                raise _refused(uri, f"cannot be read: {str(error)[:200]}", "MALFORMED_FILE") from error

    def _descriptor(self, uri: str) -> int:
        path = _path(uri)
        for root in self._roots:
            if path.is_relative_to(root.as_posix()):
                return _open_below(root, path.relative_to(root.as_posix()).parts, uri)
        raise PermissionDenied(
            f"{uri!r} lies under no import root; start the server with --import-root DIR",
            reason="OUTSIDE_IMPORT_ROOTS",
            field="uri",
            metadata={"uri": uri},
        )


def _digest(batch: pa.RecordBatch, ref: str) -> int:
    return xxh3_64(batch.serialize().to_pybytes()) ^ xxh3_64(ref.encode())


def _path(uri: str) -> PurePosixPath:
    if not uri or len(uri) > URI_LENGTH_MAX or "\0" in uri:
        raise _refused(uri[:80], "is no path", "BAD_URI")
    parts = urlsplit(uri)
    if parts.scheme not in {"", "file"} or parts.netloc not in {"", "localhost"}:
        raise _refused(uri, "is not on this machine; give file:///path or a path", "BAD_URI")
    path = PurePosixPath(unquote(parts.path) if parts.scheme else uri)
    if not path.is_absolute() or ".." in path.parts:
        raise _refused(uri, "must be absolute and without '..'", "BAD_URI")
    return path


def _open_below(root: Path, parts: Sequence[str], uri: str) -> int:
    # Component by component, so that no link can be put in between the check and the use.
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        name = parts[-1] if parts else "."
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError as error:
        raise NotFound(
            f"file {uri!r} does not exist", reason="FILE_NOT_FOUND", field="uri", metadata={"uri": uri}
        ) from error
    except OSError as error:
        raise _refused(uri, f"cannot be opened, or leads through a link: {error.strerror}", "FILE_REFUSED") from error
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refused(uri, "is no plain file", "FILE_REFUSED")
    return descriptor


def _parquet(file: Any) -> tuple[int, Iterator[pa.RecordBatch]]:  # Any: a binary file as pyarrow takes it
    parquet = pq.ParquetFile(file)
    return parquet.metadata.num_rows, parquet.iter_batches(BATCH_ROWS)


def _arrow(file: Any) -> tuple[int, Iterator[pa.RecordBatch]]:  # Any: as above
    reader = pa.ipc.open_file(file)
    return reader.count_rows(), _slices(reader)


def _slices(reader: pa.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    for index in range(reader.num_record_batches):
        batch = reader.get_batch(index)
        batch.validate()
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(start, BATCH_ROWS)


def _refused(uri: str, problem: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"file {uri!r} {problem}", reason=reason, field="uri", metadata={"uri": uri})
