"""Bytes and connections that no honest client sends."""

import socket
import struct
from contextlib import suppress
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA: Final = 0
_HEADERS: Final = 1
_SETTINGS: Final = 4
_END_HEADERS: Final = 4
_WIRE_BYTES: Final = 2
_ANSWER_BYTES_MAX: Final = 64 << 10


def varint(value: int) -> bytes:
    """Protobuf varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number: int, payload: bytes) -> bytes:
    """Length-delimited field."""
    return varint(number << 3 | _WIRE_BYTES) + varint(len(payload)) + payload


def nested(numbers: tuple[int, ...], depth: int) -> bytes:
    """Messages within messages, `depth` rounds of the field numbers deep."""
    data = b""
    for _ in range(depth):
        for number in reversed(numbers):
            data = field(number, data)
    return data


def unknown_fields(count: int, number: int = 15_000) -> bytes:
    """Fields that no message has."""
    return (varint(number << 3) + b"\x01") * count


def announce(address: str, method: str, length: int, limit_s: float) -> bytes:
    """Opens a call over a bare connection, announces a message of a length, sends 100 bytes of it; what came back."""
    host, port = address.rsplit(":", 1)
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": address,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in headers.items()
    )
    call = _frame(_SETTINGS, 0, 0, b"") + _frame(_HEADERS, _END_HEADERS, 1, block)
    call += _frame(_DATA, 0, 1, struct.pack(">BI", 0, length) + bytes(100))
    answer = b""
    with socket.create_connection((host, int(port)), timeout=limit_s) as connection:
        connection.sendall(PREFACE + call)
        while len(answer) < _ANSWER_BYTES_MAX and not _has_ended(answer):
            part = connection.recv(4_096)
            if not part:
                break
            answer += part
    return answer


def speak(address: str, data: bytes, limit_s: float) -> bytes:
    """Sends bytes over a bare connection, says that nothing follows, and takes what comes back."""
    host, port = address.rsplit(":", 1)
    answer = b""
    with socket.create_connection((host, int(port)), timeout=limit_s) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while len(answer) < _ANSWER_BYTES_MAX and (part := connection.recv(4_096)):
                answer += part
    return answer


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def _has_ended(answer: bytes) -> bool:
    """Whether stream 1 was ended or reset, or the connection was given up."""
    at = 0
    while at + 9 <= len(answer):
        length = int.from_bytes(answer[at : at + 3], "big")
        kind, flags, stream = struct.unpack_from(">BBI", answer, at + 3)
        if kind == 7 or (stream == 1 and (kind == 3 or (kind == _HEADERS and flags & 1))):
            return True
        at += 9 + length
    return False
