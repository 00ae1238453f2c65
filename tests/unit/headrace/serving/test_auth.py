"""Token files: what is read, refused and read again."""

import hashlib
import io
import os
import time
from pathlib import Path

import pytest

from headrace.errors import InvalidArgument, PermissionDenied, Unauthenticated
from headrace.serving.auth import RECHECK_INTERVAL_S, TokenAuthenticator, read_tokens
from headrace.serving.certificates import name_identity, uri_identity
from headrace.serving.logging import EventLog
from headrace.serving.permissions import method_permissions
from headrace.serving.principal import LOCAL, PERMISSIONS, Principal
from protos.common.v1 import value_pb2
from protos.control.v1 import registry_service_pb2
from protos.feature.v1 import online_feature_service_pb2, shard_service_pb2


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def write(path: Path, token: str) -> None:
    digest = hashlib.sha256(token.encode()).hexdigest()
    path.write_text(f"tokens: [{{sha256: '{digest}', principal: a.{token}, permissions: [FEATURE_READ]}}]")


def test_every_method_of_the_contracts_has_a_permission() -> None:
    files = (online_feature_service_pb2, shard_service_pb2, registry_service_pb2)
    table = method_permissions(*(file.DESCRIPTOR for file in files))
    assert table["/headrace.feature.v1.OnlineFeatureService/DeleteEntity"] == "FEATURE_ERASE"
    assert table["/headrace.feature.v1.ShardService/BatchGetRows"] == "PEER"
    assert set(table.values()) <= PERMISSIONS
    assert method_permissions(value_pb2.DESCRIPTOR) == {}


def test_local_holds_everything_and_another_only_its_own() -> None:
    for permission in PERMISSIONS:
        LOCAL.require(permission)
    with pytest.raises(PermissionDenied, match="FEATURE_WRITE"):
        Principal("a.b", frozenset({"FEATURE_READ"})).require("FEATURE_WRITE")


def test_changed_file_is_read_again_after_the_interval(tmp_path: Path) -> None:
    path, clock = tmp_path / "tokens.yaml", Clock()
    write(path, "old")
    authenticator = TokenAuthenticator(path, clock, EventLog("test", time.time, io.StringIO()))
    write(path, "newer")
    assert authenticator.authenticate("Bearer old").name == "a.old"
    clock.now_s += RECHECK_INTERVAL_S
    assert authenticator.authenticate("bearer newer").name == "a.newer"
    with pytest.raises(Unauthenticated):
        authenticator.authenticate("Bearer old")


@pytest.mark.parametrize("damage", ["tokens: {", "remove"])
def test_damaged_file_keeps_the_last_good_tokens_and_is_logged(tmp_path: Path, damage: str) -> None:
    path, clock, stream = tmp_path / "tokens.yaml", Clock(), io.StringIO()
    write(path, "old")
    authenticator = TokenAuthenticator(path, clock, EventLog("test", time.time, stream))
    if damage == "remove":
        os.remove(path)
    else:
        path.write_text(damage)
    clock.now_s += RECHECK_INTERVAL_S
    assert authenticator.authenticate("Bearer old").name == "a.old"
    assert "tokens_unreadable" in stream.getvalue()


@pytest.mark.parametrize("header", ["", "Bearer ", "Basic old", "old", "Bearer " + "x" * 5_000])
def test_header_without_a_usable_token_is_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "tokens.yaml"
    write(path, "old")
    authenticator = TokenAuthenticator(path, Clock(), EventLog("test", time.time, io.StringIO()))
    with pytest.raises(Unauthenticated) as caught:
        authenticator.authenticate(header)
    assert caught.value.reason == "TOKEN_REQUIRED"


def test_outside_of_a_call_there_is_no_principal(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    write(path, "old")
    authenticator = TokenAuthenticator(path, Clock(), EventLog("test", time.time, io.StringIO()))
    with pytest.raises(Unauthenticated):
        authenticator.current_principal()


DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[]", "list 'tokens'"),
        ("tokens: 3", "list 'tokens'"),
        ("tokens: [3]", r"tokens\[0\]"),
        (f"tokens: [{{sha256: '{DIGEST}', principal: a.b}}]", "sha256, principal, permissions"),
        (f"tokens: [{{sha256: '{DIGEST}', principal: '', permissions: []}}]", "no principal"),
        (f"tokens: [{{sha256: '{DIGEST}', principal: a.b, permissions: [ROOT]}}]", "unknown permission 'ROOT'"),
        ("tokens: [{sha256: '00', principal: a.b, permissions: []}]", "64 hexadecimal digits"),
        ("tokens: [{sha256: 'zz', principal: a.b, permissions: []}]", "64 hexadecimal digits"),
        ("tokens: !!python/object:os.system {}", "no YAML"),
        ("certificates: 3", "list 'certificates'"),
        ("certificates: [{name: a, uri: b, principal: a.b, permissions: []}]", "uri or name"),
        ("certificates: [{principal: a.b, permissions: []}]", "uri or name"),
        ("certificates: [{name: 3, principal: a.b, permissions: []}]", "text of at most"),
        ("certificates: [{uri: '', principal: a.b, permissions: []}]", "text of at most"),
        ("certificates: [{name: a, principal: '', permissions: []}]", "no principal"),
        ("certificates: [{name: a, principal: b, permissions: []}, {name: a, principal: c, permissions: []}]", "twice"),
    ],
)
def test_bad_token_file_is_refused_with_its_place(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=match):
        read_tokens(path)


def test_certificate_is_a_principal_and_a_token_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text(
        "certificates: [{name: scorer, principal: m.scorer, permissions: [FEATURE_READ]},"
        " {uri: 'spiffe://a/b', principal: m.writer, permissions: [FEATURE_WRITE]}]"
    )
    authenticator = TokenAuthenticator(path, Clock(), EventLog("test", time.time, io.StringIO()))
    scorer, writer = name_identity("scorer"), uri_identity("spiffe://a/b")
    assert [authenticator.authenticate("", identity).name for identity in (scorer, writer)] == ["m.scorer", "m.writer"]
    assert authenticator.identities("FEATURE_READ") == {scorer}
    assert authenticator.digests("FEATURE_READ") == frozenset()
    for authorization, identity, reason in (
        ("", uri_identity("scorer"), "CERTIFICATE_UNKNOWN"),
        ("", b"", "TOKEN_REQUIRED"),
        ("Bearer name:scorer", scorer, "TOKEN_UNKNOWN"),
    ):
        with pytest.raises(Unauthenticated) as caught:
            authenticator.authenticate(authorization, identity)
        assert caught.value.reason == reason
