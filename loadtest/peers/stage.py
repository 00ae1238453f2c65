"""The sides of a comparison, started together and ended together; loaded peers are kept between runs."""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtest.peers import feast_peer
from loadtest.peers.empty_grpcio import METHOD
from loadtest.peers.feast_peer import FeastServer, FeastWorker
from loadtest.peers.h2load import Target, grpc_target
from loadtest.peers.headrace_peer import HeadracePeer, Memory
from loadtest.peers.plane_server import PlaneServer, telemetry_words
from loadtest.peers.processes import ROOT, Child, free_port, listens
from loadtest.peers.redis_peer import RedisPeer
from loadtest.peers.scale import Scale
from loadtest.rows import SEED

CACHE: Final = ROOT / ".cache" / "peers"
BLOCK_CACHE_BYTES: Final = 64 << 20  # the server's defaults, stated so that they stand in the result
WRITE_BUFFER_BYTES: Final = 64 << 20
CACHE_VERSION: Final = 1  # raise it when what is loaded changes
Say = Callable[[str], None]


@dataclass(slots=True)
class Stage:
    """Every side, running and loaded."""

    scale: Scale
    folder: Path
    headrace: HeadracePeer
    grpcio: HeadracePeer
    plane: PlaneServer
    redis: RedisPeer
    feast: FeastServer
    sdk: FeastWorker
    empty: Child
    empty_port: int

    def empty_target(self) -> Target:
        """The empty call."""
        return grpc_target(self.empty_port, METHOD, b"\0" * 64, self.folder / "empty.body")


def prepare(scale: Scale, say: Say) -> Path:
    """Installs Feast and loads Redis where the cache does not hold them; returns the cache folder of the scale."""
    if not feast_peer.ready():
        say("installing Feast into .venvs/feast, about a minute")
        feast_peer.install()
    folder = CACHE / scale.name
    mark = folder / "loaded.json"
    wanted: dict[str, object] = {"version": CACHE_VERSION, "seed": SEED, "entities": scale.compared_entities}
    wanted |= {"feast": feast_peer.lock_digest()}
    if mark.exists() and json.loads(mark.read_text()) == wanted:
        return folder
    say(f"loading {scale.compared_entities} entities into Redis and Feast, once; kept in .cache/peers")
    shutil.rmtree(folder, ignore_errors=True)
    redis = RedisPeer(folder / "redis", free_port())
    try:
        redis.load_blobs(scale.compared_entities)
        redis.load_hashes(scale.compared_entities)
        worker = FeastWorker(folder / "feast", redis.port)
        try:
            worker.load(scale.compared_entities)
        finally:
            worker.stop()
        redis.save()
    finally:
        redis.child.stop()
    mark.write_text(json.dumps(wanted))
    return folder


def start(scale: Scale, cached: Path, ending: ExitStack) -> Stage:
    """Starts every side on loopback; `ending` stops them, whatever happens."""
    folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="headrace-peers-")))
    empty, empty_port = start_empty(folder, ending)
    with ThreadPoolExecutor(3) as pool:
        ours = pool.submit(_start_headrace, scale, folder, empty_port, ending)
        fallback = pool.submit(_start_grpcio, scale, folder, empty_port, ending)
        plane = pool.submit(_start_plane, scale, folder, empty_port, ending)
        redis = RedisPeer(cached / "redis", free_port())
        ending.callback(redis.child.stop)
        feast = FeastServer(_feast_folder(cached, folder, "server", redis.port), free_port())
        ending.callback(feast.stop)
        sdk = FeastWorker(_feast_folder(cached, folder, "sdk", redis.port), redis.port)
        ending.callback(sdk.stop)
        headrace, grpcio = ours.result(), fallback.result()
        feast.wait()
        sdk.wait()
    return Stage(scale, folder, headrace, grpcio, plane.result(), redis, feast, sdk, empty, empty_port)


def start_empty(folder: Path, ending: ExitStack) -> tuple[Child, int]:
    """The empty server in the interpreter of ours."""
    port = free_port()
    command = [sys.executable, "-m", "loadtest.peers.empty_grpcio", "--port", str(port)]
    child = ending.enter_context(Child(command, folder / "empty.log", cwd=ROOT))
    child.wait_until(lambda: listens(port), "the empty server")
    return child, port


def _start_headrace(scale: Scale, folder: Path, collector_port: int, ending: ExitStack) -> HeadracePeer:
    """With telemetry, as the server of one loop has it that its CPU is compared with."""
    memory = Memory(scale.table_bytes, BLOCK_CACHE_BYTES, WRITE_BUFFER_BYTES)
    peer = HeadracePeer(folder / "headrace", memory, lambda line: [*line, *telemetry_words(collector_port)])
    ending.callback(peer.stop)
    peer.load(scale.entities)
    return peer


def _start_grpcio(scale: Scale, folder: Path, collector_port: int, ending: ExitStack) -> HeadracePeer:
    """The same server without the native loop, with the rows that are compared."""
    words = ["--transport", "grpcio", *telemetry_words(collector_port)]
    memory = Memory(scale.table_bytes, BLOCK_CACHE_BYTES, WRITE_BUFFER_BYTES)
    peer = HeadracePeer(folder / "grpcio", memory, lambda line: [*line, *words])
    ending.callback(peer.stop)
    peer.load(scale.compared_entities)
    return peer


def _start_plane(scale: Scale, folder: Path, collector_port: int, ending: ExitStack) -> PlaneServer:
    """The empty server takes the telemetry's calls and refuses them."""
    memory = Memory(scale.table_bytes, BLOCK_CACHE_BYTES, WRITE_BUFFER_BYTES)
    server = PlaneServer(folder / "plane", memory, scale.compared_entities, collector_port)
    ending.callback(server.peer.stop)
    return server


def _feast_folder(cached: Path, folder: Path, name: str, redis_port: int) -> Path:
    """A copy of the loaded repository with this run's Redis port; each process writes its own settings."""
    out = folder / f"feast-{name}"
    shutil.copytree(cached / "feast", out)
    settings = out / "feature_store.yaml"
    settings.write_text(feast_peer.with_port(settings.read_text(), redis_port))
    return out
