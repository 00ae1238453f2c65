"""Writes that the log of a shard has ordered, as every copy of the shard applies them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from core_ext.computed import MergedRow
from feature_server.domain.shard_writes import Deltas, Durability, Entry
from headrace.errors import DataLoss

GROUP_ROWS_MAX: Final = 2_048  # rows of one batch of the store: no step of it holds the interpreter for long
LOG_EPOCH_BIT: Final = 1 << 62  # epochs of logs have it, and those that a shard counts itself never reach it
_EPOCH_MASK: Final = LOG_EPOCH_BIT - 1

Merge = Callable[[bytes | None, bytes], MergedRow]
"""What stands after a row, by what is stored and the row."""


class LogWrite(NamedTuple):
    """One place of the log: rows with their storage keys, the records kept beside them, and the offset behind it.

    With `merge` a row is put together with what is stored; else the greater of the two stays.
    """

    next_offset: int
    keys: Sequence[bytes] = ()
    rows: Sequence[bytes] = ()
    time_us: int = 0
    merge: Merge | None = None
    records: Mapping[bytes, bytes] = {}


def log_epoch(topic_id: bytes) -> int:
    """Epoch of the offsets of a topic, another one for a topic of the same name that was made anew."""
    return LOG_EPOCH_BIT | int.from_bytes(topic_id[:8], "big") & _EPOCH_MASK


def is_log_epoch(epoch: int) -> bool:
    """Whether offsets of an epoch are those of a log."""
    return bool(epoch & LOG_EPOCH_BIT)


def groups(writes: Sequence[LogWrite], next_offset: int) -> Iterator[list[Entry]]:
    """Entries of one batch of the store each; the last one ends at `next_offset`.

    Writes of one offset stay together: what a crash leaves is whole messages.
    """
    group: list[Entry] = []
    row_count = 0
    last = writes[-1] if writes else LogWrite(next_offset)
    if last.next_offset < next_offset or not writes:
        writes = [*writes, LogWrite(next_offset, time_us=last.time_us)]
    for write in writes:
        is_next = bool(group) and group[-1].next_offset != write.next_offset
        if is_next and row_count + len(write.keys) > GROUP_ROWS_MAX:
            yield group
            group, row_count = [], 0
        group.append(_entry(write))
        row_count += len(write.keys)
    yield group


def other_log(shard: int, epoch: int, record_epoch: int) -> DataLoss:
    """The alarm where a copy was filled from another log."""
    return DataLoss(
        f"the copy of shard {shard} was filled by log {record_epoch}, and the log here is {epoch}: the topic of rows "
        "was made anew, or belongs to another store; bring its values back from the offline store into an empty one",
        reason="ROWS_TOPIC_REPLACED",
        metadata={"shard": str(shard), "epoch": str(epoch), "shard_epoch": str(record_epoch)},
    )


def _entry(write: LogWrite) -> Entry:
    merge = write.merge
    deltas = None if merge is None else Deltas(lambda held, row, _: merge(held, row), 0, lambda *_: ((), ()))
    entry = Entry(write.keys, write.rows, Durability.LOG, write.next_offset, write.time_us, deltas)
    entry.records = write.records
    return entry
