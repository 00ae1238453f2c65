"""What `headrace cluster` prints and how it exits."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from control_plane.cli import cluster_commands
from control_plane.cli.endpoints import Endpoints
from control_plane.cli.output import Format
from control_plane.cli.session import Session
from headrace.errors import NotFound
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard

SERVERS = {
    "aaaa-1": RingServer("aaaa-1", "10.0.0.1:9000", "north"),
    "aaab-2": RingServer("aaab-2", "10.0.0.2:9000", "south", is_draining=True),
    "cccc-3": RingServer("cccc-3", "10.0.0.3:9000", "east"),
}
RING = Ring(
    12,
    2,
    SERVERS,
    (
        RingShard((Replica("aaaa-1", Phase.SERVING, 3), Replica("cccc-3", Phase.SERVING, 9)), 9, ("aaaa-1", "cccc-3")),
        RingShard((Replica("aaaa-1", Phase.SERVING, 3), Replica("aaab-2", Phase.LEAVING, 11)), 11, ("aaaa-1",)),
    ),
)


@dataclass
class FakeClient:
    """Stands for the client of the ring."""

    ring_held: Ring
    live: frozenset[str]
    drained: list[str] = field(default_factory=list)

    def ring(self) -> tuple[Ring, frozenset[str]]:
        return self.ring_held, self.live

    def drain(self, server_id: str) -> Ring:
        self.drained.append(server_id)
        return self.ring_held


class FakeSession(Session):
    """A session whose ring is given."""

    client: FakeClient
    known: Endpoints = Endpoints()

    def endpoints(self) -> Endpoints:
        return self.known

    @contextmanager
    def ring(self) -> Iterator[FakeClient]:  # type: ignore[override]
        yield self.client


def session(ring: Ring = RING, live: frozenset[str] = frozenset(SERVERS), form: Format = Format.TABLE) -> FakeSession:
    made = FakeSession({}, form=form, out=io.StringIO())
    made.client = FakeClient(ring, live)
    return made


def printed(made: FakeSession) -> str:
    assert isinstance(made.out, io.StringIO)
    return made.out.getvalue()


def test_status_tells_servers_epoch_and_shards_that_lack_copies() -> None:
    made = session()
    assert cluster_commands.status(made, shards=True) == 1
    lines = printed(made).splitlines()
    heads = ["SERVER", "ID", "ZONE", "WEIGHT", "STATE", "SERVING", "JOINING", "LEAVING", "LAG", "FRESHNESS", "P99"]
    assert lines[0].split() == heads
    assert lines[1].split() == ["10.0.0.1:9000", "aaaa-1", "north", "1", "live", "2", "0", "0", "-", "-"]
    assert lines[2].split() == ["10.0.0.2:9000", "aaab-2", "south", "1", "draining", "0", "0", "1", "-", "-"]
    assert lines[5].split() == ["0", "9", "10.0.0.1:9000", "10.0.0.3:9000", "-", "-"]
    assert lines[-1] == "epoch 12: 2 shards of 2 copies, 1 copies moving, 1 shards short of copies: 1"


def test_status_counts_only_servers_that_are_heard() -> None:
    made = session(live=frozenset({"aaaa-1"}))
    assert cluster_commands.status(made, shards=False) == 1
    assert "silent" in printed(made)
    assert printed(made).endswith("2 shards short of copies: 0-1\n")


def test_status_of_a_whole_ring_is_well() -> None:
    whole = Ring(12, 2, SERVERS, RING.shards[:1])
    assert cluster_commands.status(session(whole), shards=False) == 0


def test_status_without_a_ring_says_how_to_get_one() -> None:
    made = session(Ring(), frozenset())
    assert cluster_commands.status(made, shards=False) == 1
    assert "--ring" in printed(made)


def test_status_as_json_holds_the_ring() -> None:
    made = session(form=Format.JSON)
    assert cluster_commands.status(made, shards=False) == 1
    told = json.loads(printed(made))
    assert (told["epoch"], told["short_of_copies"], told["live"]) == (12, [1], sorted(SERVERS))


@pytest.mark.parametrize("name", ["10.0.0.3:9000", "cccc-3", "cc"])
def test_drain_takes_an_address_or_the_start_of_an_id(name: str) -> None:
    made = session()
    assert cluster_commands.drain(made, name) == 0
    assert made.client.drained == ["cccc-3"]
    assert "1 shards to move" in printed(made)


@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_drain_of_nobody_or_of_several_is_refused(name: str) -> None:
    with pytest.raises(NotFound):
        cluster_commands.drain(session(), name)


@pytest.mark.parametrize(
    ("numbers", "text"), [([1], "1"), ([0, 1, 2], "0-2"), ([0, 2, 3, 7], "0, 2-3, 7"), ([5, 6], "5-6")]
)
def test_ranges_are_short(numbers: list[int], text: str) -> None:
    assert cluster_commands._ranges(numbers) == text
