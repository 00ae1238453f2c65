"""The ring as a value: servers, shards and the phase of every replica in one epoch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from headrace.errors import FailedPrecondition

WRONG_EPOCH_REASON: Final = "RING_EPOCH"


class Phase(IntEnum):
    """How far a server is with a shard; the numbers are those of the contracts."""

    JOINING = 1  # takes a snapshot and catches up; answers nobody
    SERVING = 2  # one of the owners: answers whoever routes by the same owners
    LEAVING = 3  # replaced: still follows the log and answers those who route by the owners before


@dataclass(frozen=True, slots=True)
class RingServer:
    """One feature server. Its id is that of its store; weight is its part of the load; zone may be empty."""

    server_id: str
    address: str
    zone: str = ""
    weight: int = 1
    is_draining: bool = False


class Replica(NamedTuple):
    """One copy of a shard, with the epoch in which it took its phase."""

    server_id: str
    phase: Phase
    phase_epoch: int


@dataclass(frozen=True, slots=True)
class RingShard:
    """Copies of one shard. `owners_epoch` is the epoch in which the set of serving ones last changed; `target` are the
    servers that shall serve it once they are ready.
    """

    replicas: tuple[Replica, ...] = ()
    owners_epoch: int = 0
    target: tuple[str, ...] = ()

    @property
    def owners(self) -> tuple[str, ...]:
        """Servers that answer for the shard."""
        return tuple(replica.server_id for replica in self.replicas if replica.phase is Phase.SERVING)

    def of(self, server_id: str) -> Replica | None:
        """The copy of one server."""
        return next((replica for replica in self.replicas if replica.server_id == server_id), None)


@dataclass(frozen=True, slots=True)
class Ring:
    """All shards in one epoch. Epoch 0 is the ring that has not been formed: nobody owns anything. The id is given when
    it is formed, so that no server takes the ring of another deployment for its own.
    """

    epoch: int = 0
    replica_count: int = 1
    servers: Mapping[str, RingServer] = field(default_factory=dict)
    shards: tuple[RingShard, ...] = ()
    ring_id: str = ""

    def replicas_of(self, server_id: str) -> Iterator[tuple[int, Replica]]:
        """Shards of which a server has a copy, in any phase."""
        for number, shard in enumerate(self.shards):
            replica = shard.of(server_id)
            if replica is not None:
                yield number, replica


class WrongEpoch(FailedPrecondition):
    """A request was routed by other owners than the ring of its receiver has; `ring` is that ring, or empty (epoch 0)
    where it was too large to be sent along.
    """

    def __init__(self, message: str, ring: Ring, metadata: Mapping[str, str]) -> None:
        super().__init__(message, reason=WRONG_EPOCH_REASON, field="ring_epoch", metadata=metadata)
        self.ring = ring
