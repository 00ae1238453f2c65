"""The blocking client that sends a read to the server that owns its keys."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from core_ext.keys import encode_key, shard_of_slot, slot_of_key
from headrace.client.batch import FeatureBatch, PreparedFeatures
from headrace.client.calls import READ_DEFAULTS, READ_TIMEOUT_S_DEFAULT, ReadOptions
from headrace.client.closing import Closing
from headrace.client.entities import EntityValues
from headrace.client.request_data import RequestData
from headrace.client.retries import RetryPolicy
from headrace.client.ring import RingClient
from headrace.client.sync import Client
from headrace.client.tls import Tls
from headrace.errors import HeadraceError, Unavailable
from headrace.ring.values import Ring
from headrace.types import Scalar

T = TypeVar("T")

RING_AGE_MAX_S: Final = 5.0  # an older ring is asked for anew; routing by it would cost a hop and nothing else
RING_TIMEOUT_S: Final = 1.0
RING_RENEWAL_S: Final = 0.2  # while an older one is held, by which reads go on
TRIES_MAX: Final = 3  # servers that are asked for one batch
SAMPLED_KEYS_MAX: Final = 64  # of each column: enough to know who owns most of it, and some tens of microseconds
_ONCE: Final = RetryPolicy(attempts_max=1)  # the next try is another server


class RoutedClient(Closing):
    """Reads features from the server that owns most keys of a batch, so that a batch of one entity costs no hop.

    Any server of the ring answers any batch: a ring that has changed costs time, never a value. `control` is host:port
    of the control plane. Safe to share between threads. Close it, or use it in a with block.
    """

    def __init__(
        self,
        control: str,
        *,
        token: str | None = None,
        tls: Tls | str | Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._token = token
        self._tls = tls
        self._clock = clock
        self._placement = RingClient(control, token=token, tls=tls)
        self._lock = threading.Lock()
        self._clients: dict[str, Client] = {}  # those of servers that have left stay: another thread may use one
        self._ring = Ring()
        self._live: frozenset[str] = frozenset()
        self._asked_s: float | None = None

    def get_online_features(
        self,
        selection: PreparedFeatures,
        *,
        entities: Mapping[str, EntityValues],
        request_data: RequestData = None,
        options: ReadOptions = READ_DEFAULTS,
        timeout_s: float = READ_TIMEOUT_S_DEFAULT,
    ) -> FeatureBatch:
        """Features of a batch by what `prepare` returned; from another server where one cannot be reached."""
        deadline_s = self._clock() + timeout_s

        def read(client: Client, left_s: float) -> FeatureBatch:
            return client.get_online_features(
                selection, entities=entities, request_data=request_data, options=options, timeout_s=left_s
            )

        return self._first(lambda: self.order(selection.join_keys, entities), read, deadline_s)

    def prepare(
        self, service: str | None = None, *, features: Sequence[str] = (), timeout_s: float = READ_TIMEOUT_S_DEFAULT
    ) -> PreparedFeatures:
        """A selection resolved once; every server of the ring knows its handle, or is told it anew."""

        def ask(client: Client, left_s: float) -> PreparedFeatures:
            return client.prepare(service, features=features, timeout_s=left_s)

        return self._first(lambda: self.order({}, {}), ask, self._clock() + timeout_s)

    def order(self, key_types: Mapping[str, Scalar], entities: Mapping[str, EntityValues]) -> list[str]:
        """Addresses of the servers, that of most of the keys first and those that are silent last."""
        ring = self._held_ring()
        votes: Counter[str] = Counter()
        for key in _sampled_keys(key_types, entities):
            owners = ring.shards[shard_of_slot(slot_of_key(key), len(ring.shards))].owners
            votes.update(owners)
        servers = sorted(
            ring.servers.values(),
            key=lambda server: (server.server_id not in self._live, -votes[server.server_id], server.server_id),
        )
        return [server.address for server in servers]

    def close(self) -> None:
        """Closes every channel; calls in flight fail."""
        self._placement.close()
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _first(self, order: Callable[[], list[str]], call: Callable[[Client, float], T], deadline_s: float) -> T:
        """What the first server answers that can be reached."""
        asked: set[str] = set()
        while True:
            address = next((address for address in order() if address not in asked), None)
            if address is None:
                raise Unavailable("no server of the ring is known that was not asked", reason="NO_SERVERS")
            asked.add(address)
            try:
                return call(self._client(address), deadline_s - self._clock())
            except Unavailable:
                if len(asked) == TRIES_MAX or self._clock() >= deadline_s:
                    raise
                self._asked_s = None  # who cannot be reached may be gone

    def _held_ring(self) -> Ring:
        now_s = self._clock()
        if self._asked_s is None or now_s - self._asked_s > RING_AGE_MAX_S:
            if self._ring.epoch:
                self._asked_s = now_s  # other threads go on by the ring that is held
            try:
                ring, self._live = self._placement.ring(RING_TIMEOUT_S if not self._ring.epoch else RING_RENEWAL_S)
            except HeadraceError:
                if not self._ring.epoch:
                    raise
            else:
                self._take(ring)
                self._asked_s = now_s
        return self._ring

    def _take(self, ring: Ring) -> None:
        if not ring.epoch:
            raise Unavailable("the ring is not formed yet; try again", reason="RING_NOT_FORMED")
        self._ring = ring

    def _client(self, address: str) -> Client:
        with self._lock:
            client = self._clients.get(address)
            if client is None:
                client = self._clients[address] = Client(address, token=self._token, tls=self._tls, retry_policy=_ONCE)
            return client


def _sampled_keys(key_types: Mapping[str, Scalar], entities: Mapping[str, EntityValues]) -> Iterator[bytes]:
    """Keys of one column each; those of several columns are routed by their parts, which is no worse than at random."""
    for name, values in entities.items():
        kind = key_types.get(name)
        if kind is None:
            continue
        for at in range(0, len(values), max(1, len(values) // SAMPLED_KEYS_MAX)):
            value = values.iloc[at] if hasattr(values, "iloc") else values[at]
            value = value.as_py() if hasattr(value, "as_py") else value.item() if hasattr(value, "item") else value
            try:
                yield encode_key([kind], [value])
            except (TypeError, ValueError):
                continue  # the server says what is wrong with it
