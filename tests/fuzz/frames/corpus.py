"""Writes the first inputs of the frame fuzz: `python -m tests.fuzz.frames.corpus`; others were found by the driver."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import shard_service_pb2 as shard_pb
from tests.integration import frames
from tests.integration.frames import END_HEADERS, END_STREAM, frame, message, request_fields

FOLDER: Final = Path(__file__).parent / "corpus"
CLIENT, BACK, WORK, TIME, TAKE, CONNECT, LEAVE, BACK_LEAVES, DRAIN, RAW = range(10)
HELLO: Final = frames.PREFACE + frame(frames.SETTINGS)
ROWS: Final = "/headrace.feature.v1.ShardService/BatchGetRows"
HEALTH: Final = "/grpc.health.v1.Health/Check"
LIMIT: Final = ("grpc-timeout", "100m")
TOKEN: Final = ("authorization", "Bearer token")
READ: Final = pb.GetOnlineFeaturesRequest(
    feature_service="a.b.c", entity_columns=[pb.EntityColumn(join_key="k", int64_values=[1, 2])]
).SerializeToString()


def step(kind: int, *data: bytes) -> bytes:
    """One step of an input."""
    joined = b"".join(data)
    return struct.pack("<BH", kind, len(joined)) + joined


def sent(*data: bytes) -> bytes:
    """The first step of a client."""
    return step(CLIENT, HELLO, *data)


def call(stream: int, path: str, data: bytes, *more: tuple[str, str], end: bool = True) -> bytes:
    """Frames of a unary call."""
    head = frame(frames.HEADERS, END_HEADERS, stream, request_fields(path, *more))
    return head + frame(frames.DATA, END_STREAM if end else 0, stream, message(data))


def inputs() -> Mapping[str, bytes]:
    """Inputs by name; each reaches a part of the loop of its own."""
    read = call(1, frames.READ_PATH, READ, TOKEN)
    window = frame(frames.WINDOW_UPDATE, 0, 0, (1 << 20).to_bytes(4, "big"))
    reset = frame(frames.RST_STREAM, 0, 1, (8).to_bytes(4, "big"))
    answer = frame(
        frames.HEADERS, END_HEADERS, 1, frames.fields((":status", "200"), ("content-type", "application/grpc"))
    )
    trailers = frame(frames.HEADERS, END_HEADERS | END_STREAM, 1, frames.fields(("grpc-status", "0")))
    end = frame(frames.DATA, END_STREAM, 1, b"\0\0")
    away = frame(frames.GOAWAY, 0, 0, bytes(8))
    back = frame(frames.SETTINGS) + frame(frames.SETTINGS, frames.ACK)
    rows = shard_pb.BatchGetRowsRequest(keys=[bytes(17), bytes(8)]).SerializeToString()
    return {
        "miss-answered": sent(read) + step(WORK, bytes([100])) + step(TAKE),
        "miss-refused": sent(read) + step(WORK, bytes([201])) + step(TAKE),
        "miss-cancelled": sent(read, reset) + step(WORK, bytes([9])),
        "miss-left": sent(read) + step(LEAVE, b"\0") + step(WORK, bytes([9])),
        "miss-forwarded": sent(read) + step(WORK, bytes([255])) + step(BACK, back, answer, trailers),
        "with-deadline": sent(call(1, frames.READ_PATH, READ, TOKEN, LIMIT)) + step(WORK),
        "without-token": sent(call(1, frames.READ_PATH, READ)) + step(BACK, back, answer, trailers),
        "rows": sent(call(1, ROWS, rows), call(3, ROWS, b"")) + step(TAKE),
        "health": sent(call(1, HEALTH, b""), call(3, HEALTH, b"\x0a\x01x")) + step(TAKE),
        "forwarded-data": sent(call(1, "/a/b", b"x" * 99, end=False))
        + step(BACK, back, answer, frame(frames.DATA, 0, 1, b"y" * 300), trailers)
        + step(TAKE),
        "back-resets": sent(call(1, "/a/b", b"x")) + step(BACK, back, answer, reset),
        "back-leaves": sent(call(1, "/a/b", b"x")) + step(BACK, back) + step(BACK_LEAVES, b"\0"),
        "back-goes-away": sent(call(1, "/a/b", b"x")) + step(BACK, back, away),
        "two-clients": sent(read) + step(CONNECT) + sent(read) + step(WORK, bytes([3, 220])),
        "slow": step(CLIENT, HELLO[:7]) + step(TIME, bytes([44])),
        "silent": step(CLIENT, HELLO) + step(TIME, bytes([244])) + step(TIME, bytes([44])) + step(TIME, bytes([44])),
        "body-stalls": sent(call(1, frames.READ_PATH, READ, TOKEN, end=False)) + step(TIME, bytes([44])),
        "drain": sent(read) + step(DRAIN) + step(TIME, b"\1") + step(TIME, b"\1") + step(WORK, bytes([50])),
        "control": sent(frame(frames.PING, 0, 0, bytes(8)), window, frame(frames.PRIORITY, 0, 1, bytes(5))),
        "pings": sent(*[frame(frames.PING, 0, 0, bytes(8))] * 5),
        "odd-length": sent(call(1, frames.READ_PATH, b"", TOKEN), end),
        "continued": sent(
            frame(frames.HEADERS, 0, 1, request_fields()[:20]),
            frame(frames.CONTINUATION, END_HEADERS, 1, request_fields()[20:]),
        ),
        "no-record": step(RAW, b"GET / HTTP/1.1\r\n\r\n") + sent(read),
        "broken-record": sent(read) + step(RAW, b"\x17\3\3\0\x20", bytes(32)) + step(TAKE),
        "alert": sent(read) + step(RAW, b"\x15\3\3\0\2\1\0") + step(WORK, bytes([100])),
    }  # fmt: skip


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, data in inputs().items():
        (FOLDER / name).write_bytes(data)
