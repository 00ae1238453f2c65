"""Reads that miss the row table by both transports: the gRPC handler is the oracle of the threads beside the loop."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import pytest

from core_ext import rules
from feature_server.domain.fetches import CHUNK_KEYS
from feature_server.domain.reads import Reads
from feature_server.domain.shard_core import WAITER_COUNT_MAX
from feature_server.ring.fan_out import Rows, Send
from feature_server.ring.held_ring import HeldRing
from feature_server.rpc import native_front
from feature_server.rpc.native_front import HAS_NATIVE, TRANSPORTS, NativeTransport
from feature_server.rpc.native_misses import READ_METHOD, MissReads, Refusal, refusal
from headrace.errors import HeadraceError, InvalidArgument, NotFound, Unauthenticated
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard
from headrace.serving.auth import OpenAuthenticator
from headrace.serving.principal import Principal
from headrace.serving.server import WORKER_COUNT
from headrace.serving.telemetry import Telemetry, TelemetryConfig
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.integration import frames
from tests.unit.feature_server.domain.test_reads import write
from tests.unit.feature_server.domain.test_reads_in_ring import OtherServer, peers_of
from tests.unit.feature_server.parts import NOW_US, PRINCIPAL, Parts
from tests.unit.feature_server.served import LIMIT_S, Served, read_of, request, serving, until

QUEUE = 1024  # HR_H2_MISSES_MAX


@dataclass
class Given:
    """A read that no loop waits for."""

    request: bytes
    authorization: bytes = b""
    identity: bytes = b""
    begun_s: float = field(default_factory=time.monotonic)
    deadline_s: float | None = None
    outcomes: list[bytes | Refusal] = field(default_factory=list)

    def give(self, outcome: bytes | Refusal) -> None:
        self.outcomes.append(outcome)


class Gate:
    """Holds every read of a shard until the test lets it go on."""

    def __init__(self, parts: Parts) -> None:
        self.keys: list[bytes] = []
        self._open = threading.Event()
        for faults in parts.faults:
            faults.after_read = self._held

    def _held(self, keys: Sequence[bytes]) -> None:
        self.keys += keys
        assert self._open.wait(LIMIT_S)

    def await_keys(self, count: int) -> None:
        until(lambda: len(self.keys) == count)

    def open(self) -> None:
        self._open.set()


def test_rows_from_disk_read_as_rows_of_the_table(served: Served, parts: Parts) -> None:
    write(parts, range(300), 40)
    parts.table.clear()
    data = request([*range(300), 7, 7, 1_000], include_event_times=True)
    first, second = served.get(data), served.get(data)
    first.ClearField("read_time_us")  # the loop's clock is the machine's, that of the parts is not
    second.ClearField("read_time_us")
    assert first == second
    assert first.columns[0].statuses == bytes([rules.PRESENT] * 302 + [rules.MISSING])


def test_miss_costs_no_call_of_grpcio(native: Served, parts: Parts) -> None:
    write(parts, [1], 40)
    parts.table.clear()
    native.get(request([1]))
    native.get(request([1]))
    counts = native.native.counts()
    assert (counts["missed"], counts["features"]["answered"], counts["forwarded"], counts["full"]) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "NO_SELECTION"),
        (b"\xff", "MALFORMED_REQUEST"),
        (request([1], service="läden 100 % \n"), "INVALID_NAME"),
        (request([1], service="shop.web.none"), "UNKNOWN_FEATURE_SERVICE"),
        (request([]), "NO_ROWS"),
        (request([1], min_offsets=[pb.WriteToken(shard=9, epoch=1)]), "UNKNOWN_SHARD"),
    ],
)
def test_refusals_carry_the_error_of_the_domain(parts: Parts, data: bytes, reason: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        parts.reads.get(PRINCIPAL, data, lambda: None)
    told = caught.value
    assert told.reason == reason
    for name in TRANSPORTS if HAS_NATIVE else TRANSPORTS[1:]:
        with serving(parts, name) as served:
            found = served.refused(data)
            _, ended = served.meter.snapshot()
        assert (type(found), found.message, found.reason) == (type(told), told.message, told.reason)
        assert (found.field, found.metadata) == (told.field if isinstance(told, InvalidArgument) else "", told.metadata)
        assert [(code, sum(counts)) for code, counts, _ in ended if sum(counts)] == [(told.code, 1)]


def test_bug_is_told_as_internal_and_logged(served: Served, parts: Parts) -> None:
    def fail(keys: Sequence[bytes]) -> None:
        raise RuntimeError("a secret")

    for faults in parts.faults:
        faults.after_read = fail
    found = served.refused(request([1]))
    assert (found.code, found.reason) == ("INTERNAL", "INTERNAL")
    assert "secret" not in found.message
    assert "call_failed" in parts.stream.getvalue()


def test_rows_after_the_deadline_are_unavailable_and_the_rest_is_answered(native: Served, parts: Parts) -> None:
    keys = parts.keys_on(0, 2 * CHUNK_KEYS)
    write(parts, keys, 40)
    parts.table.clear()
    for policy in (pb.PARTIAL_POLICY_UNSPECIFIED, pb.PARTIAL_POLICY_FAIL):
        gate = Gate(parts)
        with frames.raw_client(native.port) as client:  # which waits beyond its own deadline
            block = frames.request_fields(READ_METHOD, ("grpc-timeout", "100m"))
            body = frames.message(request(keys, partial_policy=policy))
            client.send(frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block))
            client.send(frames.frame(frames.DATA, frames.END_STREAM, 1, body))
            gate.await_keys(CHUNK_KEYS)
            threading.Event().wait(0.11)
            gate.open()
            kinds = [kind for kind, _, stream, _ in until_ended(client) if stream == 1]
        parts.table.clear()
        # A partial answer has a message; a failed call is a header block alone.
        assert (frames.DATA in kinds) == (policy != pb.PARTIAL_POLICY_FAIL)


def until_ended(client: frames.RawClient) -> Iterator[tuple[int, int, int, bytes]]:
    for frame in client.frames():
        yield frame
        if frame[2] == 1 and frame[1] & frames.END_STREAM:
            return


def test_deadline_that_passed_in_the_queue_is_told(native: Served, parts: Parts) -> None:
    gate = Gate(parts)
    held = [native.read.future(request([number]), timeout=LIMIT_S) for number in range(WORKER_COUNT)]
    gate.await_keys(WORKER_COUNT)
    with frames.raw_client(native.port) as client:
        block = frames.request_fields(READ_METHOD, ("grpc-timeout", "500m"))
        client.send(frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block))
        client.send(frames.frame(frames.DATA, frames.END_STREAM, 1, frames.message(request([99]))))
        until(lambda: native.count("missed") == WORKER_COUNT + 1)
        threading.Event().wait(0.51)
        gate.open()
        assert [kind for kind, _, stream, _ in until_ended(client) if stream == 1] == [frames.HEADERS]
    assert len(gate.keys) == WORKER_COUNT
    assert len([call.result() for call in held]) == WORKER_COUNT


def test_cancelled_read_is_never_begun(native: Served, parts: Parts) -> None:
    gate = Gate(parts)
    held = [native.read.future(request([number]), timeout=LIMIT_S) for number in range(WORKER_COUNT)]
    gate.await_keys(WORKER_COUNT)
    others = [native.read.future(request([1_000 + number]), timeout=LIMIT_S) for number in range(50)]
    until(lambda: native.count("missed") == WORKER_COUNT + 50)
    for call in others:
        call.cancel()
    until(lambda: native.native.stream_count() == WORKER_COUNT)
    gate.open()
    assert len([call.result() for call in held]) == WORKER_COUNT
    native.get(request([1]))
    assert len(gate.keys) == WORKER_COUNT


def test_queue_without_room_refuses_with_a_time_to_wait(native: Served, parts: Parts) -> None:
    gate = Gate(parts)
    with ExitStack() as stack:
        channels = [stack.enter_context(native.new_channel()) for _ in range(2)]  # of 1,024 streams each
        reads = [read_of(channel) for channel in channels]
        held = [reads[0].future(request([number]), timeout=LIMIT_S) for number in range(WORKER_COUNT)]
        gate.await_keys(WORKER_COUNT)
        waiting = [reads[number % 2].future(request([5]), timeout=LIMIT_S) for number in range(QUEUE)]
        until(lambda: native.count("missed") == WORKER_COUNT + QUEUE)
        found = native.refused(request([6]))
        assert (found.code, found.reason, found.retry_after_ms) == ("RESOURCE_EXHAUSTED", "TOO_MANY_READS", 10)
        assert native.count("full") == 1
        gate.open()
        assert len({call.result() for call in waiting[:50]}) == 1
        assert len([call.result() for call in held + waiting]) == WORKER_COUNT + QUEUE


def test_reads_that_wait_for_a_write_hold_up_no_others(native: Served, parts: Parts) -> None:
    position = write(parts, [1], 40)[0]
    later = pb.WriteToken(shard=position.shard, epoch=position.epoch, offset=position.offset + 1)
    data = request([1], min_offsets=[later])
    waiting = [native.read.future(data, timeout=LIMIT_S) for _ in range(WAITER_COUNT_MAX)]
    until(lambda: native.count("missed") == WAITER_COUNT_MAX)
    for number in range(100):
        native.get(request([1_000 + number]))
    assert not any(call.done() for call in waiting)
    write(parts, [1], 41, NOW_US + 1)
    assert len([call.result() for call in waiting]) == WAITER_COUNT_MAX


def test_reads_that_wait_together_read_each_shard_once(native: Served, parts: Parts) -> None:
    keys = parts.keys_on(0, 2 * WORKER_COUNT)
    write(parts, keys, 40)
    parts.table.clear()
    gate = Gate(parts)
    held = [native.read.future(request([100_000 + number]), timeout=LIMIT_S) for number in range(WORKER_COUNT)]
    gate.await_keys(WORKER_COUNT)
    calls = [native.read.future(request([key]), timeout=LIMIT_S) for key in keys]
    until(lambda: native.count("missed") == WORKER_COUNT + len(keys))
    sizes: list[int] = []
    parts.faults[0].after_read = lambda read: sizes.append(len(read))
    gate.open()
    answers = [pb.GetOnlineFeaturesResponse.FromString(call.result()) for call in calls]
    assert all(answer.columns[0].statuses == bytes([rules.PRESENT]) for answer in answers)
    assert sum(sizes) == len(keys)
    assert len(sizes) < len(keys)
    assert len([call.result() for call in held]) == WORKER_COUNT


def test_bug_in_one_read_of_a_turn_fails_that_read_alone(parts: Parts) -> None:
    write(parts, [1, 2], 40)
    parts.table.clear()
    broken = parts.shard_of(1)

    def fail(keys: Sequence[bytes]) -> None:
        raise RuntimeError("a secret")

    parts.faults[broken].after_read = fail
    other = next(key for key in range(2, 100) if parts.shard_of(key) != broken)
    meter = Telemetry(TelemetryConfig("test")).calls.meter(READ_METHOD, "unary")
    misses = MissReads(parts.reads, OpenAuthenticator(), meter, parts.log)
    turn = [Given(request([key])) for key in (1, other)]
    misses.answer(turn)
    ((told,), (answer,)) = (read.outcomes for read in turn)
    assert told[0] == 13
    assert isinstance(answer, bytes)
    assert parts.stream.getvalue().count("call_failed") == 1
    assert [(code, sum(counts)) for code, counts, _ in meter.snapshot()[1] if sum(counts)] == [
        ("OK", 1),
        ("INTERNAL", 1),
    ]


class SlowPeers(OtherServer):
    """Peer `slow` answers when it is told to, the others at once."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.held: list[Callable[[], None]] = []

    def send(self, asked: Send, timeout_s: float, done: Callable[[Rows | HeadraceError], None]) -> None:
        if asked.peer == "slow":
            self.held.append(partial(super().send, asked, timeout_s, done))
        else:
            super().send(asked, timeout_s, done)


@dataclass
class InRing:
    """A server of which one shard is its own, one of a slow peer and two of a fast one."""

    served: Served
    peers: SlowPeers
    keys: list[list[int]]  # by shard

    def ask(self, shard: int, count: int, timeout_s: float = LIMIT_S) -> list["grpc.Future[bytes]"]:
        return [self.served.read.future(request([key]), timeout=timeout_s) for key in self.keys[shard][:count]]


@pytest.fixture
def in_ring(tmp_path: Path) -> Iterator[InRing]:
    if not HAS_NATIVE:
        pytest.skip("the native loop was not compiled in")
    mine, other = Parts(tmp_path / "mine", shard_count=4), Parts(tmp_path / "other", shard_count=4, store_id="other")
    keys = [mine.keys_on(shard, 400) for shard in range(4)]
    for shard, of in enumerate((mine, other, other, other)):
        write(of, keys[shard], 40)
    mine.table.clear()
    servers = {name: RingServer(name, f"{name}:1") for name in ("me", "slow", "fast")}
    owners = ("me", "slow", "fast", "fast")
    shards = [RingShard((Replica(name, Phase.SERVING, 3),), 3, ()) for name in owners]
    held = HeldRing("me", lambda ring: None, Ring(3, 1, servers, tuple(shards)))
    peers = SlowPeers(other)
    ring = peers_of(other, held, peers)
    mine.reads = Reads(mine.core, mine.table, mine.shards, mine.catalogue, mine.clock, ring)
    with serving(mine, NativeTransport.name) as served:
        yield InRing(served, peers, keys)
        for answer in [*peers.held]:
            answer()
    mine.close()
    other.close()


def statuses_of(calls: Sequence["grpc.Future[bytes]"]) -> set[bytes]:
    return {pb.GetOnlineFeaturesResponse.FromString(call.result()).columns[0].statuses for call in calls}


def test_reads_that_wait_for_a_slow_peer_hold_up_no_others(in_ring: InRing) -> None:
    slow = in_ring.ask(1, 400)
    until(lambda: len(in_ring.peers.held) == 400)
    for _ in range(2):  # far more at once than the workers could have taken in their turns
        together = in_ring.ask(0, 200) + in_ring.ask(2, 200)
        assert statuses_of(together) == {bytes([rules.PRESENT])}
    assert not any(call.done() for call in slow)
    in_ring.peers.held.pop(7)()
    until(lambda: sum(call.done() for call in slow) == 1)
    for answer in in_ring.peers.held:
        answer()
    assert statuses_of(slow) == {bytes([rules.PRESENT])}
    assert sum(in_ring.served.meter.snapshot()[1][0][1]) >= 400


def test_a_read_of_own_and_peers_rows_is_answered_whole(in_ring: InRing) -> None:
    wide = in_ring.served.read.future(request([keys[0] for keys in in_ring.keys[:3]]), timeout=LIMIT_S)
    until(lambda: len(in_ring.peers.held) == 1)
    assert statuses_of(in_ring.ask(0, 1)) == {bytes([rules.PRESENT])}
    in_ring.peers.held.pop()()
    assert statuses_of([wide]) == {bytes([rules.PRESENT] * 3)}


def test_a_read_that_waits_for_a_slow_peer_ends_at_its_own_deadline(in_ring: InRing) -> None:
    data = request([in_ring.keys[1][0], in_ring.keys[0][0]])
    long = in_ring.served.read.future(data, timeout=LIMIT_S)
    with frames.raw_client(in_ring.served.port) as client:  # which waits beyond its own deadline
        block = frames.request_fields(READ_METHOD, ("grpc-timeout", "100m"))
        client.send(frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block))
        client.send(frames.frame(frames.DATA, frames.END_STREAM, 1, frames.message(data)))
        bodies = [body for kind, _, stream, body in until_ended(client) if stream == 1 and kind == frames.DATA]
    answer = pb.GetOnlineFeaturesResponse.FromString(b"".join(bodies)[5:])
    assert answer.columns[0].statuses == bytes([rules.UNAVAILABLE | rules.CAUSE_DEADLINE, rules.PRESENT])
    assert not long.done()


def test_drain_ends_the_reads_that_wait_for_a_slow_peer(in_ring: InRing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_front, "DRAIN_GRACE_S", 0.2)
    call = in_ring.ask(1, 1)[0]
    until(lambda: len(in_ring.peers.held) == 1)
    in_ring.served.transport.drain()
    assert isinstance(call.exception(), grpc.RpcError)


@pytest.mark.skipif(not HAS_NATIVE, reason="the native loop was not compiled in")
def test_drain_waits_for_a_read_that_a_worker_has(parts: Parts) -> None:
    write(parts, [1], 40)
    parts.table.clear()
    gate = Gate(parts)
    served = Served(parts, NativeTransport.name)
    call = served.read.future(request([1]), timeout=LIMIT_S)
    gate.await_keys(1)
    draining = threading.Thread(target=served.transport.drain)
    draining.start()
    draining.join(0.5)
    assert draining.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port), LIMIT_S)
    gate.open()
    assert pb.GetOnlineFeaturesResponse.FromString(call.result()).row_count == 1
    draining.join(LIMIT_S)
    assert not draining.is_alive()
    served.channel.close()


def test_caller_without_a_good_token_is_refused(parts: Parts) -> None:
    class Nobody(OpenAuthenticator):
        def authenticate(self, authorization: str, identity: bytes = b"") -> Principal:
            raise Unauthenticated(f"{authorization} is gone", reason="TOKEN_UNKNOWN")

    meter = Telemetry(TelemetryConfig("test")).calls.meter(READ_METHOD, "unary")
    misses = MissReads(parts.reads, Nobody(), meter, parts.log)
    read = Given(request([1]), b"Bearer x")
    misses.answer([read])
    (answer,) = read.outcomes
    assert answer[:2] == (16, b"Bearer x is gone")


def test_message_of_a_refusal_is_escaped() -> None:
    code, message, details = refusal(NotFound("no lädchen 100%\n~", reason="UNKNOWN"))
    assert (code, message) == (5, b"no l%C3%A4dchen 100%25%0A~")
    assert b"=" not in details
