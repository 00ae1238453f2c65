"""What each side measures in one round."""

import random
import time
from collections.abc import Mapping
from statistics import harmonic_mean, mean
from typing import Final

from loadtest.calls import Calls
from loadtest.dataset import SCENARIOS, WRITE_VIEW
from loadtest.loading import write_requests
from loadtest.peers import h2load, redis_peer
from loadtest.peers.feast_peer import READ_PATH, read_message
from loadtest.peers.h2load import CONNECTIONS, Amount, Target
from loadtest.peers.headrace_peer import HeadracePeer
from loadtest.peers.processes import usage
from loadtest.peers.result import percentile
from loadtest.peers.rounds import Measure
from loadtest.peers.stage import Stage
from loadtest.rows import EVENT_TIME_US, SEED

ANSWER_SHARE_MIN: Final = 0.98  # of the checked answer's size; an error answer is far smaller
WRITE_KEYS_FIRST: Final = 100_000_000  # new keys lie above every loaded one
WRITE_STEP_US: Final = 1_000_000  # each round's rows are this much later than those before
BLOCKS: Final = 4
NATIVE_SHARE: Final = 8  # calls of the native loop for one of grpcio, so that both are measured for about as long
GET_REQUESTS: Final = 10_000
FEAST_REQUESTS: Final = 800
HMGET_REQUESTS: Final = 1_000


def read_sides(stage: Stage, shape: str) -> dict[str, Measure]:
    """Requests a second of every server at one shape; at 1x200 also CPU, and Redis as information."""
    first = {"headrace": lambda number: _headrace(stage, shape, number)}
    if shape == "1x200":
        first = {"headrace_and_empty": lambda number: _headrace_and_empty(stage, number)}
    return {
        **first,
        "feast_server": lambda number: _feast(stage, shape, number, precomputed=False),
        "feast_precomputed": lambda number: _feast(stage, shape, number, precomputed=True),
        "redis": lambda number: _redis(stage, shape),
    }


def sdk_sides(stage: Stage) -> dict[str, Measure]:
    """p50 in ms of a batch of 100 entities in a Python process, values in hand; each batch is read once before."""
    return {
        "feast_sdk": lambda number: {"feast_sdk_p50_ms": _feast_sdk_ms(stage, number)},
        "client": lambda number: {"client_p50_ms": _client_ms(stage, number)},
    }


def write_sides(stage: Stage) -> dict[str, Measure]:
    """Rows a second of 50 features each: new keys, then the same keys with later events."""
    return {"headrace": lambda number: _write(stage, number), "feast": lambda number: _feast_write(stage, number)}


def _headrace(stage: Stage, shape: str, number: int) -> Mapping[str, float]:
    load, _ = _spent(_headrace_target(stage, shape, number), stage.headrace.child.pid, stage.scale.calls // 4)
    return {f"headrace_rps_{shape}": load.rate, f"headrace_p99_ms_{shape}": percentile(load.latencies_us, 0.99) / 1000}


def _headrace_and_empty(stage: Stage, number: int) -> Mapping[str, float]:
    """Both transports and the empty server in short blocks by turns, so that all meet the same neighbours."""
    calls = stage.scale.calls // BLOCKS
    sides = {
        "headrace": (_headrace_target(stage, "1x200", number), stage.headrace.child.pid, NATIVE_SHARE * calls),
        "grpcio": (_target(stage, stage.grpcio, "grpcio-1x200", number), stage.grpcio.child.pid, calls),
        "empty": (stage.empty_target(), stage.empty.pid, calls),
    }
    found: dict[str, list[tuple[h2load.Load, float]]] = {name: [] for name in sides}
    for _ in range(BLOCKS):
        for name, (target, pid, count) in sides.items():
            found[name].append(_spent(target, pid, count))
    out = {}
    for name, suffix in (("headrace", "_1x200"), ("grpcio", "_1x200"), ("empty", "")):
        out[f"{name}_rps{suffix}"] = harmonic_mean(load.rate for load, _ in found[name])
        out[f"{name}_cpu_us{suffix}"] = mean(cpu_us for _, cpu_us in found[name])
    latencies = [one for load, _ in found["headrace"] for one in load.latencies_us]
    return out | {"headrace_p99_ms_1x200": percentile(latencies, 0.99) / 1000}


def _headrace_target(stage: Stage, shape: str, number: int) -> Target:
    return _target(stage, stage.headrace, shape, number)


def _target(stage: Stage, peer: HeadracePeer, name: str, number: int) -> Target:
    body = stage.folder / f"headrace-{name}-{number}.body"
    return peer.target(name.removeprefix("grpcio-"), stage.scale.compared_entities, SEED + number, body)


def _spent(target: Target, pid: int, calls: int) -> tuple[h2load.Load, float]:
    """The load, and the server's microseconds of CPU per call."""
    before = usage(pid, with_children=False)
    load = h2load.run(target, Amount(requests=calls))
    return load, (usage(pid, with_children=False).cpu_s - before.cpu_s) / calls * 1e6


def _feast(stage: Stage, shape: str, number: int, precomputed: bool) -> Mapping[str, float]:
    calls = Calls(SCENARIOS[shape], stage.scale.compared_entities, SEED + number)
    message = read_message(calls.draw().tolist(), precomputed)
    expected = len(stage.feast.read(message))
    name = "feast_precomputed" if precomputed else "feast_server"
    target = h2load.json_target(stage.feast.port, READ_PATH, message, stage.folder / f"{name}.body")
    load = h2load.run(target, _feast_amount(stage, shape))
    _check_size(target, load.bytes_per_answer, expected)
    return {f"{name}_rps_{shape}": load.rate}


def _feast_amount(stage: Stage, shape: str) -> Amount:
    """A time at 1x200; a count of larger batches, of which a busy machine answers less than one a second."""
    if shape == "1x200":
        return Amount(duration_s=stage.scale.span_s)
    return Amount(requests=max(3 * CONNECTIONS, FEAST_REQUESTS // SCENARIOS[shape].row_count))


def _check_size(target: Target, bytes_per_answer: float, expected: int) -> None:
    if bytes_per_answer < ANSWER_SHARE_MIN * expected:
        raise h2load.load_failed(
            f"{target.url} answered {bytes_per_answer:.0f} bytes where a right answer has {expected}"
        )


def _redis(stage: Stage, shape: str) -> Mapping[str, float]:
    scenario, scale = SCENARIOS[shape], stage.scale
    get = redis_peer.get_command(scenario.row_count)
    requests = max(500, GET_REQUESTS // scenario.row_count)
    out = {f"redis_get_rps_{shape}": stage.redis.benchmark(get, requests, scale.compared_entities)[0]}
    if shape == "1x200":
        command = redis_peer.hmget_command()
        out["redis_hmget_rps_1x200"] = stage.redis.benchmark(command, HMGET_REQUESTS, scale.compared_entities)[0]
    return out


def _feast_sdk_ms(stage: Stage, number: int) -> float:
    calls = Calls(SCENARIOS["100x200"], stage.scale.compared_entities, SEED + number)
    batches = [calls.draw().tolist() for _ in range(stage.scale.sdk_calls)]
    stage.sdk.read_s(batches)
    return percentile(stage.sdk.read_s(batches), 0.5) * 1000


def _client_ms(stage: Stage, number: int) -> float:
    calls = Calls(SCENARIOS["100x200"], stage.scale.compared_entities, SEED + number)
    batches = [calls.draw().tolist() for _ in range(stage.scale.client_calls)]
    for users in batches:
        stage.headrace.read(users)
    spans = []
    for users in batches:
        began = time.perf_counter()
        stage.headrace.read(users)
        spans.append(time.perf_counter() - began)
    return percentile(spans, 0.5) * 1000


def _write(stage: Stage, number: int) -> Mapping[str, float]:
    """Existing keys are shuffled over all rows written so far by drawing a range of an earlier round."""
    count = stage.scale.write_rows
    first = WRITE_KEYS_FIRST + number * count
    known = WRITE_KEYS_FIRST + random.Random(SEED + number).randrange(number + 1) * count
    out = {}
    for name, start, later_us in (("new", first, 0), ("existing", known, (number + 1) * WRITE_STEP_US)):
        keys = range(start, start + count)
        requests = write_requests(WRITE_VIEW, keys, stage.scale.entities, EVENT_TIME_US + later_us)
        began = time.perf_counter()
        written = stage.headrace.writer.send(requests)
        out[f"headrace_write_{name}"] = written / (time.perf_counter() - began)
        if written != count or not stage.headrace.holds(
            WRITE_VIEW, [start, start + count - 1], EVENT_TIME_US + later_us
        ):
            raise h2load.load_failed(f"{written} of {count} rows were acknowledged, and not all can be read")
    return out


def _feast_write(stage: Stage, number: int) -> Mapping[str, float]:
    """New keys skip Feast's read of the stored event time, as its documentation advises for loads."""
    count = stage.scale.feast_write_rows
    first = WRITE_KEYS_FIRST + number * count
    new = stage.sdk.write_rate(first, count, 0, bulk=True)
    return {"feast_write_new": new, "feast_write_existing": stage.sdk.write_rate(first, count, -WRITE_STEP_US)}
