"""What breaks a judged window besides its latency."""

import dataclasses

from loadtest.peers.online import verdict
from loadtest.peers.slo import WRITE_RATE, Judged

GOOD = Judged(
    p99_ms=4.0, p50_ms=1.0, calls=800, errors=0, faults="()", asked_rate=2_000, held_rate=1_990, lag_p99_ms=0.5
)


def test_good_window_is_a_figure_with_its_load_beside_it() -> None:
    found = verdict("p99_ms_at_60pct_cached", GOOD).to_json()
    assert (found["value"], found["ok"]) == (4.0, True)
    expected = {
        "p50_ms": 1.0,
        "lag_p99_ms": 0.5,
        "judge": "normal",
        "calls": 800,
        "errors": 0,
        "asked_rps": 2_000,
        "held_rps": 1_990,
    }
    assert found["context"] == expected


def test_slow_window_misses_its_target() -> None:
    assert not verdict("p99_ms_at_60pct_cached", dataclasses.replace(GOOD, p99_ms=10.5)).ok


def test_errors_fail_the_figure_whatever_its_latency() -> None:
    found = verdict("p99_ms_at_60pct_cached", dataclasses.replace(GOOD, errors=2, faults="UNAVAILABLE"))
    assert found.value == 4.0
    assert not found.ok
    assert "2 errors in 800 calls: UNAVAILABLE" in found.note


def test_window_without_calls_is_not_good() -> None:
    assert "0 errors in 0 calls" in dataclasses.replace(GOOD, calls=0).why_not()


def test_writes_below_their_rate_do_not_count_as_written() -> None:
    slow = dataclasses.replace(GOOD, written_rate=0.9 * WRITE_RATE)
    assert slow.why_not() == "only 45000 rows/s were written"
    assert dataclasses.replace(GOOD, written_rate=0.99 * WRITE_RATE).why_not() == ""


def test_load_below_what_was_asked_fails_the_window() -> None:
    assert dataclasses.replace(GOOD, held_rate=1_800).why_not() == "only 1800 of 2000 requests/s were held"
