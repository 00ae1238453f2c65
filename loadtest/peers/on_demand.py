"""Server CPU of a read of 1 entity x 50 on-demand features on the native transport; the last line is JSON.

Every feature reads two stored f32 of one view and one of two request fields. h2load repeats one body, its answer
checked value by value first; the read of the same 50 stored features by turns shows what computing adds.
Command: python -m loadtest.peers.on_demand [--quick]
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import grpc
import numpy as np
from numpy.typing import NDArray

from headrace.client import RegistryClient
from headrace.client.calls import READ_DEFAULTS, read_call
from headrace.definitions import (
    DefinitionSet,
    Feature,
    FeatureService,
    OnDemandView,
    RequestSource,
    ServiceEntry,
    derived,
)
from headrace.errors import HeadraceError
from loadtest.calls import READ_METHOD
from loadtest.dataset import OWNER, USER_VIEWS
from loadtest.peers import h2load
from loadtest.peers.h2load import Amount, Target, grpc_target
from loadtest.peers.headrace_peer import CALL_S, HeadracePeer, Memory
from loadtest.peers.processes import ROOT, start_failed
from loadtest.peers.result import Figure, Report, commit, machine
from loadtest.peers.rounds import alternate
from loadtest.rows import values

RESULT: Final = ROOT / "loadtest" / "results" / "on_demand.json"
VIEW: Final = USER_VIEWS[0]
ON_DEMAND: Final = "bench.online.trip"
SERVICE: Final = "bench.online.trip_50"
STORED: Final = "bench.online.stored_50"
FEATURES: Final = 50
ENTITIES: Final = 1_000
USER: Final = 7
DATA: Final = {"distance": 12.5, "price": 0.75}
TARGET_US: Final = 60.0
MEMORY: Final = Memory(table_bytes=64 << 20, block_cache_bytes=8 << 20, write_buffer_bytes=8 << 20)
Rounds = Mapping[str, list[float]]


def definitions() -> DefinitionSet:
    """The on-demand view, its service, and a service of the stored features."""
    names = VIEW.features
    features = []
    for number in range(FEATURES):
        field, other = list(DATA)[number % len(DATA)], names[(number + 7) % FEATURES]
        features.append(Feature(f"c{number:02d}", "f64", derived(f"({names[number]} + {other}) * {field} / 2.0")))
    request = RequestSource("trip", dict.fromkeys(DATA, "f64"))
    view = OnDemandView(ON_DEMAND, owner=OWNER, sources=[f"{VIEW.name}@v1", request], features=features)
    services = [
        FeatureService(name, owner=OWNER, entries=[ServiceEntry(source)])
        for name, source in ((SERVICE, ON_DEMAND), (STORED, VIEW.name))
    ]
    return DefinitionSet(on_demand_views=[view], feature_services=services)


def expected() -> NDArray[np.float64]:
    """What the server must answer."""
    row = values(VIEW.index, np.array([USER]), FEATURES)[0].astype(np.float64)
    data = np.array([list(DATA.values())[number % len(DATA)] for number in range(FEATURES)])
    found: NDArray[np.float64] = (row + np.roll(row, -7)) * data / 2.0
    return found


def target(peer: HeadracePeer, service: str, folder: Path) -> Target:
    """The read of one user by handle, its answer checked."""
    prepared = peer.client.prepare(service, timeout_s=CALL_S)
    data = {name: [value] for name, value in DATA.items()} if prepared.request_fields else None
    call = read_call(prepared, (), {"user_id": [USER]}, READ_DEFAULTS, data)
    with grpc.insecure_channel(peer.features) as channel:
        read: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(READ_METHOD)
        batch = call.decode(read(call.request, timeout=CALL_S))
    if service == SERVICE and [batch.numpy(name)[0] for name in batch.columns] != expected().tolist():
        raise start_failed("the feature server computes other values than numpy")
    return grpc_target(peer.port, READ_METHOD, call.request, folder / service)


def started(folder: Path, ending: ExitStack) -> HeadracePeer:
    """A server that serves the definitions, its rows in the table."""
    peer = HeadracePeer(folder / "headrace", MEMORY)
    ending.callback(peer.stop)
    peer.load(ENTITIES, (VIEW,))
    with RegistryClient(peer.control) as registry:
        registry.apply(definitions())

    def serves() -> bool:
        try:
            peer.client.prepare(SERVICE, timeout_s=CALL_S)
        except HeadraceError:  # the registry's revision has not reached the server yet
            return False
        return True

    peer.child.wait_until(serves, "the on-demand definitions")
    return peer


def measured(peer: HeadracePeer, folder: Path, calls: int, rounds: int) -> Rounds:
    """CPU microseconds of the feature server a call, round by round."""
    targets = {"on_demand": target(peer, SERVICE, folder), "stored": target(peer, STORED, folder)}

    def spent(name: str) -> Mapping[str, float]:
        before = peer.server_usage().cpu_s
        load = h2load.run(targets[name], Amount(requests=calls))
        return {f"{name}_us": (peer.server_usage().cpu_s - before) / load.requests * 1e6, f"{name}_rps": load.rate}

    return alternate({name: lambda number, name=name: spent(name) for name in targets}, rounds)  # type: ignore[misc]


def main() -> int:
    """Prints the figures; 1 where one is off its target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="5 rounds of 20,000 calls; else 9 of 100,000")
    quick = parser.parse_args().quick
    calls, rounds = (20_000, 5) if quick else (100_000, 9)
    with tempfile.TemporaryDirectory(prefix="headrace-on-demand-") as folder, ExitStack() as ending:
        peer = started(Path(folder), ending)
        found = measured(peer, Path(folder), calls, rounds)
    report = Report("on_demand", {"calls": calls, "features": FEATURES}, figures(found), commit(ROOT), machine())
    if not quick:
        RESULT.write_text(report.to_json() + "\n")
    sys.stdout.write(report.to_json() + "\n")
    return 0 if report.ok else 1


def figures(found: Rounds) -> tuple[Figure, ...]:
    """The figures with their target."""
    bound, note = "none: a bound", "CPU of the feature server on its native transport, HTTP/2 included"
    return (
        Figure("native_cpu_us_1x50_on_demand", tuple(found["on_demand_us"]), "lower", "us", bound, TARGET_US, note),
        Figure("native_rps_1x50_on_demand", tuple(found["on_demand_rps"]), "higher", "1/s", bound),
        Figure("native_cpu_us_1x50_stored", tuple(found["stored_us"]), "lower", "us", bound, None, "the same without"),
    )


if __name__ == "__main__":
    sys.exit(main())
