"""Reads of a server across its peers: drives the production fan-out over the simulated network."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from feature_server.ring.fan_out import Came, FanOut, Found, Read, Rows, Send, Token
from feature_server.ring.peers import Outliers
from headrace.errors import HeadraceError, Unavailable
from headrace.ring.values import Ring
from tests.simulation.checks import Checks, Violation
from tests.simulation.servers import Server
from tests.simulation.world import World

DEADLINE_S: Final = 0.4
REFUSED_SHARE: Final = 0.7  # of the sub-requests to a dead process that are refused at once; the others get no answer
SEPARATOR: Final = b"/"


class PeerReader:
    """Reads through one life of a server."""

    def __init__(self, world: World, server: Server, servers: Mapping[str, Server], checks: Checks) -> None:
        self._world = world
        self._server = server
        self._servers = servers
        self._checks = checks
        self._life = server.life
        self._fan_out = FanOut(server.held, Outliers(world.clock_s), world.clock_s)
        self._fan_out.on_newer_ring = server.take_ring

    def read(self, keys: Mapping[int, bytes], tokens: Sequence[Token], ended: Callable[[Found], None]) -> None:
        """One key of each shard; `ended` is called when the read is over, unless the server dies before."""
        found = Found()
        asked = {shard: [b"%d" % shard + SEPARATOR + key] for shard, key in keys.items()}
        deadline_s = self._world.now_s + DEADLINE_S
        read = self._fan_out.read(asked, tokens, deadline_s, found)
        _Drive(self._world, self, read, lambda: self._end(found, asked, deadline_s, ended)).go(None)

    @property
    def is_alive(self) -> bool:
        """Whether the life of this reader goes on."""
        return self._server.is_up and self._server.life == self._life

    def _end(
        self, found: Found, asked: Mapping[int, Sequence[bytes]], deadline_s: float, ended: Callable[[Found], None]
    ) -> None:
        keys = {key for shard_keys in asked.values() for key in shard_keys}
        if found.rows.keys() | found.causes.keys() != keys or found.rows.keys() & found.causes.keys():
            raise Violation(f"{self._server.name} answers {found} for {keys}")
        if self._world.now_s > deadline_s:
            raise Violation(f"{self._server.name} ends a read {self._world.now_s - deadline_s} s after its deadline")
        ended(found)

    def send(self, asked: Send, done: Callable[[Rows | HeadraceError], None]) -> None:
        """Carries a sub-request there and back."""
        peer = self._servers[asked.peer]
        held = self._server.held.ring

        def arrive() -> None:
            if peer.is_up:
                answer = self._answer(peer, asked, held)
            elif self._world.random.random() < REFUSED_SHARE:
                answer = Unavailable("connection refused", reason="TRANSPORT")
            else:
                return
            if answer is not None:
                self._server.receive(peer.name, lambda: done(answer))

        self._server.send(peer.name, arrive)

    def _answer(self, peer: Server, asked: Send, held: Ring) -> Rows | HeadraceError | None:
        wanted = [key.split(SEPARATOR, 1) for key in asked.keys]
        shards = {int(shard) for shard, _ in wanted}
        try:
            peer.copies.check_read(shards, asked.ring_epoch)
        except HeadraceError as error:
            return error
        stores = peer.machine.stores
        if any(stores[shard].next_offset <= offset for shard, _, offset in asked.min_offsets):
            return None  # it waits, and the deadline comes first
        rows = []
        for number, key in wanted:
            store = stores[int(number)]
            row = store.rows.get(key)
            self._checks.answered(peer, int(number), held, key, row, store.next_offset)
            rows.append(row)
        return Rows(rows)


class _Drive:
    """One read on its way."""

    def __init__(self, world: World, reader: PeerReader, read: Read, ended: Callable[[], None]) -> None:
        self._world = world
        self._reader = reader
        self._read = read
        self._ended = ended
        self._is_over = False
        self._wait = 0  # number of the wait that goes on

    def go(self, came: Came | None) -> None:
        """Takes what came, and sends and waits as the read says."""
        if self._is_over or not self._reader.is_alive:
            return
        self._wait += 1
        wait = self._wait
        try:
            step = self._read.send(came)
            while isinstance(step, Send):
                self._send(step)
                step = next(self._read)
        except StopIteration:
            self._is_over = True
            self._ended()
            return
        self._world.after(
            max(0.0, step.until_s - self._world.now_s), lambda: self.go(None) if wait == self._wait else None
        )

    def _send(self, asked: Send) -> None:
        self._reader.send(asked, lambda outcome: self.go(Came(asked.ask, outcome)))
