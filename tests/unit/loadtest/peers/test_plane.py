"""The data plane's server holds what its figures say, answers it right, and every figure comes from its rounds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from headrace.client import ValueState
from loadtest.peers import plane_data
from loadtest.peers.aims import AIMS
from loadtest.peers.h2load import Amount, run
from loadtest.peers.headrace_peer import Memory
from loadtest.peers.plane import figures
from loadtest.peers.plane_server import FULL, NARROW, PlaneServer
from loadtest.peers.processes import free_port

USERS = 400
MEMORY = Memory(64 << 20, 16 << 20, 16 << 20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneServer]:
    started = PlaneServer(tmp_path_factory.mktemp("plane"), MEMORY, USERS, free_port())
    yield started
    started.peer.stop()


def test_a_quarter_of_the_values_is_missing_or_expired(server: PlaneServer) -> None:
    batch = server.peer.client.get_online_features(server.prepared[FULL], entities={"user_id": list(range(USERS))})
    states = np.array([batch.states(name) for name in batch.columns])
    counts = {state: int((states == state).sum()) for state in (ValueState.MISSING, ValueState.EXPIRED)}
    assert counts == dict.fromkeys(counts, states.size // 8)
    assert (states == ValueState.PRESENT).sum() == states.size * 3 // 4


def test_narrow_rows_are_those_written(server: PlaneServer) -> None:
    keys = np.array([3, 399, 0], dtype=np.int64)
    batch = server.peer.client.get_online_features(server.prepared[NARROW], entities={"user_id": keys})
    assert np.array_equal(batch.to_pandas().to_numpy(), plane_data.narrow_values(keys))


def test_windows_and_reads_over_tls_are_answered_to_the_generator(server: PlaneServer, tmp_path: Path) -> None:
    load = run(server.windowed_target(7, tmp_path / "windowed"), Amount(requests=50), logged=False)
    assert (load.requests, load.failed, load.latencies_us) == (50, 0, ())
    with server.over_tls() as tls:
        target = tls.full_target(5, tmp_path / "full")
        assert target.url.startswith("https:")
        load = run(target, Amount(requests=50), logged=False)
    assert (load.requests, load.failed) == (50, 0)


def test_every_figure_of_the_data_plane_has_its_rounds() -> None:
    names = [
        "core_headrace_rps", "core_nghttpd_rps", "core_redis_get_rps", "core_redis_hmget_rps", "core_full_rps",
        "core_full_tls_rps", "tls_redis_get_rps", "core_wide_cpu_us", "core_full_cpu_us", "core_full_tls_cpu_us",
        "core_windowed_cpu_us", "wide_at_50pct_p99_ms", "at_70pct_p999_ms", "at_70pct_p50_ms", "loops_2_cpu_us",
        "loops_1_cpu_us", "narrow_p50_ms", "redis_narrow_p50_ms", "narrow_frame_ms", "redis_narrow_frame_ms",
        "peer_rows_p50_ms",
    ]  # fmt: skip
    rounds = {name: [float(at + 1)] * 5 for at, name in enumerate(names)}
    found = {one.id: one.value for one in figures(rounds)}
    native = [name for name in AIMS if name.startswith("native_")]
    assert set(native) - set(found) == {"native_cpu_us_1x200", "native_rps_vs_grpcio"}
    assert found["native_rps_1x200_vs_redis_hmget"] == 1 / 4
    assert found["native_cpu_2_loops_vs_1"] == 15 / 16
