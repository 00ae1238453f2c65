"""Waits until a ring that was just started serves every copy of every shard."""

import time
from collections.abc import Callable
from typing import Final

from control_plane.cli.cluster_commands import short_of_copies
from headrace.client.ring import RingClient
from headrace.errors import HeadraceError, Unavailable

RING_LIMIT_S: Final = 120.0  # 64 shards of three servers on a busy small machine
POLL_S: Final = 0.2
SAY_S: Final = 2.0


def await_ring(
    control: str, replica_count: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> None:
    """Returns when every shard has its copies on live servers; tells how far it is."""
    deadline, say_s = clock() + RING_LIMIT_S, clock() + SAY_S
    with RingClient(control) as client:
        while True:
            try:
                ring, live = client.ring()
            except HeadraceError as error:
                if clock() >= deadline:
                    raise _late(control) from error
                time.sleep(POLL_S)
                continue
            short = len(short_of_copies(ring, live))
            if ring.epoch and not short:
                what = f"{len(ring.shards)} shards of {replica_count} copies on {len(live)} servers"
                say(f"ring of epoch {ring.epoch}: {what}")
                return
            if clock() >= deadline:
                raise _late(control)
            if clock() >= say_s:
                say_s = clock() + SAY_S
                done = len(ring.shards) - short
                say(f"ring: {done} of {len(ring.shards)} shards have their {replica_count} copies")
            time.sleep(POLL_S)


def _late(control: str) -> Unavailable:
    return Unavailable(
        f"the ring of the control plane at {control} is not whole after {RING_LIMIT_S:.0f} s; see 'headrace cluster "
        "status' and the logs of its servers",
        reason="RING_NOT_FORMED",
        metadata={"target": control},
    )
