"""The sample of answered reads: who is in it, what a record holds, and what happens when nobody takes it."""

import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_ext.hashing import xxh3_64
from core_ext.request_core import RequestCore
from core_ext.row_table import RowTable
from core_ext.served_ring import ServedRing, is_sampled, threshold_of

SHARES = st.floats(0, 1)


@given(SHARES, st.binary(max_size=300), st.integers(-(2**63), 2**63 - 1))
def test_choice_is_a_hash_of_the_request_and_its_time(share: float, request: bytes, time_us: int) -> None:
    mixed = xxh3_64(struct.pack("<Qq", xxh3_64(request), time_us))
    threshold = min(int(share * 2**64), 2**64 - 1)
    assert is_sampled(share, request, time_us) == (threshold > 0 and mixed <= threshold)


def test_share_of_one_takes_all_and_of_zero_none() -> None:
    times = range(10_000)
    assert all(is_sampled(1.0, b"request", time_us) for time_us in times)
    assert not any(is_sampled(0.0, b"request", time_us) for time_us in times)
    assert threshold_of(1.0) == 2**64 - 1


def test_a_share_of_reads_is_taken_even_of_one_request() -> None:
    count = sum(is_sampled(0.01, b"request", time_us) for time_us in range(100_000))
    assert 850 < count < 1_150  # 1,000 with a deviation of 31


@pytest.mark.parametrize("share", [-0.01, 1.01, float("nan")])
def test_share_outside_of_a_whole_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        ServedRing(share, 1, 1)


def test_marks_are_of_shards_that_there_are() -> None:
    ring = ServedRing(1.0, 1 << 20, 2)
    ring.mark(1, 3, 4)
    with pytest.raises(ValueError, match="no shard 2"):
        ring.mark(2, 1, 1)
    for count in (0, 65_537):
        with pytest.raises(ValueError, match="shards"):
            ServedRing(1.0, 1, count)


def test_core_takes_one_log_of_its_shards() -> None:
    core = RequestCore(RowTable(1 << 20), 2)
    with pytest.raises(ValueError, match="4 shards"):
        core.log_reads(ServedRing(1.0, 1, 4))
    core.log_reads(ServedRing(1.0, 1, 2))
    with pytest.raises(ValueError, match="already"):
        core.log_reads(ServedRing(1.0, 1, 2))


def test_who_waits_is_woken_by_the_end() -> None:
    ring = ServedRing(1.0, 1 << 20, 1)
    taken: list[list[bytes]] = []
    waiter = threading.Thread(target=lambda: taken.append(ring.take(60.0)))
    waiter.start()
    ring.close()
    waiter.join(10.0)
    assert taken == [[]]
    assert ring.take(0.0) == []
