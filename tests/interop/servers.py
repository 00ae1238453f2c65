"""A loaded feature server that asks for tokens, on one transport and one kind of line."""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import yaml
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from feature_server.rpc.native_front import HAS_NATIVE
from headrace.client.tls import channel_credentials
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.integration.certificates import Authority
from tests.integration.test_server_life import Server, apply, registry, server, wait_until
from tests.unit.feature_server.parts import SERVICE, VIEW, ipc, shop_batch

READER, WRITER = "reader", "writer"
KEYS = range(200)
LIMIT_S = 20.0
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Target:
    """A server, and the file that tells a client where and how to call it."""

    running: Server
    config: Path


@contextmanager
def target(folder: Path, transport: str, line: str) -> Iterator[Target]:
    """The shop's 200 users behind tokens; `line` is plain or tls."""
    assert transport != "native" or HAS_NATIVE, (
        "no native loop: install libnghttp2-dev and libssl-dev, then `make build`"
    )
    options, credentials, authority = ["--transport", transport, "--loops", "2"], None, None
    if line == "tls":
        authority = Authority(folder)
        pair = authority.issue("server")
        options += ["--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)]
        credentials = channel_credentials(authority.file)
    tokens = folder / "tokens.yaml"
    tokens.write_text(token_file())
    with registry(folder / "registry") as address:
        apply(address)
        with server(folder / "store", address, "--tokens", str(tokens), *options, credentials=credentials) as running:
            wait_until(running.is_serving)
            fill(running)
            config = folder / "config.json"
            config.write_text(json.dumps(configuration(folder, running.address, authority)))
            yield Target(running, config)


def token_file() -> str:
    held = {READER: "FEATURE_READ", WRITER: "FEATURE_WRITE"}
    tokens = [
        {"sha256": hashlib.sha256(name.encode()).hexdigest(), "principal": name, "permissions": [permission]}
        for name, permission in held.items()
    ]
    return yaml.safe_dump({"tokens": tokens})


def fill(running: Server) -> None:
    request = pb.WriteFeaturesRequest(feature_view=VIEW, arrow_ipc=ipc(shop_batch(KEYS, time.time_ns() // 1_000)))
    metadata = (("authorization", f"Bearer {WRITER}"),)
    wait_until(lambda: is_written(running, request, metadata))


def is_written(running: Server, request: pb.WriteFeaturesRequest, metadata: tuple[tuple[str, str], ...]) -> bool:
    try:
        return running.stub.WriteFeatures(request, timeout=LIMIT_S, metadata=metadata).row_count == len(KEYS)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:  # the view has not come from the registry yet
            raise
        return False


def configuration(folder: Path, address: str, authority: Authority | None) -> dict[str, object]:
    descriptors = folder / "descriptors.binpb"
    descriptors.write_bytes(descriptor_set().SerializeToString())
    return {
        "address": address,
        "authority": str(authority.file) if authority else "",
        "descriptors": str(descriptors),
        "root": str(ROOT),
        "reader": READER,
        "writer": WRITER,
        "service": SERVICE,
        "view": VIEW,
        "now_s": int(time.time()),
    }


def descriptor_set() -> FileDescriptorSet:
    """The contract, and what gRPC's own health checks and error details are made of, after all that they import."""
    found: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for needed in file.dependencies:
            add(needed)
        found.setdefault(file.name, file)

    for module in (pb, health_pb2, status_pb2, error_details_pb2):
        add(module.DESCRIPTOR)
    out = FileDescriptorSet()
    for file in found.values():
        file.CopyToProto(out.file.add())
    return out
