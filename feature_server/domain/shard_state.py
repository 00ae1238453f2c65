"""What a shard tells of itself."""

from enum import IntEnum
from typing import NamedTuple


class ShardState(IntEnum):
    """Whether a shard answers; the numbers are those of the contracts."""

    SERVING = 1
    READ_ONLY = 2
    QUARANTINED = 3


class Position(NamedTuple):
    """Place in a shard's log."""

    shard: int
    epoch: int
    offset: int


class ShardStatus(NamedTuple):
    """What a shard tells of itself."""

    shard: int
    epoch: int
    offset: int
    state: ShardState
    content_hash: int
    detail: str
