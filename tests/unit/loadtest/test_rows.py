"""Rows and keys of the load tests are the same for every process that computes them."""

import numpy as np
import pytest

from loadtest.rows import VALUE_BITS, ZipfKeys, values


def test_a_row_depends_on_its_key_alone() -> None:
    together = values(3, np.arange(100, dtype=np.int64))
    alone = values(3, np.array([41], dtype=np.int64))
    assert np.array_equal(together[41], alone[0])


def test_values_are_f32_in_the_unit_interval_and_exact_in_24_bits() -> None:
    cells = values(0, np.arange(1_000, dtype=np.int64))
    assert cells.dtype == np.float32
    assert cells.shape == (1_000, 50)
    assert cells.min() >= 0 and cells.max() < 1
    whole = cells.astype(np.float64) * (1 << VALUE_BITS)
    assert np.array_equal(whole, np.round(whole))


def test_values_of_two_views_differ() -> None:
    keys = np.arange(10, dtype=np.int64)
    assert not np.array_equal(values(0, keys), values(1, keys))


def test_values_stay_as_they_are_because_cached_peers_hold_them() -> None:
    assert values(0, np.array([5], dtype=np.int64), 2).tobytes().hex() == "9631413f58e1f13d"


def test_same_seed_draws_the_same_keys() -> None:
    assert np.array_equal(ZipfKeys(1_000, 7).draw(500), ZipfKeys(1_000, 7).draw(500))
    assert not np.array_equal(ZipfKeys(1_000, 7).draw(500), ZipfKeys(1_000, 8).draw(500))


def test_popularity_falls_as_the_rank_to_the_exponent() -> None:
    counts = np.sort(np.bincount(ZipfKeys(1_000, 7).draw(200_000), minlength=1_000))[::-1]
    assert counts[0] / counts[9] == pytest.approx(10**0.99, rel=0.1)


def test_a_batch_of_distinct_keys_has_no_repeats() -> None:
    keys = ZipfKeys(120, 7).draw_distinct(100)
    assert len(set(keys.tolist())) == 100


def test_more_distinct_keys_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="11 different keys"):
        ZipfKeys(10, 7).draw_distinct(11)


def test_no_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="key_count"):
        ZipfKeys(0)
