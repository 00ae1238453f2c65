"""Verdicts over many features: degenerate samples, order, false alarms, faults."""

import math
import random as plain_random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from batch.skew.drift import Drift, FeatureDrift, Limits, benjamini_hochberg, drift
from batch.skew.statistics import Statistic
from batch.skew.summary import Summary, summarise, summarise_reference
from headrace.errors import InvalidArgument
from headrace.types import parse_type


def pair(reference: Any, live: Any, name: str = "f64") -> tuple[Summary, Summary]:
    value_type = parse_type(name)
    columns = [pa.array(values, type=value_type.arrow) for values in (reference, live)]
    made = summarise_reference([columns[0]], value_type)
    return made, summarise([columns[1]], made.bins, value_type)


def one(reference: Any, live: Any, name: str = "f64", limits: Limits | None = None) -> FeatureDrift:
    first, second = pair(reference, live, name)
    return drift({"x": first}, {"x": second}, limits)[0]


def fired(found: FeatureDrift) -> set[Statistic]:
    return {test.statistic for test in found.fired}


def test_constant_columns_are_steady_and_another_constant_is_told() -> None:
    assert one([3.0] * 100, [3.0] * 100).drift is Drift.STEADY
    assert one([3.0] * 100, [2.5] * 100).drift is Drift.DRIFTED
    assert one([3.0] * 100, [3.5] * 100).drift is Drift.DRIFTED


def test_all_null_columns() -> None:
    assert one([None] * 100, [None] * 100).drift is Drift.STEADY
    found = one([1.0] * 100, [None] * 100)
    assert (found.drift, fired(found)) == (Drift.DRIFTED, {Statistic.NULL_RATE})
    assert one([None] * 100, [1.0] * 100).drift is Drift.DRIFTED


def test_one_row_and_no_rows_are_too_few() -> None:
    assert one([1.0] * 100, [99.0]).drift is Drift.TOO_FEW
    empty = one([1.0] * 100, [])
    assert (empty.drift, empty.tests, empty.p_value, empty.q_value) == (Drift.TOO_FEW, (), 1.0, 1.0)


def test_nan_and_infinity_are_values_of_their_own() -> None:
    numbers = np.random.default_rng(1).normal(size=1_000).tolist()
    for special in (math.nan, math.inf, -math.inf):
        mixed = numbers[:900] + [special] * 100
        assert one(mixed, mixed).drift is Drift.STEADY
        assert one(numbers, mixed).drift is Drift.DRIFTED, special
        assert one(mixed, numbers).drift is Drift.DRIFTED, special
    assert one([math.nan] * 100, [math.nan] * 100).drift is Drift.STEADY


def test_a_new_and_a_lost_category_are_told() -> None:
    assert one(["a", "b"] * 500, ["a", "b"] * 450 + ["c"] * 100, "string").drift is Drift.DRIFTED
    assert one(["a", "b", "c"] * 300, ["a", "b"] * 450, "string").drift is Drift.DRIFTED
    assert one([True, False] * 400, [True, False, True] * 300, "bool").drift is Drift.DRIFTED


def test_lists_drift_by_length_and_by_element() -> None:
    lists = [[1.0] * (index % 3) for index in range(900)]
    longer = one(lists, [[1.0] * (index % 4) for index in range(900)], "list<f64>")
    assert {test.part for test in longer.fired} == {"length"}
    other = one(lists, [[2.0] * (index % 3) for index in range(900)], "list<f64>")
    assert {test.part for test in other.fired} == {"element"}
    assert one(lists, lists, "list<f64>").drift is Drift.STEADY


def test_a_floor_hides_an_effect_too_small_to_matter() -> None:
    random = np.random.default_rng(2)
    first, second = random.normal(size=400_000), random.normal(0.016, size=400_000)
    assert one(first, second).drift is Drift.STEADY
    assert one(first, second).q_value < 0.005
    assert one(first, second, limits=Limits(ks_floor=0, psi_floor=0, js_floor=0)).drift is Drift.DRIFTED


def test_benjamini_hochberg_is_scipys_in_any_order() -> None:
    p_values = [0.0004, 0.9, 0.02, 0.0011, 0.3, 0.004, 0.004, 1.0]
    expected = stats.false_discovery_control(p_values)
    for turn in range(20):
        order = plain_random.Random(turn).sample(range(len(p_values)), len(p_values))
        q_values, cut = benjamini_hochberg([p_values[index] for index in order], 0.01)
        assert q_values == pytest.approx([expected[index] for index in order])
        assert [p_values[index] <= cut for index in order] == [expected[index] <= 0.01 for index in order]
    assert benjamini_hochberg([], 0.01) == ([], 0.01)


def test_verdicts_do_not_depend_on_the_order_of_features() -> None:
    random = np.random.default_rng(3)
    pairs = {f"f{i}": pair(random.normal(size=500), random.normal(0.2 * (i % 3), size=500)) for i in range(9)}
    found = {}
    for names in (list(pairs), list(reversed(pairs))):
        verdicts = drift({name: pairs[name][0] for name in names}, {name: pairs[name][1] for name in names})
        assert [verdict.feature for verdict in verdicts] == names
        found[names[0]] = {verdict.feature: verdict for verdict in verdicts}
    assert found["f0"] == found["f8"]
    assert found["f0"]["f2"].drift is Drift.DRIFTED


def test_unchanged_data_raises_no_more_alarms_than_stated() -> None:
    random = np.random.default_rng(20_130_101)
    alarms = 0
    for _ in range(200):
        pairs = {}
        for index in range(4):
            pairs[f"n{index}"] = pair(random.lognormal(size=400), random.lognormal(size=250))
        letters = [random.choice(list("abcdef"), size).tolist() for size in (400, 250)]
        pairs["c"] = pair(letters[0], letters[1], "string")
        verdicts = drift({k: v[0] for k, v in pairs.items()}, {k: v[1] for k, v in pairs.items()})
        alarms += any(verdict.drift is Drift.DRIFTED for verdict in verdicts)
    assert alarms <= 2


def test_bad_limits_and_samples_are_refused() -> None:
    first, second = pair([1.0] * 50, [1.0] * 50)
    with pytest.raises(InvalidArgument, match="alarm_rate"):
        Limits(alarm_rate=0)
    with pytest.raises(InvalidArgument, match="psi_floor"):
        Limits(psi_floor=math.nan)
    with pytest.raises(InvalidArgument, match="no live sample"):
        drift({"x": first}, {})
    with pytest.raises(InvalidArgument, match="design_effect"):
        drift({"x": first}, {"x": second}, design_effect=0.5)
    with pytest.raises(InvalidArgument, match="other bins"):
        drift({"x": first}, {"x": pair([2.0] * 50, [])[1]})
