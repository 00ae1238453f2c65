"""TLS before both transports: who gets in, who does not, and what a flood of handshakes does to the others."""

import socket
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from feature_server.rpc.native_front import HAS_NATIVE, TRANSPORTS
from headrace.client.tls import channel_credentials
from tests.integration import frames
from tests.integration.certificates import Authority, Pair
from tests.integration.frames import connected, raw_client
from tests.integration.test_server_life import Server, apply, registry, server, wait_until

FLOOD = 600  # more than the 512 handshakes that the native loop lets run
HANDSHAKE_LIMIT_S = 5.0
READS = 200


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    if request.param == "native" and not HAS_NATIVE:
        pytest.skip("the native loop was not compiled in")
    return str(request.param)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def serving(folder: Path, transport: str, authority: Authority, pair: Pair) -> Iterator[Server]:
    """A server that holds the row of user 1."""
    options = ("--transport", transport, "--tls-cert", str(pair.certificate), "--tls-key", str(pair.key))
    with registry(folder / "registry") as address:
        apply(address)
        credentials = channel_credentials(authority.file)
        with server(folder / "store", address, *options, credentials=credentials) as running:
            wait_until(running.is_serving)
            running.write(1)
            yield running


def port_of(running: Server) -> int:
    return int(running.address.rpartition(":")[2])


def context_of(authority: Authority, protocols: tuple[str, ...] = ("h2",)) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def serial_of(running: Server, authority: Authority) -> int:
    """Number of the certificate that a new connection is shown."""
    with connected(port_of(running), context_of(authority)) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        found = connection.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


def is_refused(running: Server, context: ssl.SSLContext) -> bool:
    """Whether a client of TLS gets no frame of HTTP/2."""
    try:
        with raw_client(port_of(running), tls=context) as client:
            return not client.ends()
    except OSError:
        return True


def test_new_files_are_taken_and_broken_ones_are_not(transport: str, tmp_path: Path, authority: Authority) -> None:
    pair, second, third = (authority.issue(name) for name in ("server", "second", "third"))
    with serving(tmp_path, transport, authority, pair) as running:
        first = pair.serial
        assert serial_of(running, authority) == first
        second.copy_to(pair)
        wait_until(lambda: serial_of(running, authority) == second.serial)
        assert running.read(1) == bytes([1]), "an open connection keeps what it has"
        pair.key.write_bytes(third.key.read_bytes())

        def is_told() -> bool:
            assert serial_of(running, authority) == second.serial
            return running.has_event("certificate_unusable")

        wait_until(is_told)
        third.copy_to(pair)
        wait_until(lambda: serial_of(running, authority) == third.serial)
        with running.new_channel() as channel:
            assert Server(running.address, running.log, channel).read(1) == bytes([1])


def test_client_that_trusts_another_authority_stays_away(transport: str, tmp_path: Path, authority: Authority) -> None:
    other = Authority(tmp_path, "other")
    with serving(tmp_path, transport, authority, authority.issue("server")) as running:
        with pytest.raises(ssl.SSLCertVerificationError):
            connected(port_of(running), context_of(other))
        stranger = Server(running.address, running.log, running.channel, channel_credentials(other.file))
        with stranger.new_channel() as channel, pytest.raises(grpc.RpcError) as caught:
            Server(running.address, running.log, channel).read(1)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert running.read(1) == bytes([1])


def test_expired_certificate_is_not_trusted(transport: str, tmp_path: Path, authority: Authority) -> None:
    pair = authority.issue("server")
    with serving(tmp_path, transport, authority, pair) as running:
        old = authority.issue("old", is_expired=True)
        old.copy_to(pair)

        def is_expired() -> bool:
            try:
                serial_of(running, authority)
            except ssl.SSLCertVerificationError as error:
                return "expired" in str(error)
            return False

        wait_until(is_expired)


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
def test_client_without_h2_is_refused(
    transport: str, tmp_path: Path, authority: Authority, protocols: tuple[str, ...]
) -> None:
    with serving(tmp_path, transport, authority, authority.issue("server")) as running:
        assert is_refused(running, context_of(authority, protocols))
        assert running.read(1) == bytes([1])


def test_tls_below_1_2_is_refused_and_1_2_served(transport: str, tmp_path: Path, authority: Authority) -> None:
    with serving(tmp_path, transport, authority, authority.issue("server")) as running:
        for version, refused in ((ssl.TLSVersion.TLSv1_1, True), (ssl.TLSVersion.TLSv1_2, False)):
            context = context_of(authority)
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # that is why it is refused
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = version
            if refused:
                assert is_refused(running, context)
                continue
            with raw_client(port_of(running), tls=context) as client:
                client.until(frames.SETTINGS)


def test_plaintext_to_a_tls_port_and_tls_to_a_plain_port(transport: str, tmp_path: Path, authority: Authority) -> None:
    with serving(tmp_path, transport, authority, authority.issue("server")) as running:
        with raw_client(port_of(running)) as client:
            assert frames.SETTINGS not in client.ends()
        assert running.read(1) == bytes([1])
    with registry(tmp_path / "other") as address:
        apply(address)
        with server(tmp_path / "plain", address, "--transport", transport) as running:
            wait_until(running.is_serving)
            assert is_refused(running, context_of(authority))
            running.write(1)
            assert running.read(1) == bytes([1])


def hello(authority: Authority) -> bytes:
    """The first flight of a client, for which the server signs."""
    outgoing = ssl.MemoryBIO()
    client = context_of(authority).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def closed_within(connections: list[socket.socket], limit_s: float) -> int:
    """How many of the connections the server closes within a time."""
    end_s = time.monotonic() + limit_s
    closed = 0
    for connection in connections:
        try:
            connection.settimeout(max(0.01, end_s - time.monotonic()))
            while connection.recv(1 << 16):
                pass
            closed += 1
        except TimeoutError:
            pass
        except OSError:
            closed += 1
    return closed


def test_handshakes_that_come_to_no_end_hold_up_nobody(transport: str, tmp_path: Path, authority: Authority) -> None:
    with serving(tmp_path, transport, authority, authority.issue("server")) as running, ExitStack() as stack:
        flight = hello(authority)
        half_open: list[socket.socket] = []
        for number in range(FLOOD):
            connection = stack.enter_context(connected(port_of(running)))
            half_open.append(connection)
            if number % 2:
                connection.sendall(flight)
        spent_s = []
        for _ in range(READS):
            begin_s = time.monotonic()
            assert running.read(1) == bytes([1])
            spent_s.append(time.monotonic() - begin_s)
        with running.new_channel() as channel:
            assert Server(running.address, running.log, channel).read(1) == bytes([1]), "a new client comes in as well"
        assert sorted(spent_s)[READS * 99 // 100] < 0.25, (
            "a busy machine of two cores; the loop itself takes microseconds"
        )
        if transport == "native":
            evicted = closed_within(half_open[: FLOOD - 512], 1.0)
            assert evicted > (FLOOD - 512) // 2, "the oldest make room; each loop has its share"
        assert closed_within(half_open, 3 * HANDSHAKE_LIMIT_S) == FLOOD


def test_key_updates_without_end_are_stopped(tmp_path: Path, authority: Authority) -> None:
    if not HAS_NATIVE:
        pytest.skip("the native loop was not compiled in")
    with serving(tmp_path, "native", authority, authority.issue("server")) as running:
        command = ["openssl", "s_client", "-connect", running.address, "-alpn", "h2", "-tls1_3"]
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert client.stdin is not None
        try:
            flood(client)
            assert client.wait(10) is not None
        finally:
            client.kill()
            client.wait()
        assert running.read(1) == bytes([1])


def flood(client: "subprocess.Popen[bytes]") -> None:
    """Key updates until the client has gone; one line is one command of s_client."""
    assert client.stdin is not None
    for _ in range(1_000):
        try:
            client.stdin.write(b"K\n")
            client.stdin.flush()
        except BrokenPipeError:
            return
        if client.poll() is not None:
            return
        threading.Event().wait(0.001)
