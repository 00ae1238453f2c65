"""A client of HTTP/2 that writes its own frames, so that tests may send what no library would."""

import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
LIMIT_S: Final = 20.0
READ_PATH: Final = "/headrace.feature.v1.OnlineFeatureService/GetOnlineFeatures"
_HEAD: Final = struct.Struct(">BHBBI")


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    """One frame; `length` states another one than the payload has."""
    size = len(payload) if length is None else length
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def fields(*pairs: tuple[str, str]) -> bytes:
    """A header block of literals that no table keeps."""
    out = b""
    for pair in pairs:
        out += b"\0"
        for text in pair:
            data = text.encode()
            assert len(data) < 127, "one byte holds the length"
            out += bytes([len(data)]) + data
    return out


def request_fields(path: str = READ_PATH, *more: tuple[str, str]) -> bytes:
    """The header block of a gRPC call."""
    usual = ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test"))
    return fields(*usual, ("content-type", "application/grpc"), ("te", "trailers"), *more)


def message(data: bytes, flag: int = 0) -> bytes:
    """A gRPC message."""
    return struct.pack(">BI", flag, len(data)) + data


class RawClient:
    """One connection past its preface."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._pending = b""

    def send(self, *frames: bytes) -> bool:
        """Whether the server still takes what is sent."""
        try:
            self.connection.sendall(b"".join(frames))
        except OSError:
            return False
        return True

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Type, flags, stream and payload of each frame, until the server closes."""
        while True:
            while len(self._pending) < 9 or len(self._pending) < 9 + self._length():
                try:
                    part = self.connection.recv(1 << 16)
                except (ConnectionResetError, ssl.SSLError):
                    return
                if not part:
                    return
                self._pending += part
            high, low, kind, flags, stream = _HEAD.unpack(self._pending[:9])
            end = 9 + (high << 16) + low
            payload, self._pending = self._pending[9:end], self._pending[end:]
            yield kind, flags, stream, payload

    def until(self, kind: int, stream: int | None = None) -> bytes:
        """Payload of the first frame of a kind; fails where the server closes before."""
        last = b""
        for found, _, number, payload in self.frames():
            if found == kind and stream in {None, number}:
                return payload
            last = payload
        raise AssertionError(f"the server closed before a frame of type {kind} came; its last said {last!r}")

    def ends(self) -> Sequence[int]:
        """Kinds of the frames until the server closes."""
        return [kind for kind, _, _, _ in self.frames()]

    def _length(self) -> int:
        high, low = struct.unpack(">BH", self._pending[:3])
        return int(high << 16) + int(low)


def connected(port: int, tls: ssl.SSLContext | None = None) -> socket.socket:
    """A connection to loopback, past its handshake where it has one."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
    if tls is None:
        return connection
    try:
        return tls.wrap_socket(connection, server_hostname="127.0.0.1")
    except BaseException:
        connection.close()
        raise


@contextmanager
def raw_client(port: int, *, greets: bool = True, tls: ssl.SSLContext | None = None) -> Iterator[RawClient]:
    """A connection to loopback, TLS with a context, with preface and settings sent."""
    with connected(port, tls) as connection:
        client = RawClient(connection)
        if greets:
            client.send(PREFACE, frame(SETTINGS))
        yield client
