"""Rows per second of WriteFeatures with the row log on, beside the same server without it.

Claim: the log costs at most a fifth of the write path, a ratio of 0.8 or more.
Data: requests of 8,192 rows of 10 random f32 keyed by i64, at durability LOG, from two threads; each round has a server
and a folder of its own, and the two kinds take turns.
Command: python -m tests.bench.bench_row_log [--rounds 5] [--seconds 3]   (with the optimised cores: make build)
The figure is the median of the ratios of neighbouring rounds, with its spread. CPU is that of the server process.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import grpc
import numpy as np
import psutil
import pyarrow as pa

from headrace.client import RegistryClient
from headrace.definitions import (
    Column,
    DefinitionSet,
    Entity,
    EntityKey,
    Feature,
    FeatureView,
    Source,
    SourceKind,
    latest,
)
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as pb_grpc
from tests.cluster.processes import ServerProcess, wait_for
from tests.unit.feature_server.parts import ipc

ROWS: Final = 8_192
KEYS: Final = 500_000
THREADS: Final = 2
TIMEOUT_S: Final = 20.0
ROW_LOG_BYTES: Final = 4 << 30
TARGET: Final = 0.8
NAMES: Final = [f"f{number}" for number in range(10)]
VIEW: Final = "bench.log.numbers@v1"


def definitions() -> DefinitionSet:
    """One view of ten f32."""
    columns = [Column("item", "i64"), Column("event_time", "timestamp_us"), *(Column(name, "f32") for name in NAMES)]
    source = Source(name="bench.log.pushed", owner="bench", kind=SourceKind.PUSH, columns=columns)
    entity = Entity(name="bench.log.item", owner="bench", join_keys=[EntityKey("item", "i64")])
    features = [Feature(name, "f32", latest(name)) for name in NAMES]
    view = FeatureView(
        name=VIEW.partition("@")[0], owner="bench", entity=entity.name, source=source.name, features=features
    )
    return DefinitionSet(sources=[source], entities=[entity], feature_views=[view])


def requests_of(seed: int) -> list[pb.WriteFeaturesRequest]:
    """Some requests, sent again and again: later ones are stale only in their event time."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(16):
        times = np.full(ROWS, time.time_ns() // 1_000 - 1_000_000 + number)
        columns = {"item": pa.array(generator.integers(0, KEYS, ROWS)), "event_time": pa.array(times)}
        columns["event_time"] = columns["event_time"].cast(pa.timestamp("us", "UTC"))
        columns |= {name: pa.array(generator.random(ROWS, np.float32)) for name in NAMES}
        batch = pa.RecordBatch.from_pydict(columns)
        made.append(pb.WriteFeaturesRequest(feature_view=VIEW, arrow_ipc=ipc(batch), durability=pb.DURABILITY_LOG))
    return made


def measured(folder: Path, registry: str, options: Sequence[str], seconds: float) -> tuple[float, float]:
    """Rows per second, and microseconds of CPU of the server per row."""
    arguments = ["--data", str(folder / "store"), "--port", "0", "--registry", registry, *options]
    server = ServerProcess("feature_server.app", arguments, folder / "server.log")
    server.launch()
    port = server.wait_listening()
    wait_for(lambda: server.event("registry_served"), TIMEOUT_S, server.tail)
    counts = [0] * THREADS

    def write(index: int) -> None:
        made = requests_of(index)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = pb_grpc.OnlineFeatureServiceStub(channel)
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                stub.WriteFeatures(made[counts[index] % len(made)], timeout=TIMEOUT_S)
                counts[index] += 1

    before = psutil.Process(server.pid).cpu_times()
    began_s = time.monotonic()
    threads = [threading.Thread(target=write, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed_s = time.monotonic() - began_s
    after = psutil.Process(server.pid).cpu_times()
    server.kill()
    cpu_s = after.user + after.system - before.user - before.system
    row_count = sum(counts) * ROWS
    return row_count / elapsed_s, cpu_s / row_count * 1e6


def main() -> int:
    """Prints the rounds and a JSON line; exit code 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    ratios, cpu_ratios = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        control = ServerProcess("control_plane.app", ["--data", str(folder / "c"), "--port", "0"], folder / "c.log")
        control.launch()
        registry = f"127.0.0.1:{control.wait_listening()}"
        with RegistryClient(registry) as client:
            client.apply(definitions())
        for number in range(options.rounds):
            figures = []
            for kind in ([], ["--row-log-bytes", str(ROW_LOG_BYTES)]):
                place = folder / f"{number}-{len(kind)}"
                place.mkdir()
                figures.append(measured(place, registry, kind, options.seconds))
            (without, cpu_without), (with_log, cpu_with) = figures
            ratios.append(with_log / without)
            cpu_ratios.append(cpu_with / cpu_without)
            sys.stdout.write(
                f"{without:,.0f} rows/s without, {with_log:,.0f} with; {cpu_without:.2f}, {cpu_with:.2f} us of CPU\n"
            )
        control.stop()
    ratio = statistics.median(ratios)
    figure = {"value": round(ratio, 3), "target": TARGET, "rounds": [round(each, 3) for each in ratios]}
    document = {"row_log_write_ratio": figure, "cpu_ratio": round(statistics.median(cpu_ratios), 3)}
    sys.stdout.write(json.dumps(document) + "\n")
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
