"""Commands that load Redis, in its wire form."""

import numpy as np

from loadtest.peers.redis_peer import BLOB_BYTES, blob_commands, get_command, hash_commands, hash_fields, hmget_command
from loadtest.rows import values


def test_blob_holds_the_four_views_of_its_key() -> None:
    count, commands = next(blob_commands(3))
    assert count == 3
    head, *_ = commands.split(b"\r\n", 7)
    assert head == b"*3"
    start = commands.index(b"b:000000000002\r\n$800\r\n") + len(b"b:000000000002\r\n$800\r\n")
    row = np.frombuffer(commands[start : start + BLOB_BYTES], "<f4")
    key = np.array([2], dtype=np.int64)
    assert row.tolist() == np.hstack([values(view, key)[0] for view in range(4)]).tolist()


def test_hash_has_a_field_per_feature() -> None:
    count, commands = next(hash_commands(1))
    assert count == 1
    assert commands.startswith(b"*402\r\n$4\r\nHSET\r\n$14\r\nh:000000000000\r\n$4\r\nf000\r\n$4\r\n")
    assert len(hash_fields()) == 200


def test_large_loads_come_in_chunks() -> None:
    assert [count for count, _ in blob_commands(12_000)] == [5_000, 5_000, 2_000]


def test_benchmark_commands_read_the_loaded_keys() -> None:
    assert get_command(1) == ["GET", "b:__rand_int__"]
    assert get_command(100) == ["MGET", *["b:__rand_int__"] * 100]
    assert hmget_command()[:2] == ["HMGET", "h:__rand_int__"]
    assert len(hmget_command()) == 202
