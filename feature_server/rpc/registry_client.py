"""Watches the registry of the control plane, and keeps the last good copy on disk."""

import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

import grpc
from google.protobuf.message import DecodeError

from headrace.client.tls import Tls, channel_credentials, open_channel
from headrace.convert.registry import state_from_pb
from headrace.definitions.registered import REGISTRY_MESSAGE_BYTES_MAX, RegistryState
from headrace.errors import HeadraceError
from headrace.serving.logging import EventLog
from headrace.status import from_rpc_error
from protos.control.v1 import registry_service_pb2 as pb
from protos.control.v1 import registry_service_pb2_grpc as pb_grpc

WATCH_DEADLINE_S: Final = 600.0  # of one watch; it then begins anew, so that a dead peer is noticed at last
BACKOFF_MIN_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
JITTER: Final = 0.2  # of the backoff, so that many servers do not come back at once
STOP_WAIT_S: Final = 5.0
OPTIONS: Final = (
    ("grpc.max_receive_message_length", REGISTRY_MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", int(BACKOFF_MAX_S * 1_000)),
)


def read_copy(path: Path, read: Callable[[Path], bytes | None]) -> RegistryState | None:
    """The registry that a server kept, None where there is none. Raises DataLoss or DecodeError where it is damaged."""
    data = read(path)
    return None if data is None else state_from_pb(pb.WatchRegistryResponse.FromString(data))


class Keeper(Protocol):
    """Whoever follows the registry."""

    @property
    def revision(self) -> int:
        """Revision that is held; 0 before the first."""

    def accept(self, state: RegistryState) -> None:
        """Takes a newer registry, or refuses it."""


class RegistryCopy:
    """The last registry that was served, as a checked file. `read` and `write` are those of the storage."""

    def __init__(
        self, path: Path, read: Callable[[Path], bytes | None], write: Callable[[Path, bytes], None], log: EventLog
    ) -> None:
        self._path = path
        self._read = read
        self._write = write
        self._log = log

    def load(self, keeper: Keeper) -> None:
        """Serves the copy where there is a good one; a damaged one is only logged, as the watch brings another."""
        try:
            state = read_copy(self._path, self._read)
            if state is not None:
                keeper.accept(state)
        except (HeadraceError, DecodeError) as error:
            self._log.error("registry_copy_unusable", path=str(self._path), detail=str(error))

    def save(self, message: pb.WatchRegistryResponse) -> None:
        """Keeps a registry. Where the disk refuses, the server goes on with what it has in memory."""
        try:
            self._write(self._path, message.SerializeToString())
        except HeadraceError as error:
            self._log.error("registry_copy_not_kept", path=str(self._path), detail=error.message)


class RegistryWatch:
    """A thread that follows the registry for ever."""

    def __init__(
        self,
        address: str,
        token: str,
        keeper: Keeper,
        copy: RegistryCopy,
        *,
        random: Random,
        log: EventLog,
        tls: Tls | None = None,
    ) -> None:
        self._address = address
        self._tls = tls
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._keeper = keeper
        self._copy = copy
        self._random = random
        self._log = log
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._call: Any = None  # Any: a stream of grpc, which has no common type
        self._backoff_s = BACKOFF_MIN_S
        self._thread = threading.Thread(target=self._run, name="registry", daemon=True)

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def close(self) -> None:
        """Ends the watch."""
        self._stop.set()
        with self._lock:
            if self._call is not None:
                self._call.cancel()
        self._thread.join(STOP_WAIT_S)

    def _run(self) -> None:
        with open_channel(self._address, OPTIONS, channel_credentials(self._tls)) as channel:
            stub = pb_grpc.RegistryServiceStub(channel)
            while not self._stop.is_set():
                try:
                    self._follow(stub)
                except grpc.RpcError as error:
                    self._report(from_rpc_error(error))
                except HeadraceError as error:
                    self._report(error)
                except Exception as error:  # noqa: BLE001 - the outermost loop of a thread
                    self._log.failure("registry_watch_failed", error)
                self._stop.wait(self._backoff_s * self._random.uniform(1 - JITTER, 1 + JITTER))
                self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)

    def _follow(self, stub: pb_grpc.RegistryServiceStub) -> None:
        request = pb.WatchRegistryRequest(held_revision=self._keeper.revision)
        call = stub.WatchRegistry(request, timeout=WATCH_DEADLINE_S, metadata=self._metadata)
        with self._lock:
            self._call = call
        if self._stop.is_set():
            call.cancel()
        for message in call:
            self._backoff_s = BACKOFF_MIN_S
            self._keeper.accept(state_from_pb(message))
            self._copy.save(message)

    def _report(self, error: HeadraceError) -> None:
        if self._stop.is_set() or error.code == "DEADLINE_EXCEEDED":
            return
        event = "registry_refused" if error.reason == "REGISTRY_BEHIND" else "registry_unreachable"
        self._log.warning(event, address=self._address, reason=error.reason, detail=error.message)
