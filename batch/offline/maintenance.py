"""Keeps the tables small: merges little files of a day, and expires snapshots that nobody has pinned."""

import uuid
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, _dataframe_to_data_files
from pyiceberg.table import FileScanTask, Table

from batch.offline.columns import EVENT_TIME
from headrace.errors import Aborted

FILES_MIN: Final = 4  # of one day before they are merged
DAY_BYTES_MAX: Final = 256 << 20  # of one day's files: what is merged is held in memory, some ten times larger
REWRITE_PROPERTY: Final = "headrace.rewrite"  # of a snapshot that has the rows of its parent in other files
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Compacted(NamedTuple):
    """Files before and after a merge, and the days left out because they are too large to be merged in memory."""

    removed_file_count: int
    added_file_count: int
    large_day_count: int


class Expired(NamedTuple):
    """What an expiry removed."""

    snapshot_count: int
    file_count: int


def compact(load: Callable[[], Table]) -> Compacted:
    """Writes each day of many small files as one sorted by event time; readers of older snapshots see no change."""
    by_day: defaultdict[object, list[FileScanTask]] = defaultdict(list)
    for task in load().scan().plan_files():
        by_day[task.file.partition[0] if len(task.file.partition) else None].append(task)
    removed = added = large = 0
    for tasks in by_day.values():
        if len(tasks) < FILES_MIN or any(task.delete_files for task in tasks):
            continue
        if sum(task.file.file_size_in_bytes for task in tasks) > DAY_BYTES_MAX:
            large += 1
            continue
        removed += len(tasks)
        added += _merge(load(), tasks)
    return Compacted(removed, added, large)


def _merge(table: Table, tasks: list[FileScanTask]) -> int:
    scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
    rows: pa.Table = scan.to_table(tasks).sort_by(EVENT_TIME)
    new = list(_dataframe_to_data_files(table.metadata, rows, table.io, write_uuid=uuid.uuid4()))
    try:
        properties = {REWRITE_PROPERTY: "true"}
        with table.transaction() as transaction, transaction.update_snapshot(properties).overwrite() as change:
            for task in tasks:
                change.delete_data_file(task.file)
            for file in new:
                change.append_data_file(file)
    except CommitFailedException as error:
        _delete(table, {file.file_path for file in new})
        name = ".".join(table.name())
        raise Aborted(f"table {name} was changed meanwhile; try again", reason="TABLE_BUSY") from error
    return len(new)


def expire(load: Callable[[], Table], older_than_us: int) -> Expired:
    """Removes snapshots older than a time, and the files that no other snapshot holds.

    The newest snapshot and every pinned one (a tag or a branch names it) stay, with all of their files. A crash between
    the two steps leaves files that nothing refers to, never a snapshot without its files.
    """
    before = load()
    files, snapshot_count = named_files(before), len(before.metadata.snapshots)
    try:
        before.maintenance.expire_snapshots().older_than(EPOCH + timedelta(microseconds=older_than_us)).commit()
    except CommitFailedException as error:
        name = ".".join(before.name())
        raise Aborted(f"table {name} was changed meanwhile; try again", reason="TABLE_BUSY") from error
    after = load()
    unused = files - named_files(after)
    _delete(after, unused)
    return Expired(snapshot_count - len(after.metadata.snapshots), len(unused))


def named_files(table: Table) -> set[str]:
    # Manifests are shared by snapshots: each is read once.
    found: set[str] = set()
    for snapshot in table.metadata.snapshots:
        found.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in found:
                found.add(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(table.io)
                found.update(entry.data_file.file_path for entry in entries)
    return found


def _delete(table: Table, paths: set[str]) -> None:
    for path in sorted(paths):
        table.io.delete(path)
