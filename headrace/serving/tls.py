"""The certificate of a server: read from its files, read again when they change, and given to gRPC."""

import argparse
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from headrace.errors import InvalidArgument
from headrace.serving.logging import EventLog
from headrace.serving.telemetry import Telemetry

RECHECK_INTERVAL_S: Final = 1.0  # new files are in use after at most about this long
FILE_BYTES_MAX: Final = 1 << 20  # a chain, or the authorities of the clients
FIELD: Final = "tls_cert"

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsPaths:
    """PEM files: a certificate with its chain, its key, and the authorities of clients that show one."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What the files hold; `client_ca` is empty where no client shows a certificate."""

    certificate: bytes
    key: bytes
    client_ca: bytes = b""


class TlsFiles:
    """The last good certificate. New files that are not usable, or not a pair yet, leave it as it is."""

    def __init__(self, paths: TlsPaths, log: EventLog, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.has_clients = paths.client_ca is not None
        self.reload_count = 0
        self.failure_count = 0
        self._paths = paths
        self._log = log
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._stamp, self._material = _read(paths)
        self._refused: _Stamp | None = None
        self._checked_s = monotonic()

    def current(self) -> TlsMaterial:
        """What a handshake uses; looks at the files at most once a second."""
        now = self._monotonic()
        if now - self._checked_s >= RECHECK_INTERVAL_S and self._lock.acquire(blocking=False):
            try:
                self._checked_s = now
                self._reread()
            finally:
                self._lock.release()
        return self._material

    def refuse(self, problem: str) -> None:
        """Notes that what `current` gave is of no use to a transport."""
        self.failure_count += 1
        self._log.error("certificate_unusable", path=str(self._paths.certificate), detail=problem)

    def _reread(self) -> None:
        stamp: _Stamp | None = None
        try:
            stamp = _stamp(self._paths)
            if stamp in {self._stamp, self._refused}:
                return
            self._stamp, self._material = _read(self._paths)
        except (OSError, InvalidArgument) as error:
            self._refused = stamp  # told once for each change
            self.refuse(str(error))
        else:
            self._refused = None
            self.reload_count += 1
            self._log.info("certificate_read", path=str(self._paths.certificate))


def asks_peer(files: TlsFiles | None) -> bool:
    """Whether a gRPC server knows its callers by their certificates."""
    return files is not None and files.has_clients


def observe(telemetry: Telemetry, files: TlsFiles | None) -> None:
    """Counts of reloads, good and bad, of a server that speaks TLS."""
    if files is None:
        return
    telemetry.counter("headrace.tls.reloads", "Certificates taken anew.", lambda: [(files.reload_count, {})])
    telemetry.counter("headrace.tls.failures", "Certificates not usable.", lambda: [(files.failure_count, {})])


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials of a gRPC server that follow the files. With client authorities, every client must show one."""
    given = files.current()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        material = files.current()
        if material is given:
            return None
        given = material
        return _configuration(material)

    # None from `fetch` is no change, which the stubs do not know.
    return grpc.dynamic_ssl_server_credentials(_configuration(given), fetch, files.has_clients)  # type: ignore[arg-type]


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    pair = (material.key, material.certificate)
    return grpc.ssl_server_certificate_configuration([pair], material.client_ca or None)


def add_tls_options(parser: argparse.ArgumentParser) -> None:
    """The options of a server that may speak TLS."""
    parser.add_argument("--tls-cert", type=Path, help="PEM file of the certificate and its chain; plain without it")
    parser.add_argument("--tls-key", type=Path, help="PEM file of the certificate's key")
    parser.add_argument("--tls-client-ca", type=Path, help="PEM file of authorities of clients' certificates")


def tls_files(options: argparse.Namespace, log: EventLog) -> TlsFiles | None:
    """Files that the options name; None where the server is plain."""
    if options.tls_cert is None and options.tls_key is None and options.tls_client_ca is None:
        return None
    if options.tls_cert is None or options.tls_key is None:
        raise InvalidArgument("--tls-cert and --tls-key go together; give both", reason="TLS_FILES", field=FIELD)
    if options.tls_client_ca is not None and options.tokens is None:
        raise InvalidArgument(
            "--tls-client-ca needs --tokens FILE, whose certificates say who may do what",
            reason="TLS_FILES",
            field="tls_client_ca",
        )
    return TlsFiles(TlsPaths(options.tls_cert, options.tls_key, options.tls_client_ca), log)


def _read(paths: TlsPaths) -> tuple[_Stamp, TlsMaterial]:
    """The files as they stood at one time, proven to be a pair."""
    try:
        before = _stamp(paths)
        material = TlsMaterial(
            _bytes(paths.certificate), _bytes(paths.key), _bytes(paths.client_ca) if paths.client_ca else b""
        )
        _prove(paths)
        after = _stamp(paths)
    except ssl.SSLError as error:
        raise _unusable(f"not usable together: {error.reason or error}") from error
    except (OSError, ValueError) as error:
        raise _unusable(f"not readable: {error}") from error
    if before != after:
        raise _unusable("changing; write new files beside them and rename them into place")
    return after, material


def _prove(paths: TlsPaths) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths.certificate, paths.key, password=_no_passphrase)
    if paths.client_ca is not None:
        context.load_verify_locations(paths.client_ca)


def _no_passphrase() -> str:
    raise ValueError("the key wants a passphrase; give one without")


def _bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"{path} has {len(data)} bytes; at most {FILE_BYTES_MAX} are allowed")
    return data


def _unusable(problem: str) -> InvalidArgument:
    return InvalidArgument(
        f"the files of --tls-cert, --tls-key and --tls-client-ca are {problem}", reason="TLS_FILES", field=FIELD
    )


def _stamp(paths: TlsPaths) -> _Stamp:
    files = [paths.certificate, paths.key] + ([paths.client_ca] if paths.client_ca else [])
    found = [path.stat() for path in files]
    return tuple((status.st_mtime_ns, status.st_size, status.st_ino) for status in found)
