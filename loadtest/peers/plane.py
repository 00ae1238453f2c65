"""What the native data plane does with one core, beside Redis and nghttpd on one core, and what its options cost.

For rates, CPU and tails the server, of one loop, stays on one core and its load generator on another, as for every
peer: two loops on one core would wait for each other's time slices.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from loadtest.calls import READ_METHOD, ROWS_METHOD, Calls
from loadtest.dataset import SCENARIOS
from loadtest.peers import grpc_load, h2load, plane_data, redis_peer
from loadtest.peers.aims import figure
from loadtest.peers.cores import one_core_each
from loadtest.peers.grpc_load import Aim
from loadtest.peers.h2load import GRPC_PREFIX, Amount, Target
from loadtest.peers.headrace_peer import HeadracePeer
from loadtest.peers.processes import LOOPBACK, Child, free_port, listens, start_failed, usage
from loadtest.peers.result import Figure, percentile, ratios
from loadtest.peers.rounds import Measure, alternate
from loadtest.peers.stage import CACHE, Stage
from loadtest.rows import SEED

BODIES: Final = 2_000  # of one generator's run
NARROW_KEYS: Final = 1_000
FRAME_CALLS: Final = 30
HMGET_SHARE: Final = 10  # calls of ours for one HMGET, which takes as much longer
WIDE_SHARE: Final = 4
NARROW_SHARE: Final = 20
SATURATION_SHARE: Final = 0.4  # of a window, to find what the server can do at most
WIDE_LOAD, TAIL_LOAD = 0.5, 0.7  # of saturation
FEW_BYTES: Final = 100  # an answer of any of these reads has more, an error has none
CHECKED_KEYS: Final = 100
PEER_ROWS_BYTES_MIN: Final = 4 * 200  # of four whole rows; rows that are not there have none

Rounds = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Plane:
    """The sides of one measurement."""

    stage: Stage
    tool: Path
    nghttpd: Child
    nghttpd_port: int


def measure(stage: Stage) -> list[Figure]:
    """Every figure of the data plane; the server of `stage.plane` speaks TLS afterwards."""
    found: Rounds = {}
    stage.redis.load_narrow(stage.plane.user_count)
    with ExitStack() as ending:
        nghttpd, port = _nghttpd(stage, ending)
        plane = Plane(stage, grpc_load.program(CACHE), nghttpd, port)
        found |= alternate(_plain_sides(plane), stage.scale.rounds)
    with stage.plane.over_tls() as server:
        folder, calls = stage.folder, stage.scale.plane_calls

        def tls(number: int) -> Mapping[str, float]:
            target = server.full_target(number, folder / "full-tls.body")
            return _rate_and_cpu("full_tls", target, server.child.pid, calls)

        found |= alternate({"tls": tls, "redis": lambda _: _redis_get(stage, "tls")}, stage.scale.rounds)
    return figures(found)


def figures(found: Rounds) -> list[Figure]:
    """Figures with targets, and every measured number as information."""
    get = found["core_redis_get_rps"]
    out = [
        figure("native_rps_1x200_vs_redis_get", ratios(found["core_headrace_rps"], get)),
        figure("native_rps_1x200_vs_redis_hmget", ratios(found["core_headrace_rps"], found["core_redis_hmget_rps"])),
        figure("native_rps_vs_nghttpd", ratios(found["core_headrace_rps"], found["core_nghttpd_rps"])),
        figure("native_cpu_us_100x200", found["core_wide_cpu_us"]),
        figure("native_p99_ms_100x200_at_50pct", found["wide_at_50pct_p99_ms"]),
        figure("native_p999_vs_p50_at_70pct", ratios(found["at_70pct_p999_ms"], found["at_70pct_p50_ms"])),
        figure("native_cpu_2_loops_vs_1", ratios(found["loops_2_cpu_us"], found["loops_1_cpu_us"])),
        figure("native_p50_1000x10_vs_redis_mget", ratios(found["narrow_p50_ms"], found["redis_narrow_p50_ms"])),
        figure("native_frame_1000x10_vs_redis_mget", ratios(found["narrow_frame_ms"], found["redis_narrow_frame_ms"])),
        figure("native_cpu_us_full", found["core_full_cpu_us"]),
        figure("native_cpu_us_full_tls", found["core_full_tls_cpu_us"]),
        figure("native_rps_full_vs_redis_get", ratios(found["core_full_rps"], get)),
        figure("native_rps_full_tls_vs_redis_get", ratios(found["core_full_tls_rps"], found["tls_redis_get_rps"])),
        figure("native_peer_rows_p50_ms", found["peer_rows_p50_ms"]),
        figure("native_cpu_us_windowed", found["core_windowed_cpu_us"]),
    ]
    units = {"rps": "requests/s", "us": "us of CPU", "ms": "ms"}
    for name, rounds in found.items():
        unit = units[name.rpartition("_")[2]]
        out.append(Figure(name, tuple(rounds), "higher" if unit == "requests/s" else "lower", unit, "measured"))
    return out


def _plain_sides(plane: Plane) -> dict[str, Measure]:
    stage, calls = plane.stage, plane.stage.scale.plane_calls
    server, folder = stage.plane, stage.folder

    def target(number: int, shape: str = "1x200") -> Target:
        body = folder / f"plane-{shape}.body"
        return server.peer.target(shape, stage.scale.compared_entities, SEED + number, body)

    def headrace(number: int) -> Mapping[str, float]:
        return _rate_and_cpu("headrace", target(number), server.peer.child.pid, calls)

    def nghttpd(number: int) -> Mapping[str, float]:
        same = target(number)
        url = f"http://{LOOPBACK}:{plane.nghttpd_port}/answer"
        return _rate_and_cpu("nghttpd", Target(url, same.body, same.headers), plane.nghttpd.pid, calls)

    def wide(number: int) -> Mapping[str, float]:
        found = _rate_and_cpu("wide", target(number, "100x200"), server.peer.child.pid, calls // WIDE_SHARE)
        return found | _at_load(plane, "wide_at_50pct", "100x200", WIDE_LOAD, number)

    def full(number: int) -> Mapping[str, float]:
        return _rate_and_cpu("full", server.full_target(number, folder / "full.body"), server.peer.child.pid, calls)

    def windowed(number: int) -> Mapping[str, float]:
        aim = server.windowed_target(number, folder / "windowed.body")
        return _rate_and_cpu("windowed", aim, server.peer.child.pid, calls // WIDE_SHARE)

    return {
        "headrace": headrace,
        "nghttpd": nghttpd,
        "redis": lambda _: {**_redis_get(stage, "core"), **_redis_hmget(stage)},
        "full": full,
        "windowed": windowed,
        "wide": wide,
        "tail": lambda number: _at_load(plane, "at_70pct", "1x200", TAIL_LOAD, number),
        "loops": lambda number: _loops(plane, number),
        "narrow": lambda number: _narrow(plane, number),
        "peer": lambda number: _peer_rows(plane, number),
    }


def _rate_and_cpu(name: str, target: Target, pid: int, calls: int) -> dict[str, float]:
    """Requests a second of one core, and the server's microseconds of CPU for each."""
    with one_core_each(pid):
        before = usage(pid, with_children=False)
        load = h2load.run(target, Amount(requests=calls), logged=False)
        spent_s = usage(pid, with_children=False).cpu_s - before.cpu_s
    return {f"core_{name}_rps": load.rate, f"core_{name}_cpu_us": spent_s / calls * 1e6}


def _redis_get(stage: Stage, prefix: str) -> dict[str, float]:
    command = redis_peer.get_command(1)
    with one_core_each(stage.redis.child.pid):
        rate, _ = stage.redis.benchmark(command, stage.scale.plane_calls, stage.scale.compared_entities)
    return {f"{prefix}_redis_get_rps": rate}


def _redis_hmget(stage: Stage) -> dict[str, float]:
    calls = stage.scale.plane_calls // HMGET_SHARE
    with one_core_each(stage.redis.child.pid):
        rate, _ = stage.redis.benchmark(redis_peer.hmget_command(), calls, stage.scale.compared_entities)
    return {"core_redis_hmget_rps": rate}


def _at_load(plane: Plane, name: str, shape: str, share: float, number: int) -> dict[str, float]:
    """Latencies at a share of the rate that one core can answer, calls due at fixed times, a new body for each."""
    stage, peer = plane.stage, plane.stage.plane.peer
    aim = _bodies(plane, peer, shape, number)
    with one_core_each(peer.child.pid):
        most = _run(plane, aim, 0, stage.scale.plane_span_s * SATURATION_SHARE)
        held = _run(plane, aim, most.rate * share, stage.scale.plane_span_s)
    return {
        f"{name}_p50_ms": held.p50_us / 1_000,
        f"{name}_p99_ms": held.p99_us / 1_000,
        f"{name}_p999_ms": held.p999_us / 1_000,
        f"{name}_rps": held.rate,
    }


def _run(plane: Plane, aim: Aim, rate: float, duration_s: float) -> grpc_load.Answers:
    found = grpc_load.run(plane.tool, aim, rate, duration_s)
    if found.failed or not found.answered:
        raise h2load.load_failed(f"{found.failed} of {found.failed + found.answered} reads failed")
    return found


def _bodies(plane: Plane, peer: HeadracePeer, shape: str, number: int) -> Aim:
    calls = Calls(SCENARIOS[shape], plane.stage.scale.compared_entities, SEED + number, peer.prepared.handle)
    path = plane.stage.folder / f"plane-{shape}.bodies"
    count = BODIES // SCENARIOS[shape].row_count + 1
    grpc_load.write_bodies(path, (request for _, request in calls.stream(count)))
    return Aim(peer.port, READ_METHOD, path, FEW_BYTES)


def _loops(plane: Plane, number: int) -> dict[str, float]:
    """CPU of a read with two loops and with one, under the same load on all cores."""
    found = {}
    for name, peer in (("loops_2", plane.stage.headrace), ("loops_1", plane.stage.plane.peer)):
        aim = _bodies(plane, peer, "1x200", number)
        before = usage(peer.child.pid, with_children=False)
        answers = _run(plane, aim, 0, plane.stage.scale.plane_span_s)
        spent_s = usage(peer.child.pid, with_children=False).cpu_s - before.cpu_s
        found[f"{name}_cpu_us"] = spent_s / answers.answered * 1e6
    return found


def _narrow(plane: Plane, number: int) -> dict[str, float]:
    """A thousand random keys of ten values, one call at a time: to the last byte in C, to a data frame in Python."""
    stage, server = plane.stage, plane.stage.plane
    random = np.random.default_rng(SEED + number)
    calls = stage.scale.plane_calls // NARROW_SHARE
    batches = [random.choice(server.user_count, NARROW_KEYS, replace=False) for _ in range(FRAME_CALLS)]
    path = stage.folder / "narrow.bodies"
    grpc_load.write_bodies(path, (server.narrow_request(keys.tolist()) for keys in batches))
    aim = Aim(server.peer.port, READ_METHOD, path, NARROW_KEYS * plane_data.NARROW_FEATURES * 4, connections=1)
    with one_core_each(server.peer.child.pid):
        ours = _run(plane, aim, 0, stage.scale.plane_span_s)
    with one_core_each(stage.redis.child.pid):
        _, theirs_ms = stage.redis.benchmark(redis_peer.narrow_command(NARROW_KEYS), calls, server.user_count, 1)
    return {
        "narrow_p50_ms": ours.p50_us / 1_000,
        "redis_narrow_p50_ms": theirs_ms,
        "narrow_frame_ms": _frame_ms(plane, batches),
        "redis_narrow_frame_ms": _redis_frame_ms(stage, [keys.tolist() for keys in batches]),
    }


def _peer_rows(plane: Plane, number: int) -> dict[str, float]:
    """What a sub-request adds: rows that another server asks for, one call at a time on a connection that stays."""
    stage, peer = plane.stage, plane.stage.plane.peer
    users = np.random.default_rng(SEED + number).choice(stage.scale.compared_entities, BODIES).tolist()
    path = stage.folder / "peer.bodies"
    ids = peer.row_ids()
    grpc_load.write_bodies(path, (ids.request(user) for user in users))
    aim = Aim(peer.port, ROWS_METHOD, path, PEER_ROWS_BYTES_MIN, connections=1)
    peer.read(users)  # from here on every row is in the table
    with one_core_each(peer.child.pid):
        found = _run(plane, aim, 0, stage.scale.plane_span_s)
    return {"peer_rows_p50_ms": found.p50_us / 1_000, "peer_rows_p99_ms": found.p99_us / 1_000}


def _frame_ms(plane: Plane, batches: Sequence[np.typing.NDArray[np.int64]]) -> float:
    server = plane.stage.plane
    client, prepared = server.peer.client, server.prepared[next(reversed(plane_data.SERVICES))]
    spans = []
    for keys in batches:
        began = time.perf_counter()
        frame = client.get_online_features(prepared, entities={"user_id": keys}).to_pandas()
        spans.append(time.perf_counter() - began)
        if not np.array_equal(frame.to_numpy()[:CHECKED_KEYS], plane_data.narrow_values(keys[:CHECKED_KEYS])):
            raise start_failed("the frame of ten features has other values than those written")
    return percentile(spans, 0.5) * 1_000


def _redis_frame_ms(stage: Stage, batches: list[list[int]]) -> float:
    spans, first = stage.sdk.frame_s(stage.redis.port, batches, plane_data.NARROW_FEATURES)
    expected = plane_data.narrow_values(np.array(batches[-1][:1], dtype=np.int64))[0]
    if not np.array_equal(np.array(first, dtype=np.float32), expected):
        raise start_failed(f"Redis answers {first} for a row of ten values")
    return percentile(spans, 0.5) * 1_000


def _nghttpd(stage: Stage, ending: ExitStack) -> tuple[Child, int]:
    """One thread of nghttpd with a file as long as the gRPC answer of 1x200."""
    if shutil.which("nghttpd") is None:
        raise start_failed("nghttpd is not installed: install Debian's nghttp2-server")
    folder = stage.folder / "nghttpd"
    folder.mkdir()
    sized = stage.plane.peer.answer_bytes("1x200", stage.scale.compared_entities, SEED)
    (folder / "answer").write_bytes(bytes(sized + GRPC_PREFIX.size))
    port = free_port()
    command = ["nghttpd", "--no-tls", "-n", "1", "-d", str(folder), str(port)]
    child = ending.enter_context(Child(command, folder / "log"))
    child.wait_until(lambda: listens(port), "nghttpd")
    return child, port
