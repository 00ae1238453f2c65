"""Our own server for a comparison: started empty, loaded over gRPC, read by handle."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import numpy as np

from core_ext.keys import encode_key, storage_key
from headrace.client import Client, PreparedFeatures, ReadOptions, RegistryClient
from headrace.definitions import DefinitionKind
from headrace.definitions.registered import RegisteredEntity, RegisteredView
from headrace.errors import HeadraceError
from headrace.types import Scalar
from loadtest.calls import READ_METHOD, Calls
from loadtest.dataset import SCENARIOS, USER, USER_SERVICE, USER_VIEWS, View
from loadtest.loading import Writer, apply_definitions, load
from loadtest.peers.h2load import Target, grpc_target
from loadtest.peers.processes import LOOPBACK, ROOT, Child, Usage, free_port, listens, start_failed, usage
from loadtest.rows import values
from protos.feature.v1 import shard_service_pb2 as pb

CALL_S: Final = 30.0
Wrap = Callable[[list[str]], list[str]]


@dataclass(frozen=True, slots=True)
class Memory:
    """What the feature server may use for rows and blocks."""

    table_bytes: int
    block_cache_bytes: int
    write_buffer_bytes: int
    direct_reads: bool = False

    def options(self) -> list[str]:
        """Its command line."""
        out = ["--table-bytes", str(self.table_bytes), "--block-cache-bytes", str(self.block_cache_bytes)]
        out += ["--write-buffer-bytes", str(self.write_buffer_bytes)]
        return out + (["--direct-reads"] if self.direct_reads else [])


class HeadracePeer:
    """Control plane and feature server on a folder, with the definitions of the load tests applied.

    `wrap` changes the feature server's command line, to start it inside a memory limit.
    """

    def __init__(self, folder: Path, memory: Memory, wrap: Wrap = list) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.control, self.features = (f"{LOOPBACK}:{free_port()}" for _ in range(2))
        features = _server("feature_server.app", folder, self.features)
        features = wrap([*features, "--registry", self.control, *memory.options()])
        with ExitStack() as ending:  # of what runs, when something later does not start
            control = Child(_server("control_plane.app", folder, self.control), folder / "control_plane.log", cwd=ROOT)
            ending.callback(control.stop)
            control.wait_until(lambda: listens(_port(self.control)), "the control plane")
            self.child = Child(features, folder / "feature_server.log", cwd=ROOT)
            ending.callback(self.child.stop)
            self.child.wait_until(lambda: listens(self.port), "the feature server")
            self.registry_revision = apply_definitions(self.control)
            self.writer = Writer(self.features)
            ending.callback(self.writer.close)
            self.client = Client(self.features)
            ending.callback(self.client.close)
            self.prepared = self._prepare()
            self.empty_bytes = self.server_usage().resident_bytes
            self.row_count = 0
            self._ending = ending.pop_all()

    @property
    def port(self) -> int:
        """Port of the feature server."""
        return _port(self.features)

    def load(self, user_count: int, views: tuple[View, ...] = USER_VIEWS) -> int:
        """Writes the rows and returns their number."""
        written = load(self.writer, views, user_count)
        self.row_count += written
        return written

    def target(self, scenario: str, user_count: int, seed: int, body: Path) -> Target:
        """A read for h2load: its keys drawn by the seed, its answer checked value by value first."""
        request, _ = self._checked(scenario, user_count, seed)
        return grpc_target(self.port, READ_METHOD, request, body)

    def answer_bytes(self, scenario: str, user_count: int, seed: int) -> int:
        """Length of the answer to the read that `target` makes."""
        return len(self._checked(scenario, user_count, seed)[1])

    def _checked(self, scenario: str, user_count: int, seed: int) -> tuple[bytes, bytes]:
        calls = Calls(SCENARIOS[scenario], user_count, seed, self.prepared.handle)
        users = calls.draw()
        request = calls.request(users)
        with grpc.insecure_channel(self.features) as channel:
            read: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(READ_METHOD)
            answer = read(request, timeout=CALL_S)
        faults = calls.faults(users, answer)
        if faults:
            raise start_failed(f"the feature server answers wrongly: {'; '.join(faults[:3])}")
        return request, answer

    def read(self, users: list[int]) -> None:
        """One read by the client, every column an array at its end."""
        batch = self.client.get_online_features(
            self.prepared, entities={"user_id": np.array(users, dtype=np.int64)}, timeout_s=CALL_S
        )
        for name in batch.columns:
            batch.numpy(name)

    def holds(self, view: View, users: list[int], event_time_us: int) -> bool:
        """Whether the rows of these users are there with their values and this event time."""
        keys = np.array(users, dtype=np.int64)
        batch = self.client.get_online_features(
            features=[f"{view.reference}:{name}" for name in view.features],
            entities={"user_id": keys},
            options=ReadOptions(include_event_times=True),
            timeout_s=CALL_S,
        )
        expected = values(view.index, keys, view.feature_count)
        found = np.column_stack([batch.numpy(name) for name in batch.columns])
        times = batch.event_times(batch.columns[0]).astype(np.int64)
        return np.array_equal(found, expected) and times.tolist() == [event_time_us] * len(users)

    def row_ids(self) -> "RowIds":
        """By which another server asks for the rows of 1x200."""
        with RegistryClient(self.control) as registry:
            entity = registry.get(DefinitionKind.ENTITY, USER)
            views = [registry.get(DefinitionKind.FEATURE_VIEW, view.reference) for view in USER_VIEWS]
        assert isinstance(entity, RegisteredEntity)
        return RowIds(entity.entity_id, tuple(view.view_id for view in views if isinstance(view, RegisteredView)))

    def server_usage(self) -> Usage:
        """CPU and memory of the feature server alone."""
        return usage(self.child.pid, with_children=False)

    def stop(self) -> None:
        """Ends both servers."""
        self._ending.close()

    def _prepare(self) -> PreparedFeatures:
        """Waits until the server has seen the definitions."""
        found: list[PreparedFeatures] = []

        def seen() -> bool:
            try:
                found.append(self.client.prepare(USER_SERVICE, timeout_s=CALL_S))
            except HeadraceError:  # the registry's revision has not reached the server yet
                return False
            return True

        self.child.wait_until(seen, "the applied definitions")
        return found[0]


@dataclass(frozen=True, slots=True)
class RowIds:
    """Ids of an entity and of views of it."""

    entity_id: int
    view_ids: tuple[int, ...]

    def request(self, user: int) -> bytes:
        """BatchGetRows of one row of each view."""
        key = encode_key([Scalar.I64], [user])
        keys = [storage_key(self.entity_id, key, view_id) for view_id in self.view_ids]
        return pb.BatchGetRowsRequest(keys=keys).SerializeToString()


def _server(module: str, folder: Path, address: str) -> list[str]:
    data = folder / module.partition(".")[0]
    return [sys.executable, "-m", module, "--data", str(data), "--port", str(_port(address))]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
