"""The comparison of windows: its query agrees with the kernel, and a wrong value ends it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from loadtest.peers import windows
from loadtest.peers.windows import Scale, figures, fold_side, history_sides, stream_side

SMALL = Scale("small", 3_000, 40, 25)


def test_both_engines_agree_on_every_value(seed: int) -> None:
    sides = history_sides(SMALL, np.random.default_rng(seed))
    assert sides["history"](0)["history_s"] > 0
    assert sides["duckdb"](0)["duckdb_s"] > 0


def test_a_wrong_value_ends_the_comparison(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = history_sides(SMALL, np.random.default_rng(seed))
    sides["history"](0)
    right = windows.compare

    def damaged(ours: list[Any], theirs: pa.Table) -> None:  # columns, whose buffers are any objects
        values = np.frombuffer(ours[5].values, np.float64).copy()
        values[7] += 1
        right([*ours[:5], ours[5]._replace(values=values.tobytes()), *ours[6:]], theirs)

    monkeypatch.setattr(windows, "compare", damaged)
    with pytest.raises(ArithmeticError, match="sum over 21600000000 us differs"):
        sides["duckdb"](0)


def test_a_slow_kernel_misses_its_targets(seed: int) -> None:
    random = np.random.default_rng(seed)
    measured = {**stream_side(SMALL, random)(0), **fold_side(random)(0)}
    assert all(value > 0 for value in measured.values())
    rounds = {"events_per_s": [9e5], "fold_us": [1_999.0], "history_s": [1.0], "duckdb_s": [4.9]}
    rounds |= {"core_us": [1_999.0], "core_1_us": [61.0]}
    assert [figure.ok for figure in figures(rounds)] == [False, False, True, True, False]
