"""How far a table is online in one store: a property of the table, so that it goes where the table goes."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from headrace.errors import Aborted, DataLoss

PROPERTY_PREFIX: Final = "headrace.materialized."
COMMIT_TRIES_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Mark:
    """All of `base` is online, and the first `file_count` files that `target` adds to it; 0 stands for no snapshot."""

    base: int = 0
    target: int = 0
    file_count: int = 0


def read_mark(table: Table, store_id: str) -> Mark:
    """The mark of a store; a table that was never online has an empty one."""
    text = table.properties.get(PROPERTY_PREFIX + store_id)
    if text is None:
        return Mark()
    try:
        return Mark(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise DataLoss(f"table property {PROPERTY_PREFIX}{store_id} is {text!r}", reason="MARK_CORRUPT") from error


def bring_up(table: Table, store_id: str, go: Callable[[Mark], None]) -> None:
    """Goes from the mark of a store to the newest snapshot; where a killed run was going comes first, if it is kept."""
    mark = read_mark(table, store_id)
    if mark.target and mark.target != mark.base and table.snapshot_by_id(mark.target) is not None:
        go(mark)
        mark = Mark(mark.target, mark.target)
    snapshot = table.current_snapshot()
    if snapshot is not None and snapshot.snapshot_id != mark.base:
        go(Mark(mark.base, snapshot.snapshot_id))


def write_mark(load: Callable[[], Table], store_id: str, mark: Mark) -> None:
    """Moves the mark."""
    for _ in range(COMMIT_TRIES_MAX):
        try:
            with load().transaction() as transaction:
                transaction.set_properties({PROPERTY_PREFIX + store_id: json.dumps(asdict(mark))})
        except CommitFailedException:
            continue
        return
    raise Aborted("the table is busy; try again", reason="TABLE_BUSY")
