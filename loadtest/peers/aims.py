"""The figures that a comparison of the online server must report, with their targets."""

import dataclasses
from collections.abc import Sequence
from typing import Final

from loadtest.peers.result import Better, Figure, Missing


@dataclasses.dataclass(frozen=True, slots=True)
class Aim:
    """One figure that must be reported."""

    id: str
    target: float | None
    better: Better
    unit: str
    peer: str


_ALONE: Final = "none: CPU of the server on its native transport"
AIMS: Final = {
    aim.id: aim
    for aim in (
        Aim("rps_1x200_vs_feast_server", 40, "higher", "x", "Feast 0.67 feature server, workers = cores"),
        Aim("rps_1x200_vs_feast_precomputed", 10, "higher", "x", "the same with its precomputed vectors"),
        Aim("p50_100x200_vs_feast_sdk", 50, "higher", "x", "Feast 0.67 SDK in process"),
        Aim("core_cpu_us_100x200", 60, "lower", "us", "none: CPU of the request core alone"),
        Aim("cpu_1x200_vs_empty_grpcio", 1.25, "lower", "x", "empty grpcio raw-bytes sync server"),
        Aim("native_cpu_us_1x200", 25, "lower", "us", _ALONE),
        Aim("native_rps_vs_grpcio", 8, "higher", "x", "the same server on grpcio"),
        Aim("native_rps_1x200_vs_redis_get", 0.5, "higher", "x", "Redis 7 GET of 800 bytes, one core each"),
        Aim("native_rps_1x200_vs_redis_hmget", 10, "higher", "x", "Redis 7 HMGET of 200 fields, one core each"),
        Aim("native_rps_vs_nghttpd", 0.66, "higher", "x", "nghttpd, a file as long as the answer, one core each"),
        Aim("native_cpu_us_100x200", 150, "lower", "us", _ALONE),
        Aim("native_p99_ms_100x200_at_50pct", 2, "lower", "ms", "none: one core for the server"),
        Aim("native_p999_vs_p50_at_70pct", 5, "lower", "x", "its own p50 at 1x200, one core for the server"),
        Aim("native_cpu_2_loops_vs_1", 1.1, "lower", "x", "the same server with one loop"),
        Aim("native_p50_1000x10_vs_redis_mget", 1, "lower", "x", "Redis 7 MGET of 40 packed bytes a key"),
        Aim("native_frame_1000x10_vs_redis_mget", 0.5, "lower", "x", "redis-py with hiredis, MGET to a pandas frame"),
        Aim("native_cpu_us_full", 25, "lower", "us", _ALONE),
        Aim("native_cpu_us_full_tls", 25, "lower", "us", _ALONE),
        Aim("native_rps_full_vs_redis_get", 0.5, "higher", "x", "Redis 7 GET of 800 bytes, one core each"),
        Aim("native_rps_full_tls_vs_redis_get", 0.5, "higher", "x", "Redis 7 GET of 800 bytes in the clear"),
        Aim("native_peer_rows_p50_ms", 0.5, "lower", "ms", "none: the rows of 1x200, as another server asks for them"),
        Aim("native_cpu_us_windowed", 60, "lower", "us", _ALONE),
        Aim("write_rows_vs_feast", 80, "higher", "x", "Feast 0.67 write_to_online_store, new keys"),
        Aim("write_existing_rows_vs_feast", 40, "higher", "x", "Feast 0.67 write_to_online_store, existing keys"),
        Aim("memory_per_row_vs_packed", 1.5, "lower", "x", "none: packed bytes of a row"),
        Aim("p99_ms_at_60pct_cached", 10, "lower", "ms", "none: service level"),
        Aim("p99_ms_at_60pct_writing", 10, "lower", "ms", "none: beside 50,000 rows/s, of the saturation left"),
        Aim("p99_ms_at_60pct_cold", 10, "lower", "ms", "none: service level with 8 GB of data in 2 GiB"),
    )
}


def figure(name: str, rounds: Sequence[float], note: str = "", **context: float | str) -> Figure:
    """A measured figure of the list above."""
    aim = AIMS[name]
    return Figure(aim.id, tuple(rounds), aim.better, aim.unit, aim.peer, aim.target, note, dict(context))


def missing(name: str, note: str, required: bool = True) -> Missing:
    """A figure of the list above that was not measured."""
    aim = AIMS[name]
    return Missing(aim.id, aim.target, aim.better, aim.unit, aim.peer, note, required)
