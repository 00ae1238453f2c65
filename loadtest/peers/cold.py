"""p99 with data four times the memory: a server in 2 GiB, 8 GB of rows, direct reads, a new Zipf key in every call."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from loadtest.calls import READ_METHOD, Calls
from loadtest.dataset import SCENARIOS
from loadtest.peers import grpc_load, slo
from loadtest.peers.cgroup import limited
from loadtest.peers.grpc_load import Aim
from loadtest.peers.h2load import load_failed
from loadtest.peers.headrace_peer import HeadracePeer, Memory
from loadtest.peers.slo import Generator, Judged, Place
from loadtest.rows import SEED, ZipfKeys

MEMORY_BYTES: Final = 2 << 30
CACHES: Final = Memory(1 << 30, 256 << 20, 64 << 20, direct_reads=True)  # caches are 16 % of the data
USER_COUNT: Final = 7_400_000  # x 4 views x 276 bytes: 8.2 GB
GROUP: Final = "headrace-loadtest"
KEYS: Final = 16_000_000  # more calls than any window holds: no key comes again but by its popularity
KEYS_STEP: Final = 1_000_000  # drawn at once
WARM_S: Final = 60.0
SATURATION_S: Final = 20.0
ANSWER_BYTES_MIN: Final = 1_500  # 200 values with their statuses; an error has none


@dataclass(frozen=True, slots=True)
class Cold:
    """Sizes of the run; smaller ones try it out."""

    user_count: int = USER_COUNT
    memory_bytes: int = MEMORY_BYTES
    caches: Memory = CACHES
    key_count: int = KEYS
    warm_s: float = WARM_S


def measure(folder: Path, tools: Path, duration_s: float, sizes: Cold = Cold()) -> Judged:
    """Loads, restarts so that nothing is cached, warms by popularity, finds the saturation, and judges."""
    tool = grpc_load.program(tools)
    with ExitStack() as ending:
        limit = ending.enter_context(limited(GROUP, sizes.memory_bytes))
        loading = HeadracePeer(folder / "cold", sizes.caches, limit.command)
        try:
            loading.load(sizes.user_count)
        finally:
            loading.stop()
        peer = HeadracePeer(folder / "cold", sizes.caches, limit.command)
        ending.callback(peer.stop)
        aim = _aim(peer, folder / "cold", sizes, SEED)
        grpc_load.run(tool, aim, 0, sizes.warm_s)
        saturation = grpc_load.run(tool, aim, 0, SATURATION_S)
        if saturation.failed:
            raise load_failed(f"{saturation.failed} of {saturation.answered} cold reads failed")
        rate = max(1.0, saturation.rate * slo.SATURATION_SHARE - slo.JUDGE_RATE)
        place = Place(peer.features, sizes.user_count, folder)
        held = replace(_aim(peer, folder / "held", sizes, SEED + 1), connections=slo.HELD_CONNECTIONS)
        line = grpc_load.command(tool, held, rate, duration_s + slo.LOCUST_START_S)
        output = folder / "held.log"
        generator = Generator(line, output, output, lambda record, _: grpc_load.parse(record.read_text()).rate)
        return slo.judged(place, [generator], rate, duration_s)


def _aim(peer: HeadracePeer, stem: Path, sizes: Cold, seed: int) -> Aim:
    calls = Calls(SCENARIOS["1x200"], sizes.user_count, seed, peer.prepared.handle)
    body, keys = stem.with_suffix(".body"), stem.with_suffix(".keys")
    place = grpc_load.write_keyed_body(body, lambda key: calls.request(np.array([key], dtype=np.int64)))
    zipf = ZipfKeys(sizes.user_count, seed)
    with keys.open("wb") as file:
        for start in range(0, sizes.key_count, KEYS_STEP):
            file.write(zipf.draw(min(KEYS_STEP, sizes.key_count - start)).astype("<u4").tobytes())
    return Aim(peer.port, READ_METHOD, body, ANSWER_BYTES_MIN, keys=(keys, place))
