"""The distances against straightforward computations, and their laws against simulation."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from batch.skew.statistics import Statistic, Test, compare, design_effect_of, js, ks, psi
from batch.skew.summary import Summary, summarise, summarise_reference
from headrace.types import parse_type

F64 = parse_type("f64")
I64 = parse_type("i64")


def summaries(reference: np.ndarray, live: np.ndarray) -> tuple[Summary, Summary]:
    value_type = F64 if reference.dtype.kind == "f" else I64
    made = summarise_reference([reference], value_type)
    return made, summarise([live], made.bins, value_type)


def by_statistic(tests: tuple[Test, ...]) -> dict[Statistic, Test]:
    return {one.statistic: one for one in tests}


def test_psi_and_js_are_those_of_smoothed_shares() -> None:
    first, second = np.array([10.0, 0.0, 30.0, 5.0]), np.array([8.0, 2.0, 50.0, 0.0])
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (first, second))
    assert psi(first, second) == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), rel=1e-12)
    assert js(first, second) == pytest.approx(jensenshannon(p, q) ** 2, rel=1e-12)


def test_ks_of_few_distinct_values_is_scipys(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.integers(0, 90, 700), random.integers(5, 95, 900)
    found = by_statistic(compare(*summaries(first, second)))[Statistic.KS]
    expected = stats.ks_2samp(first, second, method="asymp")
    assert found.value == pytest.approx(expected.statistic, abs=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_ks_of_continuous_values_is_scipys_within_one_bin(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.normal(size=20_000), random.normal(0.05, size=20_000)
    found = by_statistic(compare(*summaries(first, second)))[Statistic.KS].value
    expected = stats.ks_2samp(first, second).statistic
    assert expected - 1 / 128 <= found <= expected + 1e-12


def test_psi_over_deciles_of_the_reference(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.normal(size=10_000), random.normal(0.3, size=10_000)
    edges = np.quantile(first, np.arange(1, 10) / 10)
    counts = [np.bincount(np.searchsorted(edges, sample), minlength=10).astype(float) for sample in (first, second)]
    found = by_statistic(compare(*summaries(first, second)))[Statistic.PSI]
    assert found.freedom in {9, 10}  # the rows above the reference may be enough for a group
    assert found.value == pytest.approx(psi(*counts), rel=0.05)


@pytest.mark.parametrize(("n", "m"), [(100, 100), (1_000, 300), (60, 3_000)])
def test_laws_hold_their_level(n: int, m: int) -> None:
    random = np.random.default_rng(20_130_101)
    below: dict[Statistic, int] = {}
    for _ in range(600):
        for one in compare(*summaries(random.normal(size=n), random.normal(size=m))):
            below[one.statistic] = below.get(one.statistic, 0) + (one.p_value <= 0.05)
    # 600 draws of a chance of 0.05 exceed 50 with a chance below 0.1 %.
    assert max(below.values()) <= 50
    assert min(below[statistic] for statistic in (Statistic.PSI, Statistic.JS, Statistic.KS)) >= 10


@pytest.mark.parametrize("statistic", [Statistic.PSI, Statistic.JS, Statistic.KS])
def test_a_threshold_is_the_value_whose_chance_is_the_level(statistic: Statistic) -> None:
    random = np.random.default_rng(4)
    found = by_statistic(compare(*summaries(random.normal(size=900), random.normal(0.1, size=400))))[statistic]
    assert found.threshold(found.p_value) == pytest.approx(found.value, rel=1e-6)


def test_null_rate_is_fishers_test() -> None:
    reference = np.array([1.0] * 960 + [None] * 40, dtype=object)
    live = np.array([1.0] * 900 + [None] * 100, dtype=object)
    made = summarise_reference([reference], F64)
    found = by_statistic(compare(made, summarise([live], made.bins, F64)))[Statistic.NULL_RATE]
    assert found.value == pytest.approx(0.06)
    assert found.p_value == pytest.approx(stats.fisher_exact([[40, 960], [100, 900]]).pvalue)
    assert found.threshold(found.p_value) == pytest.approx(found.value, rel=0.1)


def test_rows_of_one_entity_count_once_under_the_design_effect(seed: int) -> None:
    random = np.random.default_rng(seed)
    entities = random.normal(size=(2, 100))
    repeated = [np.repeat(values, 50) for values in entities]
    effect = design_effect_of([50] * 100)
    assert effect == 50
    pair = summaries(*repeated)
    alone = by_statistic(compare(*pair))[Statistic.KS].p_value
    together = by_statistic(compare(*pair, effect))[Statistic.KS].p_value
    assert alone < together
    assert together > 1e-6


def test_design_effect_of_nothing_is_one() -> None:
    assert design_effect_of([]) == 1.0
    assert design_effect_of([1, 1, 1]) == 1.0


def test_ks_reads_the_edges_alone() -> None:
    assert ks(np.array([1.0, 1.0]), np.array([2.0, 0.0])) == 0.5
