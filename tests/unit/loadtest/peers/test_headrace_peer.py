"""Our own side of a comparison: started, loaded, checked before it is measured, and ended."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from headrace.errors import Unavailable
from loadtest.calls import ROWS_METHOD
from loadtest.dataset import USER_VIEWS, WRITE_VIEW
from loadtest.loading import write_requests
from loadtest.peers.headrace_peer import HeadracePeer, Memory
from loadtest.peers.plane import PEER_ROWS_BYTES_MIN
from loadtest.peers.processes import listens
from loadtest.rows import EVENT_TIME_US
from protos.feature.v1 import shard_service_pb2 as pb

MEMORY = Memory(table_bytes=16 << 20, block_cache_bytes=8 << 20, write_buffer_bytes=8 << 20)
USERS = 300


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeadracePeer]:
    peer = HeadracePeer(tmp_path_factory.mktemp("peer"), MEMORY)
    assert peer.load(USERS, USER_VIEWS) == USERS * len(USER_VIEWS)
    yield peer
    peer.stop()
    assert not listens(peer.port)


def test_target_is_written_only_after_its_answer_was_right(peer: HeadracePeer, tmp_path: Path) -> None:
    target = peer.target("100x200", USERS, seed=3, body=tmp_path / "good.body")
    assert target.body.read_bytes()[0] == 0
    with pytest.raises(Unavailable, match="answers wrongly"):
        peer.target("100x200", USERS * 100, seed=3, body=tmp_path / "missing.body")
    assert not (tmp_path / "missing.body").exists()


def test_written_rows_are_held_with_their_event_time(peer: HeadracePeer) -> None:
    requests = write_requests(WRITE_VIEW, range(10), USERS, EVENT_TIME_US + 5)
    assert peer.writer.send(requests) == 10
    assert peer.holds(WRITE_VIEW, [0, 9], EVENT_TIME_US + 5)
    assert not peer.holds(WRITE_VIEW, [0, 9], EVENT_TIME_US)
    assert not peer.holds(WRITE_VIEW, [0, 11], EVENT_TIME_US + 5)


def test_rows_are_there_for_another_server(peer: HeadracePeer) -> None:
    with grpc.insecure_channel(peer.features) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ROWS_METHOD)
        found = pb.BatchGetRowsResponse.FromString(ask(peer.row_ids().request(7), timeout=10.0))
    assert len(found.rows) == len(USER_VIEWS)
    assert min(map(len, found.rows)) >= PEER_ROWS_BYTES_MIN // len(USER_VIEWS)
    assert not found.unavailable_rows


def test_usage_is_that_of_the_feature_server(peer: HeadracePeer) -> None:
    before = peer.server_usage().cpu_s
    for _ in range(20):
        peer.read(list(range(100)))
    assert peer.server_usage().cpu_s > before


def test_server_that_does_not_start_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="feature server"):
        HeadracePeer(tmp_path, Memory(table_bytes=1, block_cache_bytes=1, write_buffer_bytes=1))
