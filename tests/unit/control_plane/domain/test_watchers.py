"""Watchers: bounded, woken, closed."""

import threading
from collections.abc import Callable

import pytest

from control_plane.domain.watchers import Watchers
from headrace.errors import ResourceExhausted

LIMIT_S = 30.0


def test_watcher_over_the_bound_is_refused_and_taken_when_one_left() -> None:
    watchers = Watchers(count_max=1)
    with watchers.enrolled(), pytest.raises(ResourceExhausted) as caught, watchers.enrolled():
        pass
    assert caught.value.reason == "TOO_MANY_WATCHERS"
    assert caught.value.retry_after_ms is not None
    with watchers.enrolled():
        assert watchers.count == 1
    assert watchers.count == 0


def test_wake_between_the_look_and_the_wait_is_not_missed() -> None:
    watchers = Watchers(poll_interval_s=LIMIT_S)
    ticket = watchers.ticket()
    watchers.wake()
    thread = threading.Thread(target=watchers.wait, args=(ticket,))
    thread.start()
    thread.join(LIMIT_S / 3)
    assert not thread.is_alive()


@pytest.mark.parametrize("act", [Watchers.wake, Watchers.close], ids=["wake", "close"])
def test_waiting_watcher_is_released(act: Callable[[Watchers], None]) -> None:
    watchers = Watchers(poll_interval_s=LIMIT_S)
    started = threading.Event()

    def wait() -> None:
        ticket = watchers.ticket()
        started.set()
        watchers.wait(ticket)

    thread = threading.Thread(target=wait)
    thread.start()
    assert started.wait(LIMIT_S)
    act(watchers)
    thread.join(LIMIT_S / 3)
    assert not thread.is_alive()


def test_poll_interval_bounds_a_wait() -> None:
    watchers = Watchers(poll_interval_s=0.01)
    watchers.wait(watchers.ticket())


def test_closed_watchers_never_wait() -> None:
    watchers = Watchers(poll_interval_s=LIMIT_S)
    watchers.close()
    watchers.wait(watchers.ticket())
    assert watchers.is_closed
