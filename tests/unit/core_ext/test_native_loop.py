"""Threads that answer misses for the native loop: what they may say, and what happens when they fail or are missing."""

import resource
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

if TYPE_CHECKING:
    from core_ext.native_loop import MissedRead

native_loop = pytest.importorskip("core_ext.native_loop", reason="the native loop was not compiled in")

from core_ext.expressions import Program  # noqa: E402 - behind the skip
from core_ext.on_demand import FROM_REQUEST, OnDemand  # noqa: E402 - behind the skip
from core_ext.request_core import ON_DEMAND, Plan, RequestCore  # noqa: E402 - behind the skip
from core_ext.row_table import RowTable  # noqa: E402 - behind the skip
from core_ext.served_ring import ServedRing  # noqa: E402 - behind the skip
from headrace.expressions import compile_expression  # noqa: E402 - behind the skip
from headrace.types import Scalar, ValueType  # noqa: E402 - behind the skip
from protos.feature.v1.online_feature_service_pb2 import (  # noqa: E402 - behind the skip
    EntityColumn,
    GetOnlineFeaturesRequest,
    RequestColumn,
)
from tests.integration import frames  # noqa: E402 - behind the skip
from tests.integration.certificates import Authority  # noqa: E402 - behind the skip
from tests.unit.core_ext.test_request_core import request  # noqa: E402 - behind the skip

LIMIT_S = 20.0
METHOD = "/headrace.feature.v1.OnlineFeatureService/GetOnlineFeatures"
DATA = request(feature_service="nobody.knows.it")  # so every read is a miss
LARGE = (16 << 20) + 1
OPEN, STREAMS = 4_096, 1_000  # HR_H2_OPEN_MAX; below HR_H2_STREAMS_MAX
Outcome = bytes | tuple[int, bytes, bytes]
Answer = Callable[["MissedRead"], Outcome]
AnswerTurn = Callable[[list["MissedRead"]], None]


def giving(answer: Answer) -> AnswerTurn:
    """Gives every read of a turn its outcome at once."""

    def give(turn: "list[MissedRead]") -> None:
        for read in turn:
            read.give(answer(read))

    return give


class Loop:
    """A native server with nobody behind it, and threads that answer."""

    def __init__(self, answer: AnswerTurn, thread_count: int, idle_s: int, memory: int, log: ServedRing | None) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        self.core = RequestCore(RowTable(1 << 20), 8)
        if log is not None:
            self.core.log_reads(log)
        self.server = native_loop.NativeServer(
            self.core, listener, b"nobody", 2, idle_s=idle_s, memory_bytes_max=memory
        )
        self.server.allow_all()
        self.server.start()
        self.errors: list[BaseException] = []
        self.threads = [threading.Thread(target=self._answer, args=(answer,)) for _ in range(thread_count)]
        for thread in self.threads:
            thread.start()
        self.port = int(listener.getsockname()[1])
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.read: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(METHOD)

    def _answer(self, answer: AnswerTurn) -> None:
        try:
            self.server.answer_misses(answer)
        except (TypeError, ValueError) as error:
            self.errors.append(error)

    def call(self, metadata: tuple[tuple[str, str], ...] = ()) -> bytes | tuple[str, str]:
        try:
            return self.read(DATA, timeout=LIMIT_S, metadata=metadata)
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""


@contextmanager
def answering(
    answer: AnswerTurn, thread_count: int = 1, idle_s: int = 60, memory: int = 512 << 20, log: ServedRing | None = None
) -> Iterator[Loop]:
    loop = Loop(answer, thread_count, idle_s, memory, log)
    try:
        yield loop
    finally:
        loop.channel.close()
        loop.server.stop()
        for thread in loop.threads:
            thread.join(LIMIT_S)
            assert not thread.is_alive()


@contextmanager
def running(
    answer: Answer, thread_count: int = 1, idle_s: int = 60, memory: int = 512 << 20, log: ServedRing | None = None
) -> Iterator[Loop]:
    """Every read is given its outcome on the thread that took it."""
    with answering(giving(answer), thread_count, idle_s, memory, log) as loop:
        yield loop


def test_request_and_header_come_as_they_were_sent() -> None:
    seen: list[MissedRead] = []

    def answer(read: "MissedRead") -> bytes:
        seen.append(read)
        return b"answer"

    with running(answer) as loop:
        assert loop.call((("authorization", "Bearer x"),)) == b"answer"
        assert loop.read(DATA) == b"answer"
    first, second = seen
    assert (first.request, first.authorization, first.identity) == (DATA, b"Bearer x", b"")
    assert (second.authorization, second.deadline_s) == (b"", None)
    assert first.deadline_s is not None
    # The client counts from its own clock, which on a busy machine lags behind ours by a tenth of a second.
    assert LIMIT_S / 2 < first.deadline_s - first.begun_s <= 2 * LIMIT_S


@pytest.mark.parametrize("size", [0, 1, 16_384, 4 << 20, LARGE - 6])
def test_answer_of_any_size_arrives_whole(size: int) -> None:
    answer = bytes(range(256)) * (size // 256) + bytes(size % 256)
    options = [("grpc.max_receive_message_length", -1)]
    with running(lambda *_: answer) as loop, grpc.insecure_channel(f"127.0.0.1:{loop.port}", options) as channel:
        read: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        assert read(DATA, timeout=LIMIT_S) == answer


def test_refusal_arrives_with_its_text() -> None:
    with running(lambda *_: (11, b"not %41 now", b"")) as loop:
        assert loop.call() == ("OUT_OF_RANGE", "not A now")


def test_answer_beyond_what_a_connection_may_hold_is_left_to_the_server_behind() -> None:
    with running(lambda *_: bytes(LARGE)) as loop:
        assert loop.call()[0] == "UNAVAILABLE"
        assert loop.server.counts()["forwarded"] == 1


@pytest.mark.parametrize("wrong", [None, (1, b"x"), ("x", b"", b""), (1, None, b""), (0, b"", b""), (17, b"", b"")])
def test_outcome_of_another_form_ends_the_thread_and_leaves_the_read_to_the_server_behind(wrong: object) -> None:
    def answer(*_: object) -> Outcome:
        return wrong  # type: ignore[return-value]  # that is the test

    with running(answer) as loop:
        assert loop.call()[0] == "UNAVAILABLE"
        loop.threads[0].join(LIMIT_S)
        assert len(loop.errors) == 1


def test_thread_that_fails_leaves_its_reads_to_the_server_behind_and_the_others_go_on() -> None:
    lock = threading.Lock()
    calls = 0

    def answer(*_: object) -> bytes:
        nonlocal calls
        with lock:
            calls += 1
            if calls == 1:
                raise ValueError("broken")
        return b"fine"

    with running(answer, thread_count=2) as loop:
        outcomes = [loop.call() for _ in range(3)]
    assert [outcome[0] if isinstance(outcome, tuple) else outcome for outcome in outcomes] == [
        "UNAVAILABLE",
        b"fine",
        b"fine",
    ]
    assert [str(error) for error in loop.errors] == ["broken"]


def test_outcomes_of_one_turn_are_given_in_any_order_by_any_thread() -> None:
    held: list[MissedRead] = []
    begun, go_on = threading.Event(), threading.Event()

    def answer(turn: "list[MissedRead]") -> None:
        if not begun.is_set():
            begun.set()
            assert go_on.wait(LIMIT_S)
            turn[0].give(b"first")
        else:
            held.extend(turn)

    with answering(answer) as loop:
        first = loop.read.future(DATA, timeout=LIMIT_S)
        assert begun.wait(LIMIT_S)
        calls = [loop.read.future(DATA, timeout=LIMIT_S) for _ in range(20)]
        wait_until(lambda: loop.server.counts()["missed"] == 21, "every read is a miss")
        go_on.set()
        assert first.result() == b"first"
        wait_until(lambda: len(held) == 20, "the thread takes what comes while others wait for their outcome")
        late = held.pop(0)
        for number, read in enumerate(reversed(held)):
            read.give(b"%d" % number)
        wait_until(lambda: sum(call.done() for call in calls) == 19, "each is answered as it is given")
        stopping = threading.Thread(target=loop.server.stop)
        stopping.start()
        stopping.join(0.1)
        assert stopping.is_alive(), "a read is open"
        late.give(b"late")
        stopping.join(LIMIT_S)
        assert not stopping.is_alive()
        # The last one is answered or, as its connection ends with the server, cut off.
        told = {call.result() for call in calls if call.exception() is None} - {b"late"}
        assert told == {b"%d" % number for number in range(19)}


def test_a_read_has_one_outcome() -> None:
    def answer(turn: "list[MissedRead]") -> None:
        for read in turn:
            read.give(b"one")
            read.give(b"another")

    with answering(answer) as loop:
        assert [loop.call() for _ in range(3)] == [b"one"] * 3


def test_read_that_is_dropped_is_left_to_the_server_behind() -> None:
    with answering(lambda turn: None) as loop:
        assert loop.call()[0] == "UNAVAILABLE"
        assert loop.server.counts()["forwarded"] == 1


def test_reads_of_a_turn_that_raises_are_left_to_the_server_behind_though_somebody_holds_them() -> None:
    held: list[MissedRead] = []

    def answer(turn: "list[MissedRead]") -> None:
        held.extend(turn)
        raise ValueError("broken")

    with answering(answer) as loop:
        assert loop.call()[0] == "UNAVAILABLE"
        held[0].give(b"too late")
    assert [str(error) for error in loop.errors] == ["broken"]


def test_reads_without_an_outcome_are_bounded() -> None:
    held: list[MissedRead] = []
    with answering(held.extend) as loop, ExitStack() as stack:

        def counts() -> tuple[int, int]:
            found = loop.server.counts()
            return found["missed"], found["full"]

        calls = []
        for number in range(1, OPEN // STREAMS + 2):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{loop.port}", options))
            read: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            calls += [read.future(DATA, timeout=LIMIT_S) for _ in range(STREAMS)]
            wait_until(lambda: sum(counts()) == number * STREAMS, "they are taken or refused")  # noqa: B023
        assert counts() == (OPEN, len(calls) - OPEN)
        assert loop.call() == ("RESOURCE_EXHAUSTED", native_loop.FULL_MESSAGE.decode())
        wait_until(lambda: len(held) == OPEN, "all are taken")
        held.pop().give(b"fine")
        held.pop().give(b"fine")
        one = loop.read.future(DATA, timeout=LIMIT_S)
        wait_until(lambda: len(held) == OPEN - 1, "there is room for one")
        for open_read in [*held]:
            open_read.give(b"fine")
        assert one.result() == b"fine"
        assert sum(call.exception() is None for call in calls) == OPEN


def test_misses_without_a_thread_are_left_to_the_server_behind() -> None:
    with running(lambda *_: b"", thread_count=0) as loop:
        assert loop.call()[0] == "UNAVAILABLE"
        assert [loop.server.counts()[name] for name in ("missed", "forwarded")] == [0, 1]


def test_stop_waits_for_the_read_that_a_thread_has_and_frees_those_that_wait() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def answer(*_: object) -> bytes:
        begun.set()
        assert go_on.wait(LIMIT_S)
        return b"late"

    with running(answer) as loop:
        calls = [loop.read.future(DATA, timeout=LIMIT_S) for _ in range(40)]
        assert begun.wait(LIMIT_S)
        stopping = threading.Thread(target=loop.server.stop)
        stopping.start()
        stopping.join(0.2)
        assert stopping.is_alive()
        go_on.set()
        stopping.join(LIMIT_S)
        assert not stopping.is_alive()
        assert all(call.exception(LIMIT_S) is not None or call.result() == b"late" for call in calls)
        loop.server.answer_misses(giving(answer))  # returns at once


def test_connection_without_a_stream_is_told_to_leave_and_one_with_a_stream_stays() -> None:
    go_on = threading.Event()

    def answer(*_: object) -> bytes:
        assert go_on.wait(LIMIT_S)
        return b"late"

    with running(answer, idle_s=1) as loop, frames.raw_client(loop.port) as idle:
        call = loop.read.future(DATA, timeout=LIMIT_S)
        assert frames.GOAWAY in idle.ends()
        assert loop.server.counts()["idle_connections"] == 1
        assert not call.done()
        go_on.set()
        assert call.result() == b"late"
        assert loop.call() == b"late"


def test_certificate_that_openssl_cannot_use_is_refused_and_the_last_kept(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good, other = authority.issue("good"), authority.issue("other")
    chain, key = good.certificate.read_bytes(), good.key.read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        core = RequestCore(RowTable(1 << 20), 8)
        server = native_loop.NativeServer(core, listener, b"nobody", 1, secret=b"s" * native_loop.SECRET_LENGTH)
        server.set_tls(chain, key, authority.file.read_bytes())
        for bad, what in (
            ((b"", key), "the certificate"),
            ((chain, b""), "the key"),
            ((chain, other.key.read_bytes()), "key values mismatch"),
            ((chain + b"-----BEGIN CERTIFICATE-----\nnone\n", key), "the certificate"),
            ((chain, key, b"none"), "client authority"),
        ):
            with pytest.raises(ValueError, match=what):
                server.set_tls(*bad)
        server.start()
        try:
            with frames.raw_client(listener.getsockname()[1], tls=trusting(authority)) as client:
                client.until(frames.SETTINGS)
            server.set_tls(chain, key)
        finally:
            server.stop()
        assert (server.counts()["handshakes"], server.counts()["failed_handshakes"]) == (1, 0)


def test_certificates_come_before_the_start_and_identities_with_a_secret(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("server")
    chain, key = pair.certificate.read_bytes(), pair.key.read_bytes()
    with running(lambda *_: b"") as loop, pytest.raises(ValueError, match="before the start"):
        loop.server.set_tls(chain, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        core = RequestCore(RowTable(1 << 20), 8)
        with pytest.raises(ValueError, match="a secret has"):
            native_loop.NativeServer(core, listener, b"nobody", 1, secret=b"short")
        server = native_loop.NativeServer(core, listener, b"nobody", 1)
        with pytest.raises(ValueError, match="give one"):
            server.set_tls(chain, key, chain)
        with pytest.raises(ValueError, match="credential 2"):
            server.allow(0, [], 2)


def trusting(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2"])
    return context


SLOW_READERS = 1_000
LARGE_BYTES = 1 << 20
CAP = 64 << 20
LARGE_READ = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, frames.request_fields(METHOD)) + frames.frame(
    frames.DATA, frames.END_STREAM, 1, frames.message(DATA)
)
RESIDENT_SLACK = 96 << 20  # of a thousand sessions of HTTP/2 and the allocator


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def p99_s(loop: Loop, calls: int = 300) -> float:
    spans = []
    for _ in range(calls):
        began = time.perf_counter()
        assert loop.call((("authorization", "small"),)) == b"small"
        spans.append(time.perf_counter() - began)
    return sorted(spans)[calls * 99 // 100]


@pytest.mark.memory
def test_slow_readers_of_large_answers_stay_within_the_memory_and_others_are_served() -> None:
    large = bytes(LARGE_BYTES)

    def answer(read: "MissedRead") -> bytes:
        return b"small" if read.authorization == b"small" else large

    with running(answer, 2, memory=CAP) as loop, ExitStack() as stack:
        before_s, before_bytes, most = p99_s(loop), resident(), 0
        for _ in range(SLOW_READERS):
            client = stack.enter_context(frames.raw_client(loop.port))
            client.send(LARGE_READ)  # and nothing of the answer is read
            most = max(most, loop.server.memory_bytes())
        during_s = p99_s(loop)
        most = max(most, loop.server.memory_bytes())
        assert most <= CAP
        assert resident() - before_bytes < CAP + RESIDENT_SLACK
        assert during_s < max(2 * before_s, 0.05), f"{during_s} s of small reads, {before_s} s before"
        counts = loop.server.counts()
        assert counts["greedy_connections"] > 0
        assert counts["greedy_connections"] + counts["memory_refused"] >= SLOW_READERS - CAP // LARGE_BYTES


def test_every_byte_that_was_counted_is_given_back() -> None:
    with running(lambda *_: bytes(LARGE_BYTES)) as loop, ExitStack() as stack:
        for _ in range(3):
            assert loop.call() == bytes(LARGE_BYTES)
        unread = stack.enter_context(frames.raw_client(loop.port))
        unread.send(LARGE_READ)
        until = time.monotonic() + LIMIT_S
        while loop.server.memory_bytes() < LARGE_BYTES and time.monotonic() < until:
            time.sleep(0.01)
        assert loop.server.memory_bytes() >= LARGE_BYTES
        loop.server.stop()
        assert loop.server.memory_bytes() == 0


@pytest.mark.parametrize(
    ("loop_count", "needed"), [(1, 16 << 20), (8, 16 << 20), (9, 9 * 8 * (256 << 10)), (32, 32 * 8 * (256 << 10))]
)
def test_too_little_memory_is_refused(loop_count: int, needed: int) -> None:
    core = RequestCore(RowTable(1 << 20), 8)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(ValueError, match=f"need {needed} bytes of memory, not {needed - 1}"):
            native_loop.NativeServer(core, listener, b"nobody", loop_count, memory_bytes_max=needed - 1)
        native_loop.NativeServer(core, listener, b"nobody", loop_count, memory_bytes_max=needed)


# ---- memory that many hold a little of, none enough to be closed for it ----

HELD_BYTES = 12_000  # of a reader's answer; from 16 KiB on it would be closed
HELD_READERS = 1_050
SMALL_CAP = 16 << 20
NO_WINDOW = frames.frame(frames.SETTINGS, payload=struct.pack(">HI", 4, 0))  # nothing of an answer may be sent


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < until, what
        time.sleep(0.005)


@contextmanager
def full_of_small_answers(log: ServedRing | None = None) -> Iterator[Loop]:
    """Loops whose memory readers hold that take nothing, so that none of 3 MiB is left."""
    with running(lambda *_: bytes(HELD_BYTES), memory=SMALL_CAP, log=log) as loop, ExitStack() as stack:
        for number in range(1, HELD_READERS + 1):
            client = stack.enter_context(frames.raw_client(loop.port, greets=False))
            client.send(frames.PREFACE, NO_WINDOW, LARGE_READ)
            if number % 50 == 0:
                wait_until(lambda: loop.server.counts()["missed"] >= number, "every read is a miss")  # noqa: B023
        wait_until(lambda: loop.server.memory_bytes() > HELD_READERS * HELD_BYTES, "readers hold their answers")
        yield loop


def test_loops_with_nothing_to_close_let_one_another_sleep() -> None:
    with full_of_small_answers() as loop:
        began_s = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - began_s < 0.1
        assert (loop.server.counts()["greedy_connections"], loop.server.connection_count()) == (0, HELD_READERS)


COMPUTED_ROWS, COMPUTED_COLUMNS = 1_000, 350
COMPUTED_BYTES = COMPUTED_ROWS * COMPUTED_COLUMNS * 9


def computed_read(core: RequestCore, program_count: int = 1) -> bytes:
    """A request that the loop itself answers from its data; publishes what it asks for."""
    compiled = compile_expression("asked + 1.0", {"asked": ValueType(Scalar.F64)})
    programs = [(Program(compiled.program), [(FROM_REQUEST, 0)], None, 1)] * program_count
    on_demand = OnDemand([("asked", Scalar.F64)], programs)
    columns = [(f"c{at}", ON_DEMAND, 0, None) for at in range(COMPUTED_COLUMNS)]
    plan = Plan(bytes(32), 1, [("user", Scalar.I64)], [(1, [0])], [], columns, [], on_demand)
    core.publish([plan], {"a.b.computed": plan}, 1)
    asked = RequestColumn(name="asked", values=bytes(8 * COMPUTED_ROWS))
    asked.value_type.scalar_type = int(Scalar.F64)  # type: ignore[assignment]  # the number of SCALAR_TYPE_F64
    return GetOnlineFeaturesRequest(
        feature_service="a.b.computed",
        entity_columns=[EntityColumn(join_key="user", int64_values=[7] * COMPUTED_ROWS)],
        request_columns=[asked],
    ).SerializeToString()


def test_answer_that_there_is_no_memory_for_is_not_in_the_log() -> None:
    refusing, answering = ServedRing(1.0, 64 << 20, 8), ServedRing(1.0, 64 << 20, 8)
    with running(lambda *_: b"", log=answering) as loop:
        assert len(loop.read(computed_read(loop.core), timeout=LIMIT_S)) > COMPUTED_BYTES
        assert answering.counts()["sampled"] == 1
    with full_of_small_answers(refusing) as loop:
        data = computed_read(loop.core)
        with pytest.raises(grpc.RpcError) as caught:
            loop.read(data, timeout=LIMIT_S)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert loop.server.counts()["memory_refused"] == 1
        assert refusing.counts() == {"sampled": 0, "dropped": 0, "held_bytes": 0}


def test_read_that_would_hold_a_loop_for_long_is_left_to_the_server_behind() -> None:
    with running(lambda *_: b"") as loop:
        with pytest.raises(grpc.RpcError) as caught:  # there is none
            loop.read(computed_read(loop.core, (1 << 20) // COMPUTED_ROWS + 1), timeout=LIMIT_S)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert [loop.server.counts()[name] for name in ("missed", "forwarded")] == [0, 1]
