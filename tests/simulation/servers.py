"""Feature servers as processes: they carry messages and drive the production classes, and decide nothing themselves."""

from collections.abc import Callable
from typing import Final

from control_plane.domain.ring.keeper import RingKeeper
from feature_server.ring.copies import Answer, AskLog, Copies, Join, TakeSnapshot, Wait
from feature_server.ring.held_ring import HeldRing
from feature_server.ring.log import LogRows
from feature_server.ring.snapshot import SnapshotChunk, SnapshotEnd, SnapshotIntake
from headrace.errors import DataLoss, HeadraceError, NotFound, Unavailable
from headrace.ring.values import Ring, RingServer
from headrace.serving.principal import LOCAL
from tests.simulation import control
from tests.simulation.control import Control
from tests.simulation.disk import SimStore
from tests.simulation.log import SimLog
from tests.simulation.snapshots import SimSink, snapshot_of
from tests.simulation.world import World

HEARTBEAT_S: Final = 1.4
FOLLOW_S: Final = 0.7
CALL_TIMEOUT_S: Final = 2.0
LOG: Final = "log"
SYNC_SHARE: Final = 0.3  # of the batches
REPEATED_SHARE: Final = 0.2  # of the heartbeats that arrive once more, long after they were sent
REPEATED_MAX_S: Final = 15.0
LOSSY_SHARE: Final = 0.15  # of the snapshots
LOST_SHARE: Final = 0.5  # of these, that lose a chunk


class Machine:
    """What outlives the process: its disks and the ring that it kept."""

    def __init__(self, server_id: str, zone: str, shard_count: int) -> None:
        self.server = RingServer(server_id, f"{server_id}:1", zone)
        self.stores = [SimStore() for _ in range(shard_count)]
        self.kept: Ring | None = None

    def keep(self, ring: Ring) -> None:
        self.kept = ring


class Server:
    """One process life after the other on a machine."""

    def __init__(
        self, world: World, machine: Machine, control: Control, log: SimLog, peers: "dict[str, Server]"
    ) -> None:
        self.machine = machine
        self.name = machine.server.server_id
        self.is_up = False
        self.is_burnt = False  # never to come back
        self.life = 0
        self.on_held: Callable[[Ring], None] = lambda ring: None
        self._world = world
        self._control = control
        self._log = log
        self._peers = peers
        world.every(HEARTBEAT_S, self._heartbeat)
        world.every(FOLLOW_S, self._follow)

    def start(self) -> None:
        """Begins a life."""
        if self.is_up or self.is_burnt:
            return
        self.is_up, self.life = True, self.life + 1
        self.has_joined = False
        self.held = HeldRing(self.name, self.machine.keep, self.machine.kept)
        self.copies = Copies(self.held, self.machine.stores)
        self.on_held(self.held.ring)
        self._adopt()

    def crash(self) -> None:
        """Ends it; unsynced writes may be lost."""
        self.is_up = False
        for store in self.machine.stores:
            store.crash(self._world.random)

    # Messages. Whatever arrives for a life that is over is dropped.

    def send(self, target: str, action: Callable[[], None]) -> None:
        """To another process."""
        self._world.send(self.name, target, action)

    def receive(self, source: str, action: Callable[[], None]) -> None:
        """From another process, as soon as it arrives."""
        life = self.life
        self._world.send(source, self.name, lambda: action() if self.is_up and self.life == life else None)

    # The ring.

    def _heartbeat(self) -> None:
        if not self.is_up:
            return
        self._adopt()
        epoch, ready, damaged = self.held.ring.epoch, self.copies.ready(), self.copies.damaged()
        has_joined = self.has_joined

        def at(keeper: RingKeeper) -> None:
            try:
                if has_joined:
                    renewal = keeper.renew(LOCAL, self.name, epoch, ready, damaged)
                else:
                    renewal = keeper.join(LOCAL, self.machine.server, len(self.machine.stores))
            except NotFound:
                self.receive(control.NAME, self._must_join)
            except HeadraceError:
                return  # the next heartbeat tries again
            else:
                self.receive(control.NAME, lambda: self._renewed(renewal.ring))

        def arrive() -> None:
            keepers = [keeper for keeper in (self._control.keeper, self._control.zombie) if keeper is not None]
            if keepers:
                at(self._world.random.choice(keepers))

        self.send(control.NAME, arrive)
        if self._world.random.random() < REPEATED_SHARE:
            self._world.after(self._world.random.uniform(0.0, REPEATED_MAX_S), arrive)

    def _must_join(self) -> None:
        self.has_joined = False

    def _renewed(self, ring: Ring | None) -> None:
        self.has_joined = True
        if ring is not None:
            self.take_ring(ring)

    def take_ring(self, ring: Ring) -> None:
        """Follows a ring, whoever brought it."""
        if self.held.accept(ring):
            self.on_held(ring)
            self._adopt()

    def _adopt(self) -> None:
        for join in self.copies.adopt():
            self._resume(join, None)

    # The log.

    def _follow(self) -> None:
        if not self.is_up:
            return
        for shard in self.copies.followed():
            self._read_log(shard)

    def _read_log(self, shard: int) -> None:
        start = self.machine.stores[shard].next_offset

        def arrive() -> None:
            log_rows = self._log.read(shard, start)
            self.receive(LOG, lambda: self._take(shard, log_rows))

        self.send(LOG, arrive)

    def _take(self, shard: int, log_rows: LogRows) -> None:
        try:
            self.copies.follow(shard, log_rows)
        except DataLoss:
            return
        if self._world.random.random() < SYNC_SHARE:
            self.machine.stores[shard].sync()

    # Joins.

    def _resume(self, join: Join, answer: Answer) -> None:
        try:
            step = join.send(answer)
        except StopIteration:
            self._adopt()
            return
        if isinstance(step, Wait):
            life = self.life
            self._world.after(
                step.delay_s, lambda: self._resume(join, None) if self.is_up and self.life == life else None
            )
        elif isinstance(step, AskLog):
            self._call(
                LOG, lambda answered: answered(self._log.range(step.shard)), lambda found: self._resume(join, found)
            )
        else:
            self._take_snapshot(step, join)

    def _call(
        self, target: str, serve: Callable[[Callable[[Answer], None]], None], resume: Callable[[Answer], None]
    ) -> None:
        """One answer, or UNAVAILABLE when it has not come in time."""
        is_done = False
        life = self.life

        def end(answer: Answer) -> None:
            nonlocal is_done
            if not is_done and self.is_up and self.life == life:
                is_done = True
                resume(answer)

        self.send(target, lambda: serve(lambda answer: self.receive(target, lambda: end(answer))))
        self._world.after(CALL_TIMEOUT_S, lambda: end(Unavailable("no answer in time", reason="TIMEOUT")))

    def _take_snapshot(self, step: TakeSnapshot, join: Join) -> None:
        source = self._peers[step.source_id]
        epoch = self.held.owners_epoch([step.shard])
        taken: list[tuple[list[SnapshotChunk], SnapshotEnd]] = []

        def serve(answered: Callable[[Answer], None]) -> None:
            if not source.is_up:
                return
            try:
                source.copies.check_read([step.shard], epoch)
            except HeadraceError as error:
                answered(error)
                return
            chunks, end = snapshot_of(source.machine.stores[step.shard])
            if chunks and self._world.random.random() < LOSSY_SHARE:
                chunks = self._hurt(chunks)
            taken.append((chunks, end))
            answered(None)

        def resume(answer: Answer) -> None:
            if answer is None:
                chunks, end = taken[0]
                try:
                    intake = SnapshotIntake(step.shard, SimSink(self.machine.stores[step.shard]))
                    for chunk in chunks:
                        intake.take(chunk)
                    intake.finish(end)
                except DataLoss as error:
                    answer = error
            self._resume(join, answer)

        self._call(step.source_id, serve, resume)

    def _hurt(self, chunks: list[SnapshotChunk]) -> list[SnapshotChunk]:
        """A chunk is lost on the way, or one of its bytes is another."""
        at = self._world.random.randrange(len(chunks))
        chunk = chunks[at]
        if self._world.random.random() < LOST_SHARE:
            return chunks[:at] + chunks[at + 1 :]
        byte = self._world.random.randrange(len(chunk.data))
        data = chunk.data[:byte] + bytes([chunk.data[byte] ^ 1]) + chunk.data[byte + 1 :]
        return [*chunks[:at], chunk._replace(data=data), *chunks[at + 1 :]]
