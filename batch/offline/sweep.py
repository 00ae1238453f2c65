"""Removes data files that no snapshot names: what refused appends and killed writers left."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pyarrow.fs as pafs
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from batch.offline.maintenance import EPOCH, named_files
from headrace.errors import InvalidArgument

AGE_S_MIN: Final = 3_600  # a writer that still runs has files which no snapshot names yet
DATA_FOLDER: Final = "data"


@dataclass(frozen=True, slots=True)
class Swept:
    """Files that nothing names, and their bytes."""

    files: tuple[str, ...]
    byte_count: int


def sweep(load: Callable[[], Table], age_s: int, now_us: int, *, dry_run: bool = False) -> Swept:
    """Removes data files older than an age that no snapshot of the table names; with `dry_run` it only finds them.

    The files are listed before the snapshots are read, so that a file whose commit lands in between is kept; a writer
    must end within the age. Raises InvalidArgument for an age below AGE_S_MIN.
    """
    if age_s < AGE_S_MIN:
        raise InvalidArgument(
            f"an age of {age_s} s is below {AGE_S_MIN} s, within which a running writer may still commit its files",
            reason="OUT_OF_RANGE",
            field="age",
        )
    table = load()
    filesystem, folder = _located(table, f"{table.location()}/{DATA_FOLDER}")
    latest_us = now_us - age_s * 1_000_000
    old = {path: size for path, size, time_us in _files(filesystem, folder) if time_us <= latest_us}
    if not old:
        return Swept((), 0)
    named = {_located(table, path)[1] for path in named_files(load())}
    unnamed = {path: size for path, size in old.items() if path not in named}
    if not dry_run:
        for path in unnamed:
            filesystem.delete_file(path)
    return Swept(tuple(sorted(unnamed)), sum(unnamed.values()))


def _files(filesystem: pafs.FileSystem, folder: str) -> Iterator[tuple[str, int, int]]:
    selector = pafs.FileSelector(folder, allow_not_found=True, recursive=True)
    for info in filesystem.get_file_info(selector):
        if info.type is pafs.FileType.File:
            yield info.path, info.size, _microseconds(info.mtime)


def _located(table: Table, uri: str) -> tuple[pafs.FileSystem, str]:
    """File system and path as the table's own reader sees them."""
    io = table.io
    assert isinstance(io, PyArrowFileIO), "every scheme of the roots is read through Arrow"
    scheme, bucket, path = io.parse_location(uri)
    return io.fs_by_scheme(scheme, bucket), path


def _microseconds(time: datetime) -> int:
    return round((time - EPOCH).total_seconds() * 1_000_000)
