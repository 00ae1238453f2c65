"""What a client needs for TLS: whom it trusts, and the certificate that it shows."""

from dataclasses import dataclass
from pathlib import Path

import grpc

from headrace.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: the authority that servers' certificates are of, and, for mTLS, a certificate and its key."""

    ca: str | Path
    certificate: str | Path | None = None
    key: str | Path | None = None


def client_tls(ca: Path | None, certificate: Path | None, key: Path | None) -> Tls | None:
    """TLS by what a command line names; None where it names nothing."""
    if ca is None and certificate is None and key is None:
        return None
    if ca is None:
        raise _wrong("a client certificate is shown to a server that is trusted; give the file of its authority too")
    return Tls(ca, certificate, key)


def channel_credentials(
    tls: Tls | str | Path | None, credentials: grpc.ChannelCredentials | None = None
) -> grpc.ChannelCredentials | None:
    """Credentials of a channel, None for a plain one. A path is that of the authority."""
    if tls is None:
        return credentials
    if credentials is not None:
        raise _wrong("tls and credentials both say how to speak TLS; give one of them")
    files = tls if isinstance(tls, Tls) else Tls(tls)
    if (files.certificate is None) != (files.key is None):
        raise _wrong("a client certificate and its key go together; give both")
    return grpc.ssl_channel_credentials(
        _read(files.ca),
        _read(files.key) if files.key is not None else None,
        _read(files.certificate) if files.certificate is not None else None,
    )


def open_channel(
    target: str, options: tuple[tuple[str, int], ...], credentials: grpc.ChannelCredentials | None
) -> grpc.Channel:
    """A blocking channel, plain without credentials."""
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _wrong(f"{path} cannot be read ({error.strerror}); name a PEM file") from error


def _wrong(problem: str) -> InvalidArgument:
    return InvalidArgument(problem, reason="TLS_FILES", field="tls")
