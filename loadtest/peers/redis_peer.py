"""Redis on loopback: the store below Feast, and a peer of its own with one packed value or one hash per entity."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from loadtest.dataset import key_ranges
from loadtest.peers.h2load import CONNECTIONS
from loadtest.peers.plane_data import narrow_values
from loadtest.peers.processes import LOOPBACK, Child, listens, start_failed
from loadtest.rows import FEATURES_PER_VIEW, Keys, values

BLOB_VIEWS: Final = 4
BLOB_BYTES: Final = BLOB_VIEWS * FEATURES_PER_VIEW * 4
CHUNK_KEYS: Final = 5_000
REPLY_S: Final = 120.0
DIGITS: Final = 12  # how redis-benchmark writes a random number into a key
_RATE = re.compile(r"([\d.]+) requests per second(?:, p50=([\d.]+) msec)?")


class RedisPeer:
    """One redis-server whose data lie in `folder` as a dump that is read at the next start."""

    def __init__(self, folder: Path, port: int) -> None:
        if shutil.which("redis-server") is None:
            raise start_failed("redis-server is not installed: install Debian's redis-server")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port
        command = ["redis-server", "--port", str(port), "--bind", LOOPBACK, "--save", "", "--appendonly", "no"]
        command += ["--dir", str(folder), "--dbfilename", "dump.rdb", "--rdbcompression", "no"]
        self.child = Child(command, folder / "redis.log")
        self.child.wait_until(lambda: listens(port) and self.ask("PING") == "PONG", "redis-server", REPLY_S)

    def ask(self, *words: str) -> str:
        """One command through redis-cli."""
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=REPLY_S).stdout.strip()

    def save(self) -> None:
        """Writes the dump that the next start reads."""
        self.ask("SAVE")

    def load_blobs(self, key_count: int) -> None:
        """Stores 800 packed bytes per entity under one key."""
        self._send(blob_commands(key_count))

    def load_narrow(self, key_count: int) -> None:
        """Stores 40 packed bytes per entity under one key."""
        self._send(narrow_commands(key_count))

    def load_hashes(self, key_count: int) -> None:
        """Stores one hash of 200 fields per entity."""
        self._send(hash_commands(key_count))

    def _send(self, chunks: Iterator[tuple[int, bytes]]) -> None:
        """Sends pipelined commands and counts their replies, so that nothing is lost unseen."""
        with socket.create_connection((LOOPBACK, self.port), timeout=REPLY_S) as connection:
            for count, commands in chunks:
                connection.sendall(commands)
                replies = b""
                while replies.count(b"\r\n") < count:
                    part = connection.recv(1 << 20)
                    if not part:
                        raise start_failed("redis-server closed the connection while it was loaded")
                    replies += part
                if b"-" in replies:
                    raise start_failed(f"redis-server refused a write: {replies[:200].decode(errors='replace')}")

    def benchmark(
        self, command: list[str], requests: int, key_count: int, connections: int = CONNECTIONS
    ) -> tuple[float, float]:
        """Requests per second and p50 in ms of redis-benchmark, its keys uniform over the entities."""
        line = ["redis-benchmark", "-h", LOOPBACK, "-p", str(self.port), "-c", str(connections), "-P", "1", "-q"]
        line += ["-n", str(requests), "-r", str(key_count), *command]
        done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=REPLY_S)
        found = _RATE.findall(done.stdout)
        if not found:
            raise start_failed(f"redis-benchmark printed no rate: {done.stdout[-200:]}")
        return float(found[-1][0]), float(found[-1][1] or 0)


def get_command(entities: int) -> list[str]:
    """Reads the packed value of that many random entities."""
    keys = ["b:__rand_int__"] * entities
    return ["GET", *keys] if entities == 1 else ["MGET", *keys]


def narrow_command(entities: int) -> list[str]:
    """Reads the ten packed values of that many random entities."""
    return ["MGET", *(["n:__rand_int__"] * entities)]


def hmget_command() -> list[str]:
    """Reads the 200 fields of one random entity."""
    return ["HMGET", "h:__rand_int__", *hash_fields()]


def hash_fields() -> list[str]:
    """Names of the fields of one hash."""
    return [f"f{index:03d}" for index in range(BLOB_VIEWS * FEATURES_PER_VIEW)]


def packed(keys: Keys) -> list[bytes]:
    """The 200 values of each key, one after another."""
    rows = np.hstack([values(view, keys) for view in range(BLOB_VIEWS)]).astype("<f4")
    return [row.tobytes() for row in rows]


def blob_commands(key_count: int) -> Iterator[tuple[int, bytes]]:
    """Chunks of SET commands in the wire form of Redis, with the count in each."""
    for start in range(0, key_count, CHUNK_KEYS):
        keys = np.arange(start, min(start + CHUNK_KEYS, key_count), dtype=np.int64)
        parts = [
            b"*3\r\n$3\r\nSET\r\n$14\r\nb:%012d\r\n$%d\r\n%b\r\n" % (key, BLOB_BYTES, blob)
            for key, blob in zip(keys.tolist(), packed(keys), strict=True)
        ]
        yield len(parts), b"".join(parts)


def narrow_commands(key_count: int) -> Iterator[tuple[int, bytes]]:
    """Chunks of SET commands of ten values, with the count in each."""
    for keys in key_ranges(0, key_count, CHUNK_KEYS):
        parts = [
            b"*3\r\n$3\r\nSET\r\n$14\r\nn:%012d\r\n$%d\r\n%b\r\n" % (key, len(blob), blob)
            for key, blob in zip(keys.tolist(), map(bytes, narrow_values(keys).astype("<f4")), strict=True)
        ]
        yield len(parts), b"".join(parts)


def hash_commands(key_count: int) -> Iterator[tuple[int, bytes]]:
    """Chunks of HSET commands in the wire form of Redis, with the count in each."""
    names = [b"$4\r\n%b\r\n$4\r\n" % name.encode() for name in hash_fields()]
    head = b"*%d\r\n$4\r\nHSET\r\n$14\r\n" % (2 + 2 * len(names))
    for start in range(0, key_count, CHUNK_KEYS):
        keys = np.arange(start, min(start + CHUNK_KEYS, key_count), dtype=np.int64)
        parts = [
            head
            + b"h:%012d\r\n" % key
            + b"".join(name + row[4 * at : 4 * at + 4] + b"\r\n" for at, name in enumerate(names))
            for key, row in zip(keys.tolist(), packed(keys), strict=True)
        ]
        yield len(parts), b"".join(parts)
