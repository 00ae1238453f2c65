"""The control plane as a process that crashes, and may go on beside its successor for a while."""

from collections.abc import Callable

from control_plane.domain.ring.keeper import RingKeeper, RingShape
from control_plane.domain.ring.leases import Leases
from control_plane.domain.watchers import Watchers
from headrace.errors import Aborted
from headrace.ring.values import Ring
from tests.simulation.world import World

NAME = "control"
TICK_S = 1.0
LEASE_S = 4.0
REPLACE_AFTER_S = 8.0


class SimRingStore:
    """Durable rings by epoch; satisfies RingStore."""

    def __init__(self, on_append: Callable[[Ring, Ring], None]) -> None:
        self.rings: list[Ring] = [Ring()]
        self._on_append = on_append

    def read(self) -> Ring:
        return self.rings[-1]

    def append(self, ring: Ring, cause: str) -> None:
        before = self.rings[-1]
        if ring.epoch != before.epoch + 1:
            raise Aborted("another writer has taken the epoch", reason="CONCURRENT_CHANGE")
        self.rings.append(ring)
        self._on_append(before, ring)


class Control:
    """The keeper that runs now, over the store that stays. A zombie is the one before it, which has not noticed."""

    def __init__(self, world: World, store: SimRingStore, shape: RingShape) -> None:
        self._world = world
        self._store = store
        self._shape = shape
        self.keeper: RingKeeper | None = self._started()
        self.zombie: RingKeeper | None = None
        world.every(TICK_S, self._tick)

    def crash(self, *, leaves_zombie: bool) -> None:
        """Ends the process, or leaves it running where its successor does not see it."""
        self.zombie = self.keeper if leaves_zombie else None
        self.keeper = None

    def start(self) -> None:
        """Starts the next one."""
        if self.keeper is None:
            self.keeper = self._started()

    def _started(self) -> RingKeeper:
        return RingKeeper(
            self._store, Leases(self._world.clock_s, LEASE_S, REPLACE_AFTER_S), Watchers(), self._shape, lambda: "ring"
        )

    def _tick(self) -> None:
        for keeper in (self.keeper, self.zombie):
            if keeper is not None:
                try:
                    keeper.tick()
                except Aborted:
                    if keeper is self.zombie:
                        self.zombie = None
