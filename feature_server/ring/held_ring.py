"""The newest ring that a server has seen, and which requests it allows."""

import threading
from collections.abc import Callable, Iterable
from typing import Final

from feature_server.domain.shard_moves import moving
from headrace.errors import FailedPrecondition
from headrace.ring.values import Phase, Replica, Ring, WrongEpoch

NO_RING: Final = 0  # epoch of requests to a server that is in no ring: it owns every slot


class HeldRing:
    """One ring at a time; epochs only grow. A ring is kept on disk before anything follows it.

    There is no lease to read by: without its control plane a server goes on with the ring that it holds, as its copies
    follow the log all the same. What a request must prove is that it was routed by the same owners.
    """

    def __init__(self, server_id: str, keep: Callable[[Ring], None], ring: Ring | None = None) -> None:
        self.server_id = server_id
        self.ring = ring or Ring()
        self._keep = keep
        self._lock = threading.Lock()

    def accept(self, ring: Ring) -> bool:
        """Takes a ring of a greater epoch; whether it did. Where it cannot be kept the old one stays, and it raises.

        Raises FailedPrecondition for another ring than the one that the server is in: to follow it would drop its rows.
        """
        with self._lock:
            if self.ring.epoch and ring.epoch and ring.ring_id != self.ring.ring_id:
                raise FailedPrecondition(
                    f"this server is in ring {self.ring.ring_id}, and was given ring {ring.ring_id}: its control plane "
                    "is that of another deployment, or has lost its folder; name the right one with --registry, "
                    "restore the folder, or start the server on a new one",
                    reason="OTHER_RING",
                    metadata={"ring": self.ring.ring_id, "other": ring.ring_id},
                )
            if ring.epoch <= self.ring.epoch:
                return False
            self._keep(ring)
            self.ring = ring
            return True

    def phase(self, shard: int) -> Phase | None:
        """Phase of this server's copy of a shard."""
        ring = self.ring
        replica = ring.shards[shard].of(self.server_id) if shard < len(ring.shards) else None
        return None if replica is None else replica.phase

    def check(self, shards: Iterable[int], epoch: int) -> None:
        """Raises WrongEpoch unless the caller, who routed by an epoch, means the owners that this server knows.

        The epoch of a request is the greatest owners epoch of its shards. A serving copy answers where it is as new as
        its owners and no newer than the ring held here; a leaving one answers who still routes by the owners before.
        """
        ring = self.ring
        for shard in shards:
            phase = self.phase(shard)
            is_ahead = epoch > ring.epoch
            is_behind = shard < len(ring.shards) and epoch < ring.shards[shard].owners_epoch
            if phase is Phase.SERVING and not is_ahead and not is_behind:
                continue
            if phase is Phase.LEAVING and is_behind:
                continue
            raise _wrong_epoch(ring, shard, epoch, phase)

    def check_write(self, shards: Iterable[int]) -> None:
        """Raises unless this server alone owns the shards: rows of a ring with more copies come by its log."""
        ring = self.ring
        if ring.replica_count > 1:
            raise FailedPrecondition(
                f"the ring keeps {ring.replica_count} copies of each shard, and a direct write would reach one: "
                "write to the log of the store",
                reason="RING_WRITES",
                metadata={"replica_count": str(ring.replica_count)},
            )
        self.check_replay(shards, ring.epoch)

    def check_replay(self, shards: Iterable[int], epoch: int) -> None:
        """Raises unless this server owns the shards, the caller means the same owners, and none of them is moving.

        A copy that joins has what its source had; what is written meanwhile would miss it.
        """
        for shard in shards:
            self.check([shard], epoch)
            if self.is_moving(shard):
                raise moving(shard)

    def is_moving(self, shard: int) -> bool:
        """Whether a copy of a shard joins or leaves."""
        return any(replica.phase is not Phase.SERVING for replica in self.ring.shards[shard].replicas)

    def is_joining(self, shard: int, server_id: str, phase_epoch: int) -> bool:
        """Whether the ring held here says that a server joins a shard since an epoch."""
        ring = self.ring
        wanted = Replica(server_id, Phase.JOINING, phase_epoch)
        return shard < len(ring.shards) and ring.shards[shard].of(server_id) == wanted

    def refusal(self, shard: int, epoch: int) -> WrongEpoch:
        """Why a request that was routed by an epoch is not answered."""
        return _wrong_epoch(self.ring, shard, epoch, self.phase(shard))

    def owners_epoch(self, shards: Iterable[int]) -> int:
        """Epoch to send with a request for shards."""
        ring = self.ring
        return max((ring.shards[shard].owners_epoch for shard in shards), default=NO_RING)


def check_no_ring(epoch: int) -> None:
    """Raises unless a request was made to a server without a ring."""
    if epoch != NO_RING:
        raise WrongEpoch(
            f"this server has no ring, and the caller routed by ring epoch {epoch}; send {NO_RING}",
            Ring(),
            {"ring_epoch": str(NO_RING)},
        )


def _wrong_epoch(ring: Ring, shard: int, epoch: int, phase: Phase | None) -> WrongEpoch:
    here = "no copy" if phase is None else f"a {phase.name.lower()} copy"
    return WrongEpoch(
        f"shard {shard} was asked for by epoch {epoch}; this server holds epoch {ring.epoch} and {here} of it: "
        "route by the ring that comes with this error, or ask its peers where it is the older one",
        ring,
        {"shard": str(shard), "epoch": str(epoch), "ring_epoch": str(ring.epoch), "phase": phase.name if phase else ""},
    )
