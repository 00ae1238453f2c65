"""One seeded schedule: a ring of servers, a client, and everything that may go wrong."""

from dataclasses import dataclass
from typing import Final

from control_plane.domain.ring.keeper import RingShape
from feature_server.ring.fan_out import Found
from headrace.errors import HeadraceError
from headrace.serving.principal import LOCAL
from tests.simulation import control
from tests.simulation.checks import Checks, Violation
from tests.simulation.clients import NAME as CLIENT
from tests.simulation.clients import Client
from tests.simulation.control import Control, SimRingStore
from tests.simulation.log import SimLog
from tests.simulation.peer_reads import DEADLINE_S
from tests.simulation.servers import LOG, Machine, Server
from tests.simulation.world import World

SHARD_COUNT: Final = 4
REPLICA_COUNT: Final = 2
SERVER_COUNT: Final = 5
FIRST_COUNT: Final = 3  # servers that form the ring; the others join later
TROUBLE_S: Final = 30.0
FAULT_S: Final = 1.2
DOWN_MAX_S: Final = 15.0
BURNT_SHARE: Final = 0.3  # of the schedules, in which a server never comes back
REST_S: Final = 45.0  # the longest lease and its replacement, a few copies, and messages that were held up


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a schedule was."""

    event_count: int
    epoch_count: int
    read_count: int
    across_count: int
    refused_count: int


class Schedule:
    """Everything that one seed decides."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.log = SimLog(SHARD_COUNT)
        self.servers: dict[str, Server] = {}
        self.checks = Checks(self.log, self.servers, REPLICA_COUNT)
        self.store = SimRingStore(self.checks.ring_made)
        self.control = Control(self.world, self.store, RingShape(SHARD_COUNT, REPLICA_COUNT, FIRST_COUNT))
        zones = self.world.random.choice(("", "ab", "abc"))
        for number in range(SERVER_COUNT):
            zone = zones[number % len(zones)] if zones else ""
            machine = Machine(f"s{number}", zone, SHARD_COUNT)
            server = Server(self.world, machine, self.control, self.log, self.servers)
            self.servers[server.name] = server
            server.on_held = lambda ring, name=server.name: self.checks.ring_held(name, ring)  # type: ignore[misc]
        self.client = Client(self.world, self.log, self.control, self.servers, self.checks, SHARD_COUNT)
        self._is_over = False

    def run(self) -> Outcome:
        """Raises Violation where an invariant does not hold."""
        for server in list(self.servers.values())[:FIRST_COUNT]:
            server.start()
        self.world.every(FAULT_S, self._fault)
        self.world.every(FAULT_S, self._trim)
        self.world.run_until(TROUBLE_S)
        self._heal()
        self.world.run_until(TROUBLE_S + REST_S)
        # What is written at the very end has no time to arrive.
        tokens = dict(self.client.tokens)
        self.client.is_writing = False
        self.world.run_until(TROUBLE_S + REST_S + 10.0)
        self.checks.ended(self.store.read(), tokens)
        self._read_at_rest()
        if not self.client.answered_count:
            raise Violation("nothing was ever read")
        return Outcome(
            self.world.event_count,
            self.store.read().epoch,
            self.client.answered_count,
            self.client.across_count,
            self.client.refused_count,
        )

    def _read_at_rest(self) -> None:
        """With nothing wrong any more, every server of the ring finds every row in one read."""
        ended: list[str] = []
        servers = [self.servers[server_id] for server_id in self.store.read().servers]

        def end(name: str, found: Found) -> None:
            ended.append(name)
            if found.causes:
                raise Violation(f"{name} finds no peer for {list(found.causes)} although all are well")

        self.world.slow_share = 0.0
        for server in servers:
            self.client.read_across(server, lambda found, name=server.name: end(name, found))  # type: ignore[misc]

        self.world.run_until(self.world.now_s + 2 * DEADLINE_S)
        if len(ended) != len(servers):
            raise Violation(f"{len(servers) - len(ended)} reads across servers never end")

    def _fault(self) -> None:
        if self._is_over:
            return
        random = self.world.random
        server = random.choice(list(self.servers.values()))
        fault = random.randrange(10)
        if fault < 3:
            self._crash(server)
        elif fault < 5:
            self._cut(server)
        elif fault == 5:
            self._damage(server)
        elif fault == 6:
            self.control.crash(leaves_zombie=random.random() < 0.5)
            self.world.after(random.uniform(0.1, 5.0), self.control.start)
        elif fault == 7:
            self._drain(server)
        elif fault == 8:
            self.world.loss_share = random.choice((0.0, 0.05, 0.3))
        else:
            server.start()

    def _crash(self, server: Server) -> None:
        if server.is_up:
            server.crash()
            self.world.after(self.world.random.uniform(0.1, DOWN_MAX_S), server.start)

    def _cut(self, server: Server) -> None:
        others = [control.NAME, LOG, CLIENT, *self.servers]
        for other in self.world.random.sample(others, self.world.random.randint(1, len(others))):
            if self.world.random.random() < 0.7:
                self.world.cut(server.name, other)
            if self.world.random.random() < 0.7:
                self.world.cut(other, server.name)
        if self.world.random.random() < 0.5:
            self.world.after(self.world.random.uniform(1.0, 10.0), self.world.heal)

    def _damage(self, server: Server) -> None:
        ring = self.store.read()
        for number, shard in enumerate(ring.shards):
            whole = [owner for owner in shard.owners if self._is_whole(number, owner)]
            # The last whole copy stays whole: nothing could bring its rows back but a backup.
            if server.name in whole and len(whole) > 1:
                server.machine.stores[number].damage(self.world.random)
                return

    def _drain(self, server: Server) -> None:
        ring = self.store.read()
        staying = [held for held in ring.servers.values() if not held.is_draining]
        if self.control.keeper is not None and len(staying) > REPLICA_COUNT:
            try:
                self.control.keeper.drain(LOCAL, server.name)
            except HeadraceError:
                return

    def _trim(self) -> None:
        """Retention: what every whole copy has durably may go, once each owner has one."""
        for number, shard in enumerate(self.store.read().shards):
            if shard.owners and all(self._is_whole(number, owner) for owner in shard.owners):
                stores = [self.servers[replica.server_id].machine.stores[number] for replica in shard.replicas]
                self.log.trim(number, min(store.synced_offset for store in stores if store.is_complete))

    def _heal(self) -> None:
        self._is_over = True
        self.world.heal()
        self.control.zombie = None
        self.control.start()
        burnt = self._burnt() if self.world.random.random() < BURNT_SHARE else None
        for server in self.servers.values():
            if server is not burnt:
                server.start()

    def _burnt(self) -> Server | None:
        """A server that others can do without: it is gone with all that it has."""
        ring = self.store.read()
        for server in self.servers.values():
            shards = [shard for shard in enumerate(ring.shards) if server.name in shard[1].owners]
            others = [
                [owner for owner in shard.owners if owner != server.name and self._is_whole(number, owner)]
                for number, shard in shards
            ]
            staying = [held for held in ring.servers.values() if not held.is_draining and held.server_id != server.name]
            if shards and all(others) and len(staying) >= REPLICA_COUNT:
                if server.is_up:
                    server.crash()
                server.is_burnt = True
                return server
        return None

    def _is_whole(self, number: int, server_id: str) -> bool:
        return self.servers[server_id].machine.stores[number].is_complete
