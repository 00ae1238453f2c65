"""The parts of a feature server on a temporary folder, wired as in app.py, with a clock and a store that tests hold."""

import io
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pyarrow as pa

from core_ext.keys import encode_key, shard_of_slot, slot_of_key
from core_ext.request_core import RequestCore
from core_ext.row_table import RowTable
from core_ext.served_ring import ServedRing
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.explanations import Explanations
from feature_server.domain.imports import Imports
from feature_server.domain.peer_reads import PeerReads
from feature_server.domain.reads import Reads
from feature_server.domain.reclaim import Reclaim
from feature_server.domain.replays import Replays
from feature_server.domain.row_store import RowStore, StoreOpener
from feature_server.domain.served_writer import ServedWriter
from feature_server.domain.shard import Shard
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.storage_use import StorageUse
from feature_server.domain.writes import Writes
from feature_server.rpc.feature_servicer import FeatureServicer
from feature_server.rpc.inspection_servicer import InspectionServicer
from feature_server.rpc.services import SERVICE_NAMES, add_services, permissions
from feature_server.rpc.shard_servicer import ShardServicer
from feature_server.storage.rocks import RocksOpener
from feature_server.storage.rocks_options import SharedMemory, StoreBudget, shard_options
from feature_server.storage.row_log import SegmentLog
from feature_server.storage.served_log import ServedSegments
from headrace.definitions import (
    Column,
    DefinitionSet,
    Entity,
    EntityKey,
    Feature,
    FeatureService,
    FeatureView,
    ServiceEntry,
    Source,
    SourceKind,
    latest,
)
from headrace.definitions.on_demand_plans import plans_of_state
from headrace.definitions.registered import (
    Registered,
    RegisteredEntity,
    RegisteredOnDemandView,
    RegisteredService,
    RegisteredSource,
    RegisteredView,
    RegistryState,
    Stamp,
    State,
    registry_state,
)
from headrace.definitions.transform import view_digest
from headrace.errors import HeadraceError
from headrace.serving.auth import OpenAuthenticator
from headrace.serving.logging import EventLog
from headrace.serving.principal import LOCAL
from headrace.serving.server import Health, add_health_and_reflection, bind, build_server
from headrace.serving.telemetry import Telemetry, TelemetryConfig

NOW_US = 1_760_000_000_000_000
OWNER = "shop"
ENTITY = "shop.web.user"
VIEW = "shop.web.profile@v1"
SERVICE = "shop.web.model"
FEATURES = {"age": "i32", "name": "string", "score": "f32", "codes": "list<i64>", "pair": "list<f64,2>"}
STAMP = Stamp(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), "e")
SMALL = StoreBudget(block_cache_bytes=4 << 20, write_buffer_bytes=4 << 20)


@dataclass
class Clock:
    """Microseconds since the epoch, moved by the test."""

    now_us: int = NOW_US

    def __call__(self) -> int:
        return self.now_us


class HeldStore:
    """A store in front of a real one, whose calls a test may watch, hold up or make fail."""

    def __init__(self, store: RowStore, faults: "Faults") -> None:
        self._store = store
        self._faults = faults
        self.is_read_only = store.is_read_only

    def get(self, key: bytes) -> bytes | None:
        return self._store.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        rows = self._store.get_many(keys)
        self._faults.after_read(keys)
        return rows

    def scan(self, start: bytes, count: int) -> list[tuple[bytes, bytes]]:
        return self._store.scan(start, count)

    def disk_bytes(self) -> int:
        return self._store.disk_bytes()

    def write(self, keys: Sequence[bytes], values: Sequence[bytes], *, sync: bool) -> None:
        self._faults.write_sizes.append(len(keys))
        self._faults.syncs.append(sync)
        if self._faults.write_error is not None:
            raise self._faults.write_error
        self._store.write(keys, values, sync=sync)

    def replace(self, removed: Iterable[bytes], stored: Mapping[bytes, bytes]) -> None:
        if self._faults.write_error is not None:
            raise self._faults.write_error
        self._store.replace(removed, stored)

    def anchor(self) -> None:
        self._store.anchor()

    def checkpoint(self, folder: Path) -> None:
        self._store.checkpoint(folder)

    def close(self) -> None:
        self._store.close()


@dataclass
class Faults:
    """What a HeldStore does."""

    after_read: Callable[[Sequence[bytes]], None] = lambda keys: None
    write_error: Exception | None = None
    probe_error: HeadraceError | None = None
    open_error: HeadraceError | None = None
    write_sizes: list[int] = field(default_factory=list)
    syncs: list[bool] = field(default_factory=list)


class HeldOpener:
    """Opens held stores."""

    def __init__(self, opener: StoreOpener, faults: Faults) -> None:
        self._opener = opener
        self._faults = faults

    def open(self) -> RowStore:
        if self._faults.open_error is not None:
            raise self._faults.open_error
        return HeldStore(self._opener.open(), self._faults)

    def open_read_only(self) -> RowStore:
        return HeldStore(self._opener.open_read_only(), self._faults)

    def remove(self) -> None:
        self._opener.remove()

    def install(self, folder: Path) -> None:
        self._opener.install(folder)

    def probe(self) -> None:
        if self._faults.probe_error is not None:
            raise self._faults.probe_error
        self._opener.probe()


class Parts:
    """A feature server without a control plane. Threads of the shard set run only where asked for."""

    def __init__(
        self,
        folder: Path,
        *,
        shard_count: int = 2,
        state: RegistryState | None = None,
        open_error: HeadraceError | None = None,
        row_log_bytes: int | None = None,
        store_id: str = "store",
        served_share: float | None = None,
        queue_bytes: int = 16 << 20,
        function_modules: Sequence[str] = (),
        follows_log: bool = False,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.store_id = store_id
        self.clock = Clock()
        self.stream = io.StringIO()
        self.log = EventLog("test", lambda: 0.0, self.stream)
        self.table = RowTable(16 << 20)
        self.faults = [Faults(open_error=open_error) for _ in range(shard_count)]
        options = shard_options(SharedMemory(SMALL), shard_count)
        waiters = threading.BoundedSemaphore(4)
        openers = [
            HeldOpener(RocksOpener(folder / f"shard-{number:04}", options), faults)
            for number, faults in enumerate(self.faults)
        ]
        self.shards = ShardSet(
            [
                Shard(
                    number,
                    opener,
                    self.table,
                    self.clock,
                    self.log,
                    waiters,
                    None
                    if row_log_bytes is None
                    else SegmentLog(folder / f"row-log-{number}", row_log_bytes, self.log),
                )
                for number, opener in enumerate(openers)
            ],
            self.log,
        )
        for shard in self.shards.shards:
            shard.follows_log = follows_log
        self.shards.open()
        self.core = RequestCore(self.table, shard_count)
        self.catalogue = Catalogue(self.core, self.log, function_modules)
        self.catalogue.publish(state or shop_state())
        self.reads = Reads(self.core, self.table, self.shards, self.catalogue, self.clock)
        self.writes = Writes(self.catalogue, self.shards, self.clock)
        self.imports = Imports([folder], self.writes)
        self.explanations = Explanations(self.table, self.shards, self.catalogue, self.reads, self.clock)
        self.served_store: ServedSegments | None = None
        if served_share is not None:
            self.ring = ServedRing(served_share, queue_bytes, shard_count)
            self.core.log_reads(self.ring)
            for shard in self.shards.shards:
                shard.on_applied = self.ring.mark
                self.ring.mark(*shard.status()[:3])
            self.served_store = ServedSegments(folder / "served-log", 64 << 20, self.log)
            self.served_writer = ServedWriter(self.ring, self.catalogue, self.served_store, self.log)
        self.storage = StorageUse(self.shards, self.catalogue, self.clock, self.served_store)
        self.reclaim = Reclaim(self.shards, self.catalogue, self.storage, self.log, monotonic=lambda: self.monotonic_s)
        self.monotonic_s = 0.0
        self._server: grpc.Server | None = None
        self.port = 0

    def serve(self) -> grpc.Channel:
        """A gRPC server over these parts, and a channel to it."""
        telemetry, principal = Telemetry(TelemetryConfig("test")), OpenAuthenticator().current_principal
        self._server = build_server(OpenAuthenticator(), permissions(), "127.0.0.1", worker_count=2)
        online = FeatureServicer(self.reads, self.writes, self.imports, principal)
        peer = ShardServicer(
            PeerReads(self.reads, self.shards, self.store_id, self.served_store),
            Replays(self.catalogue, self.shards, self.clock),
            principal,
        )
        inspection = InspectionServicer(self.explanations, self.storage, self.reclaim, principal)
        add_services(self._server, online, peer, telemetry, self.log, inspection=inspection)
        add_health_and_reflection(self._server, Health(), SERVICE_NAMES)
        self.port = bind(self._server, "127.0.0.1", 0)
        self._server.start()
        return grpc.insecure_channel(f"127.0.0.1:{self.port}")

    def shard_of(self, *parts: int | str | bytes) -> int:
        """Shard of an entity of one i64 key."""
        return shard_of_slot(slot_of_key(encode_key([3], parts)), len(self.shards))

    def keys_on(self, shard: int, count: int) -> list[int]:
        """The first i64 keys of a shard."""
        found = (key for key in range(1_000_000) if self.shard_of(key) == shard)
        return [key for _, key in zip(range(count), found, strict=False)]

    def close(self) -> None:
        if self._server is not None:
            self._server.stop(1).wait()
        self.shards.close()
        if self.served_store is not None:
            self.served_store.close()


def state_of(definitions: DefinitionSet, revision: int = 1, retired: Sequence[str] = ()) -> RegistryState:
    """A registry of first versions, ids count up in the order of the definitions."""
    records: list[Registered] = []
    number = 0
    for source in definitions.sources:
        records.append(RegisteredSource(source, STAMP, number := number + 1))
    for entity in definitions.entities:
        records.append(RegisteredEntity(entity, STAMP, number := number + 1))
    for view in definitions.feature_views:
        number += 1
        state = State.RETIRED if view.name in retired else State.ACTIVE
        records.append(RegisteredView(view, STAMP, 1, state, number, number, _digest(view, definitions)))
    for one in definitions.on_demand_views:
        plan = plans_of_state(registry_state(revision, number, records)).compile(one)
        records.append(RegisteredOnDemandView(plan.view, STAMP, 1, State.ACTIVE, plan.digest))
    for service in definitions.feature_services:
        state = State.RETIRED if service.name in retired else State.ACTIVE
        records.append(RegisteredService(service, STAMP, 1, state))
    return registry_state(revision, number, records)


def _digest(view: FeatureView, definitions: DefinitionSet) -> bytes:
    entity = next(one for one in definitions.entities if one.name == view.entity)
    source = next(one for one in definitions.sources if one.name == view.source)
    return view_digest(view, entity, source)


def source_of(features: dict[str, str], keys: Sequence[EntityKey]) -> Source:
    """A push source that carries keys, event time and features."""
    columns = [Column(key.name, key.type) for key in keys] + [Column("event_time", "timestamp_us")]
    columns += [Column(name, kind) for name, kind in features.items()]
    return Source(name="shop.web.pushed", owner=OWNER, kind=SourceKind.PUSH, columns=columns)


def shop_definitions(ttl: timedelta | None = None) -> DefinitionSet:
    """One entity keyed by i64, one view of every kind of column, one service over it."""
    keys = [EntityKey("user_id", "i64")]
    source = source_of(FEATURES, keys)
    view = FeatureView(
        name="shop.web.profile",
        owner=OWNER,
        entity=ENTITY,
        source=source.name,
        features=[Feature(name, kind, latest(name)) for name, kind in FEATURES.items()],
        ttl=ttl,
    )
    service = FeatureService(name=SERVICE, owner=OWNER, entries=[ServiceEntry(VIEW, list(FEATURES))])
    entity = Entity(name=ENTITY, owner=OWNER, join_keys=keys)
    return DefinitionSet(sources=[source], entities=[entity], feature_views=[view], feature_services=[service])


def shop_state(revision: int = 1, retired: Sequence[str] = ()) -> RegistryState:
    """The shop as a registry."""
    return state_of(shop_definitions(), revision, retired)


def shop_batch(keys: Sequence[int], event_time_us: int = NOW_US, age: int = 30) -> pa.RecordBatch:
    """Rows of the shop's view."""
    count = len(keys)
    columns = {
        "user_id": pa.array(keys, pa.int64()),
        "event_time": pa.array([event_time_us] * count, pa.timestamp("us", "UTC")),
        "age": pa.array([age] * count, pa.int32()),
        "name": pa.array([f"user {key}" for key in keys], pa.string()),
        "score": pa.array([0.5] * count, pa.float32()),
        "codes": pa.array([[key, key + 1] for key in keys], pa.list_(pa.int64())),
        "pair": pa.array([[1.0, 2.0]] * count, pa.list_(pa.float64(), 2)),
    }
    return pa.RecordBatch.from_pydict(columns)


def ipc(*batches: pa.RecordBatch) -> bytes:
    """One Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


PRINCIPAL = LOCAL
