"""How far a table has taken each log, so that no row enters it twice."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batch.offline.columns import OFFSET, PARTITION
from headrace.errors import DataLoss, InvalidArgument

PROPERTY_PREFIX: Final = "headrace.position."
RANGES_PROPERTY: Final = "headrace.ranges"


class Position(NamedTuple):
    """The first place of a log that is not taken; epochs are compared first, as a new one may use offsets again."""

    epoch: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class LogRange:
    """Offsets [first, next) of one partition of a log, all of one epoch."""

    log: str
    partition: int
    epoch: int
    first_offset: int
    next_offset: int

    def __post_init__(self) -> None:
        if not (0 <= self.first_offset <= self.next_offset and self.epoch >= 0) or "." in self.log or not self.log:
            raise InvalidArgument(f"{self} is no range of a log", reason="BAD_LOG_RANGE", field="ranges")

    @property
    def property_name(self) -> str:
        """Table property that holds the position in this partition."""
        return f"{PROPERTY_PREFIX}{self.log}.{self.partition}"

    @property
    def text(self) -> str:
        """For the properties of a snapshot."""
        return f"{self.log}/{self.partition}/{self.epoch}:{self.first_offset}-{self.next_offset}"


def position_of(properties: Mapping[str, str], part: LogRange) -> Position:
    """Position of a table in the partition of a range."""
    text = properties.get(part.property_name)
    if text is None:
        return Position(0, 0)
    try:
        epoch, next_offset = map(int, text.split(":"))
    except ValueError as error:
        raise DataLoss(f"table property {part.property_name} is {text!r}", reason="POSITION_CORRUPT") from error
    return Position(epoch, next_offset)


def untaken(
    rows: pa.Table, ranges: Sequence[LogRange], properties: Mapping[str, str]
) -> tuple[pa.Table, list[LogRange]]:
    """Rows and parts of the ranges that the table has not taken yet; every row must lie in one of the ranges."""
    if len({part.partition for part in ranges}) < len(ranges):
        raise InvalidArgument(
            "two ranges are of one partition; append them one after the other", reason="BAD_LOG_RANGE", field="ranges"
        )
    kept = []
    parts = []
    row_count = 0
    for part in ranges:
        inside = pc.and_(
            pc.equal(rows[PARTITION], part.partition),
            pc.and_(pc.greater_equal(rows[OFFSET], part.first_offset), pc.less(rows[OFFSET], part.next_offset)),
        )
        own = rows.filter(inside)
        row_count += len(own)
        epoch, taken = position_of(properties, part)
        if part.epoch < epoch or (part.epoch == epoch and part.next_offset <= taken):
            continue
        if part.epoch == epoch and part.first_offset < taken:
            own = own.filter(pc.greater_equal(own[OFFSET], taken))
            parts.append(replace(part, first_offset=taken))
        else:
            parts.append(part)
        kept.append(own)
    if row_count != len(rows):
        raise InvalidArgument(
            f"{len(rows)} rows are given and {row_count} lie in the ranges; give the ranges that hold them",
            reason="ROWS_OUTSIDE_RANGES",
            field="ranges",
        )
    return (pa.concat_tables(kept) if kept else rows.slice(0, 0)), parts


def moved(parts: Iterable[LogRange]) -> dict[str, str]:
    """Table properties after the parts are taken; ranges of one partition come in ascending order."""
    return {part.property_name: f"{part.epoch}:{part.next_offset}" for part in parts}
