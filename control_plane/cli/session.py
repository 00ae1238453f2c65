"""What the commands of one run share: the environment, the output format and the clients."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from control_plane.cli.endpoints import Endpoints, data_folder, resolve
from control_plane.cli.output import Format
from headrace.errors import FailedPrecondition

if TYPE_CHECKING:
    from headrace.client import Client, HistoryClient, InspectionClient, LineageClient, RegistryClient, Tls
    from headrace.client.ring import RingClient

LAKE_VARIABLE: Final = "HEADRACE_LAKE"
LAKE_FOLDER: Final = "batch"  # of a platform, in its data folder


@dataclass
class Session:
    """One run of the command line."""

    environment: Mapping[str, str]
    form: Format = Format.TABLE
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)
    endpoint: str | None = None
    data: Path | None = None
    token: str | None = None
    lake: Path | None = None
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def lake_folder(self) -> Path:
        """Folder of the offline store by flag > environment > data folder."""
        named = self.lake or self.environment.get(LAKE_VARIABLE)
        return Path(named) if named else data_folder(self.environment, self.data) / LAKE_FOLDER

    def endpoints(self) -> Endpoints:
        """Addresses of the platform that this run talks to."""
        return resolve(self.environment, self.endpoint, self.data)

    @contextmanager
    def registry(self) -> "Iterator[RegistryClient]":
        """Client of the control plane."""
        from headrace.client import RegistryClient  # lazy: grpc takes longer to load than help may take

        address = _required(self.endpoints().control, "control plane", "control")
        with RegistryClient(address, token=self.token, tls=self._tls()) as client:
            yield client

    @contextmanager
    def lineage(self) -> "Iterator[LineageClient]":
        """Client of the lineage in the control plane."""
        from headrace.client import LineageClient  # lazy: as above

        address = _required(self.endpoints().control, "control plane", "control")
        with LineageClient(address, token=self.token, tls=self._tls()) as client:
            yield client

    @contextmanager
    def ring(self) -> "Iterator[RingClient]":
        """Client of the ring in the control plane."""
        from headrace.client.ring import RingClient  # lazy: as above

        address = _required(self.endpoints().control, "control plane", "control")
        with RingClient(address, token=self.token, tls=self._tls()) as client:
            yield client

    @contextmanager
    def features(self) -> "Iterator[Client]":
        """Client of the feature server."""
        from headrace.client import Client  # lazy: as above

        address = _required(self.endpoints().features, "feature server", "features")
        with Client(address, token=self.token, tls=self._tls()) as client:
            yield client

    @contextmanager
    def inspection(self) -> "Iterator[InspectionClient]":
        """Client of what the feature server tells of its values and its disk."""
        from headrace.client import InspectionClient  # lazy: as above

        address = _required(self.endpoints().features, "feature server", "features")
        with InspectionClient(address, token=self.token, tls=self._tls()) as client:
            yield client

    @contextmanager
    def history(self) -> "Iterator[HistoryClient]":
        """Client of the historical service."""
        from headrace.client import HistoryClient  # lazy: as above

        address = _required(self.endpoints().history, "historical service", "history")
        with HistoryClient(address, token=self.token, tls=self._tls()) as client:
            yield client

    def _tls(self) -> "Tls | None":
        from headrace.client.tls import client_tls  # lazy: as above

        return client_tls(self.tls_ca, self.tls_certificate, self.tls_key)


def _required(address: str, what: str, name: str) -> str:
    if not address:
        raise FailedPrecondition(
            f"no address of the {what} is given; add {name}=HOST:PORT to the endpoint",
            reason="ENDPOINT",
            field="--endpoint",
            metadata={"server": what},
        )
    return address
