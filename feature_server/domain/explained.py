"""What an explanation says of one feature: facts, before they are sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from core_ext.row_codec import RowHeader
from core_ext.rules import PRESENT, STATE_MASK
from core_ext.window_tiles import FoldedWindow
from feature_server.domain.selected import AnyColumn
from feature_server.domain.shard import ShardState
from headrace.types import ValueType

TOMBSTONE_FLAG = 1  # of a row's header


class Reason(NamedTuple):
    """Why a value is what it is; the code is the same for the same cause."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where the row of an entity lies, and its shard now."""

    storage_key: bytes
    slot: int
    shard: int
    shard_state: ShardState


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row as a read finds it: in memory or on disk, none (`row` None), or not to be read (`problem`)."""

    row: bytes | None = None
    header: RowHeader | None = None
    tile_map: bytes | None = None
    is_cached: bool = False
    is_drained: bool = False
    source: str = ""
    problem: str = ""

    @property
    def is_erased(self) -> bool:
        """Whether it is a tombstone."""
        return self.header is not None and bool(self.header.flags & TOMBSTONE_FLAG)


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """The window of a value; `loss` says why it is null although there were values, 0 where it is not."""

    folded: FoldedWindow
    window_us: int
    hop_us: int
    loss: int
    is_exact: bool

    @property
    def event_count(self) -> int:
        """Events of its tiles."""
        return sum(tile.event_count for tile in self.folded.tiles)


@dataclass(frozen=True, slots=True)
class Answered:
    """Place of a column in the answer, and its status byte there."""

    column: int
    status: int

    @property
    def state(self) -> int:
        """Low nibble of the status."""
        return self.status & STATE_MASK

    @property
    def is_present(self) -> bool:
        """Whether the slot holds a value of its own."""
        return self.state == PRESENT


@dataclass(frozen=True, slots=True)
class ExplainedFeature:
    """One feature with what its value was made of.

    `answered` is None where it was not computed, for want of request data. `place` and `found` are None for features
    that have no row, and for a null key.
    """

    column: AnyColumn
    transform: str
    answered: Answered | None
    reasons: Sequence[Reason]
    place: Place | None
    found: FoundRow | None
    window: WindowFacts | None
    inputs: Sequence["ExplainedFeature"]
    request_fields: Mapping[str, ValueType]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The feature that was asked for, and the answer of the read that it is taken from."""

    feature: ExplainedFeature
    answer: bytes
    read_time_us: int
    revision: int
