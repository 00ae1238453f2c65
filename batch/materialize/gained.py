"""What a table gained that a store cannot have: files of snapshots that did not come from the store's own log."""

from collections.abc import Mapping, Sequence

from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot

from batch.offline.maintenance import REWRITE_PROPERTY
from batch.offline.positions import RANGES_PROPERTY


def files_of(table: Table, snapshot_id: int | None) -> Sequence[FileScanTask]:
    """Files of a snapshot, the same in every process."""
    return sorted(table.scan(snapshot_id=snapshot_id).plan_files(), key=lambda task: task.file.file_path)


def gained_files(
    table: Table, base: int, target: int, store_id: str, epochs: Mapping[int, int]
) -> Sequence[FileScanTask] | None:
    """Files of the snapshots after `base` up to `target`, without those that the store's log brought in this epoch.

    None: all of the table, as the snapshots between are no longer known. What a log brought in an earlier epoch counts,
    as a power cut may have taken it from the store. `epochs` are those of the shards now.
    """
    found: dict[str, FileScanTask] = {}
    snapshot = table.snapshot_by_id(target)
    while snapshot is not None and snapshot.snapshot_id != base:
        if not _is_own(snapshot, store_id, epochs):
            parent = snapshot.parent_snapshot_id
            if parent is not None and table.snapshot_by_id(parent) is None:
                return None
            held = set() if parent is None else {task.file.file_path for task in files_of(table, parent)}
            new = files_of(table, snapshot.snapshot_id)
            found |= {task.file.file_path: task for task in new if task.file.file_path not in held}
        if snapshot.parent_snapshot_id is None:
            return list(found.values()) if base == 0 else None
        snapshot = table.snapshot_by_id(snapshot.parent_snapshot_id)
    return None if snapshot is None else list(found.values())


def _is_own(snapshot: Snapshot, store_id: str, epochs: Mapping[int, int]) -> bool:
    summary = snapshot.summary
    if summary is None:
        return False
    if summary[REWRITE_PROPERTY]:
        return True
    ranges = summary[RANGES_PROPERTY]
    return ranges is not None and all(_is_of(text, store_id, epochs) for text in ranges.split(" "))


def _is_of(text: str, store_id: str, epochs: Mapping[int, int]) -> bool:
    log, partition, rest = text.split("/")
    return log == store_id and epochs.get(int(partition)) == int(rest.partition(":")[0])
