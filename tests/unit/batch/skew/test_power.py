"""Measures of the tests themselves: repeatable by seed, and right where the answer is known."""

import numpy as np
import pyarrow as pa
import pytest

from batch.skew.drift import Limits
from batch.skew.power import Fault, Population, Trials, false_alarms, rows_for_drift, rows_for_parity
from headrace.errors import InvalidArgument
from headrace.types import parse_type

F64 = parse_type("f64")
NUMBERS = np.random.default_rng(8).normal(size=20_000)
TRIALS = Trials((1, 10, 50, 100, 1_000, 5_000), 20, 3)


def fault(served: np.ndarray) -> Fault:
    return Fault("made", F64, pa.array(NUMBERS), pa.array(served, from_pandas=True))


def test_unchanged_data_alarms_as_often_as_the_limits_say() -> None:
    populations = {name: Population(F64, pa.array(NUMBERS)) for name in ("a", "b")}
    assert false_alarms(populations, (300, 200), 40, seed=1) == 0
    eager = Limits(0.9, psi_floor=0, ks_floor=0, js_floor=0, null_rate_floor=0)
    found = false_alarms(populations, (300, 200), 40, 1, eager)
    assert found > 5
    assert found == false_alarms(populations, (300, 200), 40, 1, eager)


def test_a_unit_fault_is_found_as_soon_as_rows_are_judged() -> None:
    found = rows_for_drift(fault(NUMBERS * 1_000), TRIALS, 5_000, feature_count=20)
    assert found.rows == 50
    assert found.shares == {1: 0.0, 10: 0.0, 50: 1.0}


def test_a_shift_needs_more_rows_among_more_features() -> None:
    shifted = fault(NUMBERS + 0.25)
    alone, among_many = (rows_for_drift(shifted, TRIALS, 5_000, count) for count in (1, 1_000))
    assert alone.rows == among_many.rows == 1_000
    assert alone.shares[100] >= among_many.shares[100]


def test_equal_values_are_never_found() -> None:
    same = fault(NUMBERS)
    assert rows_for_parity(same, TRIALS).rows is None
    assert rows_for_drift(same, TRIALS, 5_000).rows is None


def test_parity_finds_rare_faults_and_nulls() -> None:
    served = NUMBERS.copy()
    served[::100] = np.nan  # null in the served column
    assert rows_for_parity(fault(served), TRIALS).rows == 1_000
    assert rows_for_parity(fault(NUMBERS + 1), TRIALS).rows == 1


def test_samples_larger_than_the_data_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="there are 20000"):
        rows_for_drift(fault(NUMBERS), TRIALS, 30_000)
    with pytest.raises(InvalidArgument, match="there are 20000"):
        false_alarms({"a": Population(F64, pa.array(NUMBERS))}, (20_000, 1), 1, 0)
    with pytest.raises(InvalidArgument, match="equal counts"):
        Fault("short", F64, pa.array([1.0]), pa.array([], type=pa.float64()))
