"""Our own server for a comparison: started empty, loaded over gRPC, read by handle."""

import json
import sys
from pathlib import Path
from typing import Final

import grpc
import numpy as np

from headrace.client import Client, PreparedFeatures
from headrace.errors import HeadraceError
from loadtest.calls import READ_METHOD, Calls
from loadtest.dataset import SCENARIOS, USER_SERVICE, USER_VIEWS, View
from loadtest.loading import Writer, apply_definitions, load
from loadtest.peers.h2load import Target, grpc_target
from loadtest.peers.processes import ROOT, Child, Usage, descendants, listens, start_failed, usage

UP: Final = "import sys; from control_plane.cli.app import main; sys.exit(main())"
CALL_S: Final = 30.0


class HeadracePeer:
    """`headrace up` on a folder, with the definitions of the load tests applied."""

    def __init__(self, folder: Path, log: Path, *up_options: str) -> None:
        command = [sys.executable, "-c", UP, "up", "--data", str(folder), *up_options]
        self._places = folder / "endpoints.json"
        self._places.unlink(missing_ok=True)  # of a run that was killed
        self.child = Child(command, log, cwd=ROOT)
        self.child.wait_until(self._is_up, "headrace up")
        places = json.loads(self._places.read_text())
        self.features, self.control = str(places["features"]), str(places["control"])
        self.registry_revision = apply_definitions(self.control)
        self.writer = Writer(self.features)
        self.client = Client(self.features)
        self.prepared = self._prepare()

    @property
    def port(self) -> int:
        """Port of the feature server."""
        return int(self.features.rpartition(":")[2])

    def load(self, user_count: int, views: tuple[View, ...] = USER_VIEWS) -> int:
        """Writes the rows and returns their number."""
        return load(self.writer, views, user_count)

    def target(self, scenario: str, user_count: int, seed: int, body: Path) -> Target:
        """A read for h2load: its keys drawn by the seed, its answer checked value by value first."""
        calls = Calls(SCENARIOS[scenario], user_count, seed, self.prepared.handle)
        users = calls.draw()
        request = calls.request(users)
        with grpc.insecure_channel(self.features) as channel:
            read: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(READ_METHOD)
            answer = read(request, timeout=CALL_S)
        faults = calls.faults(users, answer)
        if faults:
            raise start_failed(f"the feature server answers wrongly: {'; '.join(faults[:3])}")
        return grpc_target(self.port, READ_METHOD, request, body)

    def read(self, users: list[int]) -> None:
        """One read by the client, every column an array at its end."""
        batch = self.client.get_online_features(
            self.prepared, entities={"user_id": np.array(users, dtype=np.int64)}, timeout_s=CALL_S
        )
        for name in batch.columns:
            batch.numpy(name)

    def server_pid(self) -> int:
        """The feature server below `headrace up`."""
        for pid in descendants(self.child.pid):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"feature_server.app" in words:
                return pid
        raise start_failed("no feature server runs below `headrace up`")

    def server_usage(self) -> Usage:
        """CPU and memory of the feature server alone."""
        return usage(self.server_pid(), with_children=False)

    def stop(self) -> None:
        """Ends the platform."""
        self.client.close()
        self.writer.close()
        self.child.stop()

    def _is_up(self) -> bool:
        try:
            places = json.loads(self._places.read_text())
        except (OSError, ValueError):
            return False
        ports = [int(str(places[name]).rpartition(":")[2]) for name in ("features", "control")]
        return all(listens(port) for port in ports)

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
