"""The gate breaks on late answers, errors, silence and a generator that fell behind."""

import json

from loadtest.online.gate import Objective, Recorder


def recorder(latencies_ms: list[float], failures: int = 0, planned: int | None = None) -> Recorder:
    out = Recorder()
    for latency_ms in latencies_ms:
        out.answered(latency_ms, 0.1)
    for number in range(failures):
        out.failed(f"UNAVAILABLE {number}")
    for _ in range(len(latencies_ms) + failures if planned is None else planned):
        out.plan()
    return out


def test_good_run_passes() -> None:
    summary = recorder([1.0] * 99 + [50.0]).summary(Objective())
    assert summary.ok
    assert (summary.p50_ms, summary.p99_ms, summary.max_ms) == (1.0, 1.0, 50.0)


def test_two_late_calls_of_a_hundred_break_the_p99() -> None:
    summary = recorder([1.0] * 98 + [50.0] * 2).summary(Objective())
    assert summary.breaches == ("p99 50.00 ms is above 10 ms",)


def test_one_error_breaks_it() -> None:
    summary = recorder([1.0] * 1_000, failures=1).summary(Objective())
    assert summary.breaches == ("1 errors, 0 allowed",)
    assert summary.faults == ("UNAVAILABLE 0",)


def test_no_answer_breaks_it() -> None:
    assert Recorder().summary(Objective()).breaches == ("no call was answered",)


def test_calls_that_never_ended_break_it() -> None:
    summary = recorder([1.0] * 90, planned=100).summary(Objective())
    assert summary.breaches == ("only 90 of 100 planned calls ended",)


def test_summary_is_json_with_the_verdict() -> None:
    found = json.loads(recorder([2.0]).summary(Objective()).to_json())
    assert found["ok"] is True
    assert found["call_count"] == 1


def test_texts_of_faults_are_bounded() -> None:
    assert len(recorder([], failures=100).summary(Objective()).faults) == 5
