"""Turns what a client's certificate names into an identity, and carries it to the server behind the native loop."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

HEADER: Final = "headrace-certificate"  # core_ext/native/hr_h2_read.h sends it, and drops it where a client does
URI_BYTES_MAX: Final = 2_048  # of a SPIFFE ID; also bounds a common name
IDENTITY_BYTES: Final = hashlib.sha256().digest_size

_URI_KEY: Final = "peer_uri"  # of grpc's auth_context
_NAME_KEY: Final = "x509_common_name"
_FORM: Final = re.compile(r"([0-9a-f]{64})([0-9a-f]{64})")

Metadata = Sequence[tuple[str, str | bytes]]


def uri_identity(uri: str) -> bytes:
    """Identity of a certificate whose one URI among the subject's alternative names is this."""
    return _identity(b"uri", uri.encode())


def name_identity(name: str) -> bytes:
    """Identity of a certificate without such a URI whose subject has this first common name."""
    return _identity(b"name", name.encode())


def identity_of(properties: Mapping[str, Any]) -> bytes:  # Any: sequences of bytes, which grpc's stubs call bytes
    """Identity of the peer that grpc's auth_context tells of; empty where its certificate names nobody, or two."""
    uris = properties.get(_URI_KEY, ())
    if uris:
        return _identity(b"uri", uris[0]) if len(uris) == 1 else b""
    names = properties.get(_NAME_KEY, ())
    return _identity(b"name", names[0]) if names else b""


def _identity(kind: bytes, name: bytes) -> bytes:
    if not 0 < len(name) <= URI_BYTES_MAX or b"\0" in name:
        return b""
    return hashlib.sha256(kind + b":" + name).digest()


class ForwardedIdentities:
    """Identities that the native loop hands on; its secret tells them from what anybody on the machine may send."""

    def __init__(self) -> None:
        self.secret = secrets.token_hex(32)

    def read(self, metadata: Metadata | None) -> bytes:
        """The identity that a call was forwarded with; empty where it has none of ours."""
        for key, value in metadata or ():
            if key == HEADER:
                match = _FORM.fullmatch(value if isinstance(value, str) else value.decode("ascii", "replace"))
                if match is not None and hmac.compare_digest(match[1], self.secret):
                    return bytes.fromhex(match[2])
        return b""
