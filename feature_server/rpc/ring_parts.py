"""The parts of a server in a ring, put together: what it holds, reads across peers, and its membership."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from random import Random

from feature_server.domain.shard_set import ShardSet
from feature_server.ring.copies import Copies
from feature_server.ring.fan_out import FanOut
from feature_server.ring.held_ring import HeldRing
from feature_server.ring.membership import CopySource, Membership
from feature_server.ring.peers import Outliers
from feature_server.ring.ring_reads import RingReads
from feature_server.ring.shard_copy import ShardCopy
from feature_server.ring.shard_snapshots import COPIES_AT_ONCE, ShardSnapshots, SnapshotFolders
from feature_server.rpc.peer_channels import PeerChannels
from feature_server.rpc.placement_client import PlacementClient, RingCopy
from headrace.ring.values import Ring, RingServer
from headrace.serving.logging import EventLog


class RingParts:
    """Built before the server listens; joins the ring once its address is known."""

    def __init__(
        self,
        server_id: str,
        shards: ShardSet,
        stores: Sequence[ShardCopy],
        *,
        copy: RingCopy,
        channels: PeerChannels,
        placement: PlacementClient,
        folders: SnapshotFolders,
        source: Callable[[HeldRing], CopySource],
        log: EventLog,
    ) -> None:
        self.held = HeldRing(server_id, copy.keep, copy.load())
        self.outliers = Outliers(time.monotonic)
        self.copies = Copies(self.held, stores)
        self._shard_count = len(stores)
        self._channels = channels
        self._placement = placement
        self._log = log
        self._fan_out = FanOut(self.held, self.outliers, time.monotonic)
        self.reads = RingReads(self.held, self.copies, self._fan_out, channels)
        self.snapshots = ShardSnapshots(shards, self.held, self.copies, folders)
        self._source = source(self.held)

    def join(self, stack: ExitStack, address: str, zone: str, weight: int) -> None:
        """Begins the membership, to the end of the stack."""
        membership = Membership(
            RingServer(self.held.server_id, address, zone, weight),
            self._shard_count,
            held=self.held,
            copies=self.copies,
            placement=self._placement,
            source=self._source,
            workers=ThreadPoolExecutor(COPIES_AT_ONCE, "ring-copy"),
            clock_s=time.monotonic,
            random=Random(),
            log=self._log,
        )
        membership.on_ring = self._follow_ring
        self._fan_out.on_newer_ring = membership.take
        self.reads.on_behind = membership.hurry
        membership.start()
        stack.callback(self._placement.close)
        stack.callback(membership.close)
        self._placement.follow(lambda: self.held.ring.epoch, membership.take)

    def _follow_ring(self, ring: Ring) -> None:
        self.snapshots.thaw()
        self._channels.retain(server.address for server in ring.servers.values())
