"""A feature server with one loop and telemetry on, loaded with what the native data plane is measured with."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from headrace.client import Client, FeatureBatch, PreparedFeatures, ReadOptions, RegistryClient, ValueState
from headrace.client.tls import Tls
from headrace.errors import HeadraceError
from loadtest.calls import READ_METHOD
from loadtest.peers import plane_data
from loadtest.peers.h2load import Target, grpc_target
from loadtest.peers.headrace_peer import CALL_S, HeadracePeer, Memory
from loadtest.peers.processes import LOOPBACK, ROOT, Child, free_port, listens, start_failed
from loadtest.rows import FEATURES_PER_VIEW
from protos.feature.v1 import online_feature_service_pb2 as pb

FULL, NARROW = plane_data.SERVICES
WINDOWED: Final = plane_data.SERVICES_WINDOWED
CERTIFICATE_S: Final = 10.0
NOWHERE: Final = f"{LOOPBACK}:1"  # a server started again knows its definitions from the copy of the registry


def telemetry_words(collector_port: int) -> list[str]:
    """Options that turn spans and metrics on."""
    return ["--metrics-port", str(free_port()), "--otlp-endpoint", f"http://{LOOPBACK}:{collector_port}"]


class PlaneServer:
    """The server; spans and metrics go to whatever listens on the collector's port."""

    def __init__(self, folder: Path, memory: Memory, user_count: int, collector_port: int) -> None:
        self.folder, self.memory, self.user_count = folder, memory, user_count
        self._options = ["--loops", "1", *telemetry_words(collector_port)]
        self.peer = HeadracePeer(folder, memory, lambda line: [*line, *self._options])
        try:
            with RegistryClient(self.peer.control) as registry:
                registry.apply(plane_data.definitions())
            self.prepared = {name: self._prepare(name) for name in (FULL, NARROW, WINDOWED)}
            plane_data.load(self.peer.client, user_count)
            self.peer.load(user_count)
        except BaseException:
            self.peer.stop()
            raise

    def full_target(self, user: int, body: Path) -> Target:
        """A read of four views with defaults and event times, where one view has no row of the user or an old one."""
        return self._checked_target(FULL, [user], body, self.peer.client)

    def windowed_target(self, user: int, body: Path) -> Target:
        """A read of 200 windows of one user."""
        return self._checked_target(WINDOWED, [user], body, self.peer.client)

    def narrow_request(self, users: Sequence[int]) -> bytes:
        """A read of ten features of many users."""
        return self._request(NARROW, users)

    @contextmanager
    def over_tls(self) -> Iterator["TlsServer"]:
        """The same rows from a server that speaks TLS, which takes the place of this one."""
        self.peer.stop()
        certificate, key = _certificate(self.folder)
        port = free_port()
        words = [sys.executable, "-m", "feature_server.app", "--data", str(self.folder / "feature_server")]
        words += ["--port", str(port), "--registry", NOWHERE, *self.memory.options(), *self._options]
        words += ["--tls-cert", str(certificate), "--tls-key", str(key)]
        with Child(words, self.folder / "tls.log", cwd=ROOT) as child:
            child.wait_until(lambda: listens(port), "the feature server with TLS")
            with Client(f"{LOOPBACK}:{port}", tls=Tls(certificate)) as client:
                child.wait_until(lambda: self._reads(client), "reads over TLS")
                yield TlsServer(self, child, port, client)

    def _reads(self, client: Client) -> bool:
        try:
            client.get_online_features(self.prepared[NARROW], entities={"user_id": [0]}, timeout_s=CALL_S)
        except HeadraceError:  # it listens before it serves
            return False
        return True

    def _checked_target(self, service: str, users: list[int], body: Path, client: Client, port: int = 0) -> Target:
        options = ReadOptions(include_event_times=service == FULL)
        batch = client.get_online_features(
            self.prepared[service], entities={"user_id": users}, options=options, timeout_s=CALL_S
        )
        fault = _fault_of_full(batch, users[0]) if service == FULL else _fault_of_windows(batch)
        if fault:
            raise start_failed(f"the feature server answers {service} wrongly: {fault}")
        return grpc_target(port or self.peer.port, READ_METHOD, self._request(service, users), body)

    def _request(self, service: str, users: Sequence[int]) -> bytes:
        keys = pb.EntityColumn(join_key="user_id", int64_values=users)
        options = pb.ReadOptions(include_event_times=True) if service == FULL else None
        handle = self.prepared[service].handle
        return pb.GetOnlineFeaturesRequest(handle=handle, entity_columns=[keys], options=options).SerializeToString()

    def _prepare(self, service: str) -> PreparedFeatures:
        found: list[PreparedFeatures] = []

        def seen() -> bool:
            try:
                found.append(self.peer.client.prepare(service, timeout_s=CALL_S))
            except HeadraceError:  # the registry's revision has not reached the server yet
                return False
            return True

        self.peer.child.wait_until(seen, f"the definition of {service}")
        return found[0]


class TlsServer:
    """The server while it speaks TLS."""

    def __init__(self, plain: PlaneServer, child: Child, port: int, client: Client) -> None:
        self.child = child
        self._plain, self._port, self._client = plain, port, client

    def full_target(self, user: int, body: Path) -> Target:
        """As that of the plain server."""
        target = self._plain._checked_target(FULL, [user], body, self._client, self._port)
        return Target(target.url.replace("http:", "https:"), target.body, target.headers)


def _fault_of_full(batch: FeatureBatch, user: int) -> str:
    states = np.array([batch.states(name)[0] for name in batch.columns])
    absent = ValueState.MISSING if user % 8 < 4 else ValueState.EXPIRED
    expected = np.full(len(plane_data.FULL_VIEWS) * FEATURES_PER_VIEW, ValueState.PRESENT)
    expected[user % 4 * FEATURES_PER_VIEW : (user % 4 + 1) * FEATURES_PER_VIEW] = absent
    return "" if np.array_equal(states, expected) else f"states of user {user} are {states.tolist()}"


def _fault_of_windows(batch: FeatureBatch) -> str:
    counts = [int(batch.numpy(f"count_{at}_7d")[0]) for at in range(plane_data.WINDOW_COLUMNS)]
    return "" if counts == [plane_data.WINDOWED_EVENTS] * len(counts) else f"counts of seven days are {counts}"


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of loopback that is its own authority, by the openssl command."""
    certificate, key = folder / "server.crt", folder / "server.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", str(key), "-out", str(certificate), "-days", "1", "-subj", f"/CN={LOOPBACK}"]
    words += ["-addext", f"subjectAltName=IP:{LOOPBACK}"]
    subprocess.run(words, check=True, capture_output=True, timeout=CERTIFICATE_S)
    return certificate, key
