"""Clients, the command line and the two servers with one another, all over TLS."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import yaml

from control_plane import app as control_plane
from headrace.client import AsyncClient, Client, RegistryClient, Tls
from headrace.errors import InvalidArgument, PermissionDenied, Unavailable
from headrace.serving.logging import EventLog
from tests.integration.certificates import Authority
from tests.integration.platforms import headrace
from tests.integration.test_server_life import server, wait_until
from tests.unit.feature_server.parts import SERVICE, VIEW, shop_batch, shop_definitions

GRANTS = {
    "admin": ["FEATURE_READ", "FEATURE_WRITE", "REGISTRY_READ", "REGISTRY_WRITE"],
    "features": ["REGISTRY_READ"],
    "reader": ["FEATURE_READ", "REGISTRY_READ"],
}


@dataclass
class Platform:
    """Addresses, and what each caller shows."""

    control: str
    features: str
    shown: dict[str, Tls]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    authority, tokens = Authority(folder), folder / "tokens.yaml"
    entries = [{"name": name, "principal": name, "permissions": held} for name, held in GRANTS.items()]
    tokens.write_text(yaml.safe_dump({"certificates": entries}))
    pair = authority.issue("server")
    guard = ["--tls-cert", str(pair.certificate), "--tls-key", str(pair.key), "--tokens", str(tokens)]
    guard += ["--tls-client-ca", str(authority.file)]
    pairs = {name: authority.issue(name) for name in GRANTS}
    shown = {name: Tls(authority.file, held.certificate, held.key) for name, held in pairs.items()}
    options = control_plane._options(["--data", str(folder / "registry"), *guard])
    with control_plane.running(options, EventLog("control_plane", time.time, (folder / "log").open("w"))) as port:
        control = f"127.0.0.1:{port}"
        with RegistryClient(control, tls=shown["admin"]) as client:
            client.apply(shop_definitions())
        own = pairs["features"]
        follow = ["--registry-ca", str(authority.file), "--registry-cert", str(own.certificate)]
        follow += ["--registry-key", str(own.key)]
        with server(folder / "store", control, *guard, *follow) as running:
            wait_until(lambda: running.has_event("registry_served"))
            yield Platform(control, running.address, shown)


def test_clients_read_and_write_by_their_certificates(platform: Platform) -> None:
    with Client(platform.features, tls=platform.shown["admin"]) as client:
        assert client.write_features(VIEW, shop_batch([1, 2], time.time_ns() // 1_000)).row_count == 2
    with Client(platform.features, tls=platform.shown["reader"]) as client:
        assert client.get_online_features(SERVICE, entities={"user_id": [1, 2, 3]}).row_count == 3
        with pytest.raises(PermissionDenied):
            client.write_features(VIEW, shop_batch([1], 1))

    async def read() -> int:
        async with AsyncClient(platform.features, tls=platform.shown["reader"]) as client:
            return (await client.get_online_features(SERVICE, entities={"user_id": [1]})).row_count

    assert asyncio.run(read()) == 1


def test_client_that_does_not_trust_the_server_says_so(platform: Platform, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other").file
    for tls in (None, str(other)):
        with Client(platform.features, tls=tls) as client, pytest.raises(Unavailable):
            client.get_online_features(SERVICE, entities={"user_id": [1]}, timeout_s=1)


def test_tls_that_names_no_files_or_half_a_pair_is_refused(platform: Platform, tmp_path: Path) -> None:
    good = platform.shown["reader"]
    with pytest.raises(InvalidArgument, match="cannot be read"):
        Client(platform.features, tls=tmp_path / "none")
    with pytest.raises(InvalidArgument, match="go together"):
        Client(platform.features, tls=Tls(good.ca, good.certificate))
    with pytest.raises(InvalidArgument, match="one of them"):
        Client(platform.features, tls=good, credentials=grpc.ssl_channel_credentials())


def test_command_line_shows_a_certificate(platform: Platform, tmp_path: Path) -> None:
    reader = platform.shown["reader"]
    words = ["--tls-ca", str(reader.ca), "--tls-cert", str(reader.certificate), "--tls-key", str(reader.key)]
    endpoint = ("--endpoint", f"control={platform.control},features={platform.features}", "-o", "json")
    read = headrace(*words, "read", SERVICE, "--entity", "user_id=1", *endpoint, cwd=tmp_path)
    assert read.returncode == 0, read.stderr
    assert json.loads(read.stdout)
    listed = headrace("list", "entity", *endpoint, cwd=tmp_path, HEADRACE_TLS_CA=str(reader.ca))
    assert listed.returncode == 1, "the control plane runs on grpcio, which wants a certificate"
    alone = headrace("--tls-cert", str(reader.certificate), "list", "entity", *endpoint, cwd=tmp_path)
    assert "authority" in alone.stderr


def test_control_plane_refuses_a_caller_without_the_right(platform: Platform) -> None:
    with RegistryClient(platform.control, tls=platform.shown["reader"]) as client, pytest.raises(PermissionDenied):
        client.apply(shop_definitions())
