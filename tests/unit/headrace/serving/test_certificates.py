"""Identities of certificates, and what the server behind believes of them."""

import pytest

from headrace.serving.certificates import (
    HEADER,
    URI_BYTES_MAX,
    ForwardedIdentities,
    identity_of,
    name_identity,
    uri_identity,
)


@pytest.mark.parametrize(
    ("properties", "identity"),
    [
        ({"x509_common_name": [b"a"]}, name_identity("a")),
        ({"x509_common_name": [b"a"], "peer_uri": [b"u:b"]}, uri_identity("u:b")),
        ({"x509_common_name": [b"a"], "peer_uri": [b"u:b", b"u:c"]}, b""),
        ({"x509_common_name": [b"a\0b"]}, b""),
        ({"x509_common_name": [b"a" * (URI_BYTES_MAX + 1)]}, b""),
        ({"x509_common_name": [b""]}, b""),
        ({"security_level": [b"TSI_SECURITY_NONE"]}, b""),
        ({}, b""),
    ],
)
def test_identity_of_what_grpc_tells(properties: dict[str, list[bytes]], identity: bytes) -> None:
    assert identity_of(properties) == identity


def test_name_and_uri_of_the_same_text_differ() -> None:
    assert name_identity("a") != uri_identity("a")


def test_forwarded_identity_is_believed_with_the_secret_alone() -> None:
    forwarded = ForwardedIdentities()
    identity = name_identity("a")
    good = forwarded.secret + identity.hex()
    assert forwarded.read([("user-agent", "x"), (HEADER, good)]) == identity
    other = ForwardedIdentities().secret + identity.hex()
    for value in (other, identity.hex(), good[1:], good + "0", good.upper(), "", b"\xff" * 128):
        assert forwarded.read([(HEADER, value)]) == b""
    assert forwarded.read([]) == forwarded.read(None) == b""
