"""Command on the disk of a feature server: headrace storage."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from control_plane.cli.output import Format, print_document, print_table
from control_plane.cli.session import Session
from headrace.client.inspection import ReclaimedRows, ShardStorage, ViewStorage

UNKNOWN: Final = "(not in the registry)"
_COUNTED: Final = tuple(field.name for field in fields(ViewStorage) if field.name.endswith(("_count", "_bytes")))
_STEP: Final = 1_024
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Line:
    """A view version, in one shard or in all (`shard` None)."""

    shard: int | None
    view: ViewStorage

    @property
    def reclaimable_bytes(self) -> int:
        """Rows that no read may ask for any more: those of a retired version."""
        return self.view.row_bytes if self.view.is_retired else 0


def storage(session: Session, shards: Sequence[int], *, by_shard: bool, reclaim: bool) -> None:
    """Prints what rows take, the largest first; with `reclaim` after rows of retired versions are taken away."""
    with session.inspection() as client:
        gone = list(client.reclaim()) if reclaim else []
        found = list(client.storage(shards))
    lines = [Line(one.shard, view) for one in found for view in one.views]
    if not by_shard:
        lines = _summed(lines)
    lines.sort(key=lambda line: (-line.view.row_bytes - line.view.logged_bytes, line.view.view_id, line.shard or 0))
    if session.form is Format.TABLE:
        _print(session, found, lines, by_shard=by_shard)
        if reclaim:
            _print_reclaimed(session, gone)
        return
    document = _document(found, lines)
    if reclaim:
        document["reclaimed"] = [one._asdict() for one in gone]
    print_document(document, session.form, session.out)


def _print_reclaimed(session: Session, gone: Sequence[ReclaimedRows]) -> None:
    row_count, row_bytes = sum(one.row_count for one in gone), sum(one.row_bytes for one in gone)
    gone_text = f"{row_count:,} rows of retired versions, {size_text(row_bytes)}"
    session.out.write(f"took away {gone_text}; files shrink as they are compacted\n")
    for one in gone:
        if one.problem:
            session.out.write(f"shard {one.shard} was not walked to its end: {one.problem}\n")


def _summed(lines: Iterable[Line]) -> list[Line]:
    by_view: dict[int, dict[str, Any]] = {}  # Any: fields of ViewStorage
    for line in lines:
        known = by_view.get(line.view.view_id)
        if known is None:
            by_view[line.view.view_id] = asdict(line.view)
            continue
        for name in _COUNTED:
            known[name] += getattr(line.view, name)
    return [Line(None, ViewStorage(**known)) for known in by_view.values()]


def _print(session: Session, found: Sequence[ShardStorage], lines: Sequence[Line], *, by_shard: bool) -> None:
    header = ("view", "owner", "bytes", "rows", "expired", "tombstones", "state", "in the row log", "reclaimable")
    rows = [_cells(line) for line in lines]
    if by_shard:
        table = [(str(line.shard), *cells) for line, cells in zip(lines, rows, strict=True)]
        print_table(("shard", *header), table, session.out)
    else:
        print_table(header, rows, session.out)
    totals = {name: sum(getattr(one, name) for one in found) for name in ("disk_bytes", "row_log_bytes")}
    served = sum(one.served_log_bytes for one in found)
    session.out.write(
        f"{len(found)} shards: {size_text(sum(line.view.row_bytes for line in lines))} of rows in "
        f"{size_text(totals['disk_bytes'])} of files, {size_text(totals['row_log_bytes'])} of row log, "
        f"{size_text(served)} of served answers\n"
    )
    for one in found:
        if one.problem:
            session.out.write(f"shard {one.shard} was not measured: {one.problem}\n")


def _cells(line: Line) -> tuple[str, ...]:
    view = line.view
    return (
        view.feature_view or UNKNOWN,
        view.owner,
        size_text(view.row_bytes),
        f"{view.row_count:,}",
        _share(view.expired_count, view.expired_bytes),
        _share(view.tombstone_count, view.tombstone_bytes),
        "retired" if view.is_retired else "active",
        _share(view.logged_count, view.logged_bytes),
        size_text(line.reclaimable_bytes),
    )


def _share(count: int, byte_count: int) -> str:
    return f"{count:,} ({size_text(byte_count)})" if count else "0"


def _document(found: Sequence[ShardStorage], lines: Sequence[Line]) -> dict[str, Any]:  # Any: JSON values
    return {
        "views": [
            {"shard": line.shard, **asdict(line.view), "reclaimable_bytes": line.reclaimable_bytes} for line in lines
        ],
        "shards": [{name: value for name, value in asdict(one).items() if name != "views"} for one in found],
    }


def size_text(byte_count: int) -> str:
    """Bytes in the largest unit that they fill, such as 1.5 MiB."""
    amount, unit = float(byte_count), 0
    while amount >= _STEP and unit + 1 < len(_UNITS):
        amount, unit = amount / _STEP, unit + 1
    return f"{byte_count} B" if not unit else f"{amount:,.1f} {_UNITS[unit]}"
