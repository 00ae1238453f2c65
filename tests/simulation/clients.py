"""A client that writes to the log, reads by the ring that it holds, and tells the checks what it was answered."""

from collections.abc import Callable
from typing import Final

from feature_server.ring.fan_out import Found
from headrace.errors import HeadraceError
from headrace.ring.values import Phase, Ring, WrongEpoch
from headrace.serving.principal import LOCAL
from tests.simulation import control
from tests.simulation.checks import Checks
from tests.simulation.control import Control
from tests.simulation.log import SimLog
from tests.simulation.peer_reads import PeerReader
from tests.simulation.servers import LOG, Server
from tests.simulation.world import World

NAME: Final = "client"
WRITE_S: Final = 0.4
READ_S: Final = 0.2
ACROSS_S: Final = 0.3
REFRESH_S: Final = 5.0
KEY_COUNT: Final = 6


class Client:
    """Writes, reads, and learns newer rings now and then or when it is refused."""

    def __init__(
        self, world: World, log: SimLog, control_plane: Control, servers: dict[str, Server], checks: Checks, shards: int
    ) -> None:
        self._world = world
        self._log = log
        self._control = control_plane
        self._servers = servers
        self._checks = checks
        self._shards = shards
        self._ring = Ring()
        self._written = 0
        self.tokens: dict[int, int] = {}  # shard to the offset of the last acknowledged write
        self.is_writing = True
        self.refused_count = 0
        self.answered_count = 0
        world.every(WRITE_S, self._write)
        world.every(READ_S, self._read)
        world.every(REFRESH_S, self._refresh)
        world.every(ACROSS_S, self._read_across)
        self._readers: dict[str, tuple[int, PeerReader]] = {}
        self.across_count = 0
        self.missed_count = 0

    def _refresh(self) -> None:
        def arrive() -> None:
            keeper = self._control.keeper
            if keeper is not None:
                ring = keeper.ring(LOCAL)
                self._world.send(control.NAME, NAME, lambda: self._learn(ring))

        self._world.send(NAME, control.NAME, arrive)

    def _learn(self, ring: Ring) -> None:
        self._checks.ring_seen(ring)
        if ring.epoch > self._ring.epoch:
            self._ring = ring

    def _write(self) -> None:
        if not self.is_writing:
            return
        random = self._world.random
        shard, key = random.randrange(self._shards), b"key-%d" % random.randrange(KEY_COUNT)
        self._written += 1
        row = b"row-%d" % self._written

        def arrive() -> None:
            offset = self._log.append(shard, key, row)
            self._world.send(LOG, NAME, lambda: self._acknowledged(shard, offset))

        self._world.send(NAME, LOG, arrive)

    def _acknowledged(self, shard: int, offset: int) -> None:
        self.tokens[shard] = max(offset, self.tokens.get(shard, -1))

    def _read(self) -> None:
        random = self._world.random
        ring = self._ring
        if not ring.shards:
            return
        number = random.randrange(self._shards)
        shard, key = ring.shards[number], b"key-%d" % random.randrange(KEY_COUNT)
        if not shard.owners:
            return
        server = self._servers[random.choice(shard.owners)]
        token = self.tokens.get(number, -1) if random.random() < 0.5 else -1

        def arrive() -> None:
            if server.is_up:
                self._serve(server, number, ring, key, token)

        self._world.send(NAME, server.name, arrive)

    def _read_across(self) -> None:
        """A batch that any server answers, over its peers."""
        server = self._world.random.choice(list(self._servers.values()))
        self._world.send(NAME, server.name, lambda: self.read_across(server, lambda found: None))

    def read_across(self, server: Server, ended: Callable[[Found], None]) -> None:
        """One key of every shard that the server does not own, through it."""
        random = self._world.random
        if not server.is_up or not server.held.ring.epoch:
            return
        life, reader = self._readers.get(server.name, (0, None))
        if reader is None or life != server.life:
            reader = PeerReader(self._world, server, self._servers, self._checks)
            self._readers[server.name] = server.life, reader
        keys = {
            shard: b"key-%d" % random.randrange(KEY_COUNT)
            for shard in range(self._shards)
            if server.held.phase(shard) is not Phase.SERVING
        }
        has_tokens = random.random() < 0.5
        tokens = [(shard, 0, self.tokens[shard]) for shard in keys if shard in self.tokens] if has_tokens else []

        def end(found: Found) -> None:
            self.across_count += 1
            self.missed_count += len(found.causes)
            ended(found)

        reader.read(keys, tokens, end)

    def _serve(self, server: Server, number: int, ring: Ring, key: bytes, token: int) -> None:
        try:
            server.copies.check_read([number], ring.shards[number].owners_epoch)
        except WrongEpoch as error:
            self.refused_count += 1
            newer = error.ring
            self._world.send(server.name, NAME, lambda: self._learn(newer))
            return
        except HeadraceError:
            return
        store = server.machine.stores[number]
        if store.next_offset <= token:
            return  # the token is not reached: the server waits, and the client asks another
        self.answered_count += 1
        self._checks.answered(server, number, ring, key, store.rows.get(key), store.next_offset)
