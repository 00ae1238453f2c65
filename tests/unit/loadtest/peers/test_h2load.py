"""Command lines, bodies and summaries of h2load."""

from pathlib import Path

import pytest

from headrace.errors import Unavailable
from loadtest.peers.h2load import Amount, command, grpc_body, grpc_target, json_target, logged_rate, parse

SUMMARY = """
finished in 1.20s, 3230.00 req/s, 3.47MB/s
requests: 3230 total, 3238 started, 3230 done, 3230 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 3230 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 3.47MB (3636290) total, 150.02KB (153616) headers (space savings 80.00%), 3.31MB (3470000) data
                     min         max         mean         sd        +/- sd
time for request:      511us      4.88ms      2.44ms       540us    74.00%
"""


def test_grpc_body_has_the_five_bytes_before_the_message() -> None:
    assert grpc_body(b"abc") == b"\0\0\0\0\3abc"


def test_timed_run_warms_up_and_counted_run_does_not(tmp_path: Path) -> None:
    target = grpc_target(7001, "/s/M", b"x", tmp_path / "x.body")
    timed = command(target, 8, Amount(duration_s=1.5), tmp_path / "log")
    counted = command(target, 8, Amount(requests=40), tmp_path / "log")
    assert timed[timed.index("-D") + 1] == "1500ms"
    assert "--warm-up-time" in timed and "--warm-up-time" not in counted
    assert counted[counted.index("-n") + 1] == "40"


def test_json_goes_over_http_1_and_grpc_over_http_2(tmp_path: Path) -> None:
    grpc = command(grpc_target(7001, "/s/M", b"x", tmp_path / "x"), 8, Amount(1), tmp_path / "log")
    json = command(json_target(7001, "/p", b"{}", tmp_path / "y"), 8, Amount(1), tmp_path / "log")
    assert "--h1" in json and "--h1" not in grpc
    assert {"content-type: application/grpc", "te: trailers"} <= set(grpc)
    assert (tmp_path / "y").read_bytes() == b"{}"


def test_summary_and_log_are_read() -> None:
    load = parse(SUMMARY, "1000\t200\t511\n1001\t200\t4880\n")
    assert (load.requests, load.failed, load.rate, load.data_bytes) == (3230, 0, 3230.0, 3_470_000)
    assert load.latencies_us == (511, 4880)


def test_failed_streams_and_bad_statuses_count_as_failed() -> None:
    bad = SUMMARY.replace("0 failed", "2 failed").replace(
        "3230 2xx, 0 3xx, 0 4xx, 0 5xx", "3225 2xx, 0 3xx, 0 4xx, 5 5xx"
    )
    assert parse(bad, "1000\t-1\t0\n1001\t200\t7\n").failed == 8


def test_other_output_is_refused() -> None:
    with pytest.raises(Unavailable, match="another form"):
        parse("h2load: could not connect", "")


def test_rate_of_a_window_comes_from_the_log(tmp_path: Path) -> None:
    log = tmp_path / "requests.tsv"
    log.write_bytes(b"".join(b"%d\t200\t90\n" % (1_000_000 + at * 500) for at in range(2_001)) + b"1900000")
    assert logged_rate(log, (1.0, 2.0)) == 2_000.0
    assert logged_rate(log, (1.5, 2.5)) == 1_001.0, "what was not held counts"
    for window in ((3.0, 4.0), (0.0, 0.0), (2.0, 1.0)):
        with pytest.raises(Unavailable, match="nothing held the load"):
            logged_rate(log, window)
