"""Deadline, backoff, jitter and budget, on a clock that the test turns."""

from dataclasses import dataclass, field

import pytest

from headrace.client.retries import (
    Attempt,
    Pause,
    Retries,
    RetryBudget,
    RetryPolicy,
    Steps,
    check_timeout,
)
from headrace.errors import Aborted, DeadlineExceeded, HeadraceError, InternalError, ResourceExhausted, Unavailable

DOWN = Unavailable("down", reason="DOWN")


@dataclass
class Caller:
    """Drives steps: each outcome answers one attempt, each pause moves the clock."""

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    budget: RetryBudget = field(default_factory=RetryBudget)
    uniform: float = 0.5
    now_s: float = 100.0
    pauses_s: list[float] = field(default_factory=list)
    timeouts_s: list[float] = field(default_factory=list)

    def call(self, *outcomes: bytes | HeadraceError, timeout_s: float = 10.0) -> bytes:
        steps: Steps[bytes] = Retries(self.policy, self.budget, lambda: self.now_s, lambda: self.uniform).steps(
            timeout_s
        )
        left = list(outcomes)
        answer: bytes | HeadraceError | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as done:
                return bytes(done.value)
            answer = None
            if isinstance(step, Attempt):
                self.timeouts_s.append(step.timeout_s)
                answer = left.pop(0)
            else:
                assert isinstance(step, Pause)
                self.pauses_s.append(step.delay_s)
                self.now_s += step.delay_s


def test_success_is_returned_at_once() -> None:
    caller = Caller()
    assert caller.call(b"ok") == b"ok"
    assert caller.pauses_s == []


def test_unavailable_is_tried_again_with_growing_pauses_and_a_shrinking_deadline() -> None:
    caller = Caller()
    assert caller.call(DOWN, DOWN, DOWN, b"ok") == b"ok"
    assert caller.pauses_s == pytest.approx([0.02, 0.04, 0.08])
    assert caller.timeouts_s == pytest.approx([10.0, 9.98, 9.94, 9.86])


@pytest.mark.parametrize(("uniform", "pause_s"), [(0.0, 0.016), (1.0, 0.024)])
def test_jitter_spreads_a_pause_by_a_fifth(uniform: float, pause_s: float) -> None:
    caller = Caller(uniform=uniform)
    caller.call(DOWN, b"ok")
    assert caller.pauses_s == pytest.approx([pause_s])


def test_attempts_end_at_the_policy() -> None:
    caller = Caller()
    with pytest.raises(Unavailable):
        caller.call(*[DOWN] * 4, b"never asked")
    assert len(caller.timeouts_s) == 4


@pytest.mark.parametrize(
    "error",
    [
        Aborted("stale", reason="ETAG"),
        DeadlineExceeded("late", reason="LATE"),
        ResourceExhausted("full", reason="FULL", retry_after_ms=5),
        InternalError("bug", reason="BUG"),
    ],
    ids=lambda error: error.code,
)
def test_other_codes_are_never_tried_again(error: HeadraceError) -> None:
    caller = Caller()
    with pytest.raises(type(error)):
        caller.call(error, b"never asked")
    assert caller.pauses_s == []


def test_asked_pause_is_honoured() -> None:
    caller = Caller()
    caller.call(Unavailable("busy", reason="BUSY", retry_after_ms=700), b"ok")
    assert caller.pauses_s == pytest.approx([0.7])


def test_pause_beyond_the_deadline_gives_up_at_once() -> None:
    caller = Caller()
    with pytest.raises(Unavailable, match="busy"):
        caller.call(Unavailable("busy", reason="BUSY", retry_after_ms=700), b"never asked", timeout_s=0.5)
    assert caller.pauses_s == []


def test_budget_stops_retries_below_half_and_successes_refill_it() -> None:
    caller = Caller(policy=RetryPolicy(attempts_max=2))
    for _ in range(2):
        with pytest.raises(Unavailable):
            caller.call(DOWN, DOWN)
    with pytest.raises(Unavailable):
        caller.call(DOWN, b"never asked")
    assert len(caller.timeouts_s) == 5
    for _ in range(11):
        caller.call(b"ok")
    assert caller.call(DOWN, b"ok") == b"ok"


@pytest.mark.parametrize("attempts_max", [0, 6])
def test_policy_out_of_bounds_is_refused(attempts_max: int) -> None:
    with pytest.raises(ValueError, match="1 to 5"):
        RetryPolicy(attempts_max=attempts_max)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan")])
def test_timeout_without_time_is_refused(timeout_s: float) -> None:
    with pytest.raises(DeadlineExceeded, match="positive"):
        check_timeout(timeout_s)
