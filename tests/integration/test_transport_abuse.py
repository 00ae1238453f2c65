"""Clients that break the rules of HTTP/2 against the native loop: they are cut off, and others are served meanwhile."""

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from feature_server.rpc.native_front import HAS_NATIVE
from tests.integration import frames
from tests.integration.frames import frame, message, raw_client, request_fields
from tests.integration.test_server_life import Server, apply, registry, server, wait_until
from tests.integration.test_transport_conformance import port_of, read_request

pytestmark = pytest.mark.skipif(not HAS_NATIVE, reason="the native loop was not compiled in")

FLOOD = 5_000
CALM_DOWN = 11
MUTANTS = 300
WIDE_ROWS = 7_000  # their request fits into the first window of a stream
READS_UNREAD = 8
FRAME_BYTES = 16_384
CAP_BYTES = 128 << 20
BODY = message(read_request(1).SerializeToString())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A loaded server with two loops."""
    folder = tmp_path_factory.mktemp("abuse")
    with registry(folder / "registry") as address:
        apply(address)
        with server(folder / "store", address, "--transport", "native", "--loops", "2") as started:
            wait_until(started.is_serving)
            started.write(1)
            assert started.read(1) == bytes([1])
            yield started


@pytest.fixture(autouse=True)
def others_are_served(running: Server) -> Iterator[None]:
    """After every attack a good client reads, over the connection that it had before."""
    yield
    assert running.read(1) == bytes([1])


def goodbye(running: Server, *attack: bytes) -> int:
    """Error code of the GOAWAY that the attack is answered with."""
    with raw_client(port_of(running)) as client:
        client.send(*attack)
        payload = client.until(frames.GOAWAY)
        client.ends()
        return int.from_bytes(payload[4:8], "big")


def test_rapid_reset_is_cut_off(running: Server) -> None:
    attack = []
    for number in range(FLOOD):
        stream = 2 * number + 1
        attack.append(frame(frames.HEADERS, frames.END_HEADERS, stream, request_fields()))
        attack.append(frame(frames.RST_STREAM, 0, stream, (8).to_bytes(4, "big")))
    assert goodbye(running, *attack) == CALM_DOWN


@pytest.mark.parametrize(
    "attack",
    [
        [frame(frames.SETTINGS)] * FLOOD,
        [frame(frames.PING, 0, 0, bytes(8))] * FLOOD,
        [frame(frames.PRIORITY, 0, 1, bytes([0, 0, 0, 3, 1]))] * FLOOD,
        [frame(frames.HEADERS, frames.END_HEADERS, 1, request_fields()), *[frame(frames.DATA, 0, 1)] * FLOOD],
    ],
    ids=["settings", "pings", "priorities", "empty_data"],
)
def test_flood_is_cut_off(running: Server, attack: list[bytes]) -> None:
    assert goodbye(running, *attack) == CALM_DOWN


def test_endless_header_block_is_cut_off(running: Server) -> None:
    part = frames.fields(("x-filling", "a" * 100)) * 100
    first = frame(frames.HEADERS, 0, 1, request_fields())
    with raw_client(port_of(running)) as client:
        client.send(first, *[frame(frames.CONTINUATION, 0, 1, part)] * 100)
        assert frames.HEADERS not in client.ends()


def test_header_bomb_is_refused(running: Server) -> None:
    # One field in the table, named again a thousand times: a few bytes that unpack to a hundred times as many.
    name, value = b"x-bomb", b"a" * 120
    inserted = b"\x40" + bytes([len(name)]) + name + bytes([len(value)]) + value
    with raw_client(port_of(running)) as client:
        client.send(frame(frames.HEADERS, frames.END_HEADERS, 1, request_fields() + inserted + b"\xbe" * 400))
        kind, flags, _, _ = next(found for found in client.frames() if found[2] == 1)
        assert kind == frames.RST_STREAM or (kind == frames.HEADERS and flags & frames.END_STREAM)


@pytest.mark.parametrize(
    "wrong",
    [
        frame(frames.DATA, 0, 1, b"", length=(1 << 24) - 1),
        frame(frames.HEADERS, frames.END_HEADERS, 2, request_fields()),
        frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
        frame(frames.PING, 0, 0, b"short"),
        frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)),
        frame(frames.PUSH, frames.END_HEADERS, 1, bytes(4)),
        frame(frames.CONTINUATION, frames.END_HEADERS, 1, request_fields()),
        frame(frames.SETTINGS, 0, 0, bytes([0, 4, 0xFF, 0xFF, 0xFF, 0xFF])),
    ],
    ids=["oversized", "even_stream", "bad_hpack", "short_ping", "no_window", "push", "continuation", "bad_setting"],
)
def test_frame_against_the_rules_ends_the_connection(running: Server, wrong: bytes) -> None:
    assert goodbye(running, wrong) != 0


def test_preface_of_another_protocol_is_cut_off(running: Server) -> None:
    with raw_client(port_of(running), greets=False) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n" + bytes(100))
        client.ends()


def test_truncated_frames_and_sudden_ends_leave_nothing_behind(running: Server) -> None:
    whole = frame(frames.HEADERS, frames.END_HEADERS, 1, request_fields()) + frame(frames.DATA, 1, 1, BODY)
    for end in range(0, len(whole), 5):
        with raw_client(port_of(running)) as client:
            client.send(whole[:end])
    assert running.read(1) == bytes([1])


def test_random_damage_never_ends_the_server(running: Server, seed: int) -> None:
    random = Random(seed)
    whole = frames.PREFACE + frame(frames.SETTINGS)
    for stream in (1, 3, 5):
        whole += frame(frames.HEADERS, frames.END_HEADERS, stream, request_fields()) + frame(
            frames.DATA, 1, stream, BODY
        )
    for _ in range(MUTANTS):
        damaged = bytearray(whole)
        for _ in range(random.randint(1, 8)):
            damaged[random.randrange(len(frames.PREFACE), len(damaged))] = random.randrange(256)
        with socket.create_connection(("127.0.0.1", port_of(running)), timeout=frames.LIMIT_S) as connection:
            connection.sendall(damaged)
    assert running.read(1) == bytes([1])


def test_many_idle_connections_do_not_keep_others_out(running: Server) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            client = stack.enter_context(raw_client(port_of(running), greets=False))
            client.send(frames.PREFACE[:7])
        assert running.read(1) == bytes([1])


def test_silent_start_is_cut_off_in_time(running: Server) -> None:
    with raw_client(port_of(running), greets=False) as client:
        client.send(frames.PREFACE[:7])
        assert frames.DATA not in client.ends()


def test_slow_readers_of_wide_reads_stay_within_the_memory_of_connections(tmp_path: Path) -> None:
    keys = range(WIDE_ROWS)
    wide = message(read_request(*keys).SerializeToString())
    options = ("--transport", "native", "--loops", "2", "--connection-bytes", str(CAP_BYTES), "--metrics-port", "0")
    with ExitStack() as stack:
        address = stack.enter_context(registry(tmp_path / "registry"))
        apply(address)
        started = stack.enter_context(server(tmp_path / "store", address, *options))
        wait_until(started.is_serving)
        started.write(1)
        answer_bytes = len(started.stub.GetOnlineFeatures(read_request(*keys)).SerializeToString())
        clients = 2 * CAP_BYTES // (READS_UNREAD * answer_bytes) + 1
        most = 0.0
        for number in range(clients):
            client = stack.enter_context(raw_client(port_of(started)))
            for stream in range(1, 2 * READS_UNREAD, 2):
                client.send(frame(frames.HEADERS, frames.END_HEADERS, stream, request_fields()))
                for start in range(0, len(wide), FRAME_BYTES):
                    part = wide[start : start + FRAME_BYTES]
                    client.send(frame(frames.DATA, int(start + FRAME_BYTES >= len(wide)), stream, part))
            if number % 10 == 0:
                most = max(most, metric(started, "headrace_native_memory_bytes"))
                assert started.read(1) == bytes([1])
        assert most <= CAP_BYTES
        assert most > CAP_BYTES // 2, "the bound was reached"
        assert metric(started, "headrace_native_greedy_total") > 0
        assert started.read(1) == bytes([1])


def metric(running: Server, name: str) -> float:
    port = next(event["metrics_port"] for event in running.events() if event["event"] == "listening")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=frames.LIMIT_S) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith((f"{name}{{", f"{name} "))).rpartition(" ")[2])
