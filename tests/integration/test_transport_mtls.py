"""Callers known by their certificate, on both transports: what they may do, and what nobody can claim to be."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import yaml

from feature_server.rpc.native_front import HAS_NATIVE, TRANSPORTS
from headrace.client.tls import Tls, channel_credentials
from headrace.serving.certificates import HEADER, name_identity
from headrace.status import from_rpc_error
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as pb_grpc
from tests.integration.certificates import Authority, Pair
from tests.integration.test_server_life import Server, apply, registry, server, wait_until
from tests.integration.test_transport_conformance import read_request
from tests.unit.feature_server.parts import VIEW, ipc, shop_batch

LIMIT_S = 20.0
in_front_of_a_server = pytest.mark.parametrize("guarded", ["native"], indirect=True)
SCORER = "spiffe://shop.example/scorer"
Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass
class Guarded:
    """A server that asks for certificates, and who may call it."""

    running: Server
    authority: Authority
    transport: str
    tokens: Path

    def code(self, pair: Pair | None, keys: Sequence[int] = (1,), metadata: Metadata = ()) -> str:
        """What a read on a connection of its own comes to."""
        with self._channel(pair) as channel:
            return self.outcome(channel, keys, metadata)

    def outcome(self, channel: grpc.Channel, keys: Sequence[int] = (1,), metadata: Metadata = ()) -> str:
        stub = pb_grpc.OnlineFeatureServiceStub(channel)
        try:
            stub.GetOnlineFeatures(read_request(*keys), timeout=LIMIT_S, metadata=metadata)
        except grpc.RpcError as error:
            return f"{error.code().name} {from_rpc_error(error).reason}"
        return "OK"

    def written(self, pair: Pair, key: int) -> str:
        """What a write comes to, first alone and then in a stream."""
        write = pb.WriteFeaturesRequest(feature_view=VIEW, arrow_ipc=ipc(shop_batch([key], 1_700_000_000_000_000)))
        with self._channel(pair) as channel:
            stub = pb_grpc.OnlineFeatureServiceStub(channel)
            try:
                assert stub.WriteFeatures(write, timeout=LIMIT_S).row_count == 1
                answers = stub.IngestFeatures(iter([pb.IngestFeaturesRequest(write=write)] * 2), timeout=LIMIT_S)
                assert [answer.write.row_count for answer in answers] == [1, 1]
            except grpc.RpcError as error:
                return f"{error.code().name} {from_rpc_error(error).reason}"
        return "OK"

    def _channel(self, pair: Pair | None) -> grpc.Channel:
        shown = (pair.certificate, pair.key) if pair is not None else (None, None)
        credentials = channel_credentials(Tls(self.authority.file, *shown))
        return Server(self.running.address, self.running.log, self.running.channel, credentials).new_channel()


def write_tokens(path: Path, *certificates: tuple[str, str, str]) -> None:
    """The token file: one token, and certificates as kind, name and permission."""
    digest = hashlib.sha256(b"reader").hexdigest()
    entries = [{kind: name, "principal": name, "permissions": [held]} for kind, name, held in certificates]
    tokens = [{"sha256": digest, "principal": "token.reader", "permissions": ["FEATURE_READ"]}]
    draft = path.with_suffix(".new")
    draft.write_text(yaml.safe_dump({"tokens": tokens, "certificates": entries}))
    draft.replace(path)


CERTIFICATES = (
    ("name", "reader", "FEATURE_READ"),
    ("name", "writer", "FEATURE_WRITE"),
    ("uri", SCORER, "FEATURE_READ"),
)


@pytest.fixture(scope="module", params=TRANSPORTS)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    if request.param == "native" and not HAS_NATIVE:
        pytest.skip("the native loop was not compiled in")
    folder = tmp_path_factory.mktemp(request.param)
    authority, tokens = Authority(folder), folder / "tokens.yaml"
    pair, health = authority.issue("server"), authority.issue("health")
    write_tokens(tokens, *CERTIFICATES)
    options = ["--transport", request.param, "--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)]
    options += ["--tls-client-ca", str(authority.file), "--tokens", str(tokens)]
    credentials = channel_credentials(Tls(authority.file, health.certificate, health.key))
    with registry(folder / "registry") as address:
        apply(address)
        with server(folder / "store", address, *options, credentials=credentials) as running:
            wait_until(running.is_serving)
            found = Guarded(running, authority, request.param, tokens)
            reader = authority.issue("reader")
            wait_until(lambda: found.code(reader) == "OK")
            yield found


def test_certificate_of_a_name_may_do_what_its_entry_says(guarded: Guarded) -> None:
    reader, writer = guarded.authority.issue("reader"), guarded.authority.issue("writer")
    assert guarded.written(writer, 1) == "OK"
    assert [guarded.code(reader), guarded.code(reader, [1, 50_000])] == ["OK", "OK"], "a hit and a miss"
    assert guarded.written(reader, 1) == "PERMISSION_DENIED PERMISSION_DENIED"
    assert guarded.code(writer) == "PERMISSION_DENIED PERMISSION_DENIED"


def test_uri_comes_before_the_name(guarded: Guarded) -> None:
    assert guarded.code(guarded.authority.issue("anybody", (SCORER,))) == "OK"
    unknown = "UNAUTHENTICATED CERTIFICATE_UNKNOWN"
    assert guarded.code(guarded.authority.issue("reader", ("spiffe://shop.example/other",))) == unknown
    two = guarded.authority.issue("reader", (SCORER, "spiffe://shop.example/other"))
    assert guarded.code(two).startswith("UNAUTHENTICATED"), "two URIs name nobody"


def test_unknown_certificate_and_none_at_all(guarded: Guarded) -> None:
    assert guarded.code(guarded.authority.issue("stranger")) == "UNAUTHENTICATED CERTIFICATE_UNKNOWN"
    # grpcio has no way to ask for a certificate without demanding it.
    wanted = "UNAUTHENTICATED TOKEN_REQUIRED" if guarded.transport == "native" else "UNAVAILABLE"
    assert guarded.code(None).startswith(wanted)


def test_certificate_of_another_authority_and_an_expired_one_do_not_get_in(guarded: Guarded, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other").issue("reader")
    expired = guarded.authority.issue("reader", is_expired=True)
    assert [guarded.code(pair).split()[0] for pair in (other, expired)] == ["UNAVAILABLE"] * 2


def test_token_comes_before_the_certificate(guarded: Guarded) -> None:
    stranger, reader = guarded.authority.issue("stranger"), guarded.authority.issue("reader")
    assert guarded.code(stranger, metadata=(("authorization", "Bearer reader"),)) == "OK"
    wrong = guarded.code(reader, metadata=(("authorization", "Bearer wrong"),))
    assert wrong == "UNAUTHENTICATED TOKEN_UNKNOWN"
    # What a certificate's identity is the digest of is no token.
    named = guarded.code(stranger, metadata=(("authorization", "Bearer name:reader"),))
    assert named == "UNAUTHENTICATED TOKEN_UNKNOWN"


def test_identity_in_a_header_is_worth_nothing(guarded: Guarded) -> None:
    stranger = guarded.authority.issue("stranger")
    for forged in ("0" * 64 + name_identity("reader").hex(), name_identity("reader").hex()):
        for keys in ([1], [1, 60_000]):
            assert guarded.code(stranger, keys, ((HEADER, forged),)) == "UNAUTHENTICATED CERTIFICATE_UNKNOWN"


@in_front_of_a_server
def test_identity_told_to_the_server_behind_needs_the_secret(guarded: Guarded) -> None:
    names = re.findall(rf"@(headrace-{os.getpid()}-[0-9a-f]+)$", Path("/proc/net/unix").read_text(), re.M)
    forged = ((HEADER, "0" * 64 + name_identity("reader").hex()),)
    found = set()
    for name in set(names):
        with grpc.insecure_channel(f"unix-abstract:{name}") as channel:
            found.add(guarded.outcome(channel, metadata=forged))
    assert "UNAUTHENTICATED TOKEN_REQUIRED" in found
    assert all(code.startswith(("UNAUTHENTICATED", "UNAVAILABLE")) for code in found), "or another test's, that is gone"


def test_entry_that_is_taken_out_ends_at_once_on_an_open_connection(guarded: Guarded) -> None:
    reader = guarded.authority.issue("reader")
    with guarded._channel(reader) as channel:
        assert guarded.outcome(channel) == "OK"
        write_tokens(guarded.tokens, *CERTIFICATES[1:])
        wait_until(lambda: guarded.outcome(channel) == "UNAUTHENTICATED CERTIFICATE_UNKNOWN")
        write_tokens(guarded.tokens, *CERTIFICATES)
        wait_until(lambda: guarded.outcome(channel) == "OK")


@in_front_of_a_server  # grpcio asks at the handshake alone
def test_certificate_that_runs_out_speaks_for_nobody(guarded: Guarded) -> None:
    brief = guarded.authority.issue("reader", life_s=3)
    with guarded._channel(brief) as channel:
        assert guarded.outcome(channel) == "OK"
        wait_until(lambda: guarded.outcome(channel) != "OK")
        assert guarded.outcome(channel).split()[0] in {"UNAUTHENTICATED", "UNAVAILABLE"}
