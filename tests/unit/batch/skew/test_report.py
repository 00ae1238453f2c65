"""The report: counts, verdicts, JSON, table rows and exit codes."""

import json

import numpy as np
import pytest

from batch.skew.attribution import Cause, Finding, Outcome
from batch.skew.drift import FeatureDrift, drift
from batch.skew.report import (
    EXAMPLES_MAX,
    EXIT_DONE,
    EXIT_FINDINGS,
    HEADER,
    FailOn,
    FeatureParity,
    ParityLimits,
    Verdict,
    report,
    tally,
)
from batch.skew.served import Answer, Served
from batch.skew.summary import summarise, summarise_reference
from core_ext.twin import rules
from headrace.errors import InvalidArgument
from headrace.names import FeatureRef
from headrace.types import parse_type

NAME = "flights.ops.delays@v1:"


def finding(feature: str, cause: Cause | None = None, outcome: Outcome | None = None) -> Finding:
    given = Answer(rules.PRESENT, b"\x01")
    value = Served(b"k", FeatureRef("flights.ops.delays", 1, feature), given, 5, 0, 1, 9, 7, b"d")
    return Finding(value, outcome or (Outcome.MISMATCH if cause else Outcome.MATCH), Answer(rules.NULL), cause, "why")


def drifts(shift: float = 0.0, rows: int = 1_000) -> tuple[FeatureDrift, ...]:
    random = np.random.default_rng(6)
    reference = summarise_reference([random.normal(size=1_000)], parse_type("f64"))
    live = summarise([random.normal(shift, size=rows)], reference.bins, parse_type("f64"))
    return drift({f"{NAME}x": reference}, {f"{NAME}x": live})


def parity(*causes: Cause | None) -> dict[str, FeatureParity]:
    return tally(finding("x", cause) for cause in causes)


@pytest.mark.parametrize(
    ("counted", "drifted", "verdict"),
    [
        (parity(None), drifts(), Verdict.OK),
        (parity(None), (), Verdict.OK),
        ({}, drifts(), Verdict.OK),
        (parity(Cause.CODE, None), drifts(), Verdict.PARITY),
        (parity(None), drifts(1.0), Verdict.DRIFT),
        (parity(Cause.TTL), drifts(1.0), Verdict.PARITY_DRIFT),
        ({}, drifts(rows=0), Verdict.NO_DATA),
        (tally([finding("x", outcome=Outcome.UNAVAILABLE)]), (), Verdict.NO_DATA),
        (parity(Cause.LATE_EVENT, *[None] * 99), (), Verdict.OK),
        (parity(*[Cause.APPLY_LAG] * 10, *[None] * 90), (), Verdict.PARITY),
    ],
)
def test_verdicts(counted: dict[str, FeatureParity], drifted: tuple[FeatureDrift, ...], verdict: Verdict) -> None:
    assert [one.verdict for one in report(counted, drifted).features] == [verdict]


def test_findings_are_no_failure_unless_asked_for() -> None:
    both, ok = report(parity(Cause.CODE), drifts(1.0)), report(parity(None), drifts())
    only_parity, only_drift = report(parity(Cause.CODE), drifts()), report(parity(None), drifts(1.0))
    for one in (both, ok, only_parity, only_drift):
        assert one.exit_code() == EXIT_DONE
    assert [one.exit_code([FailOn.PARITY]) for one in (both, ok, only_parity, only_drift)] == [3, 0, 3, 0]
    assert [one.exit_code([FailOn.DRIFT]) for one in (both, ok, only_parity, only_drift)] == [3, 0, 0, 3]
    assert [one.exit_code(FailOn) for one in (both, ok, only_parity, only_drift)] == [3, 0, 3, 3]
    assert EXIT_FINDINGS == 3


def test_json_is_canonical_and_holds_every_figure() -> None:
    counted = parity(Cause.CODE, Cause.TTL, None)
    made = report(counted, drifts(1.0))
    text = made.to_json()
    assert text == report(parity(Cause.CODE, Cause.TTL, None), drifts(1.0)).to_json()
    document = json.loads(text)
    assert (document["rows"], document["mismatches"], document["causes"]) == (3, 2, {"code": 1, "ttl": 1})
    feature = document["features"][0]
    assert feature["feature"] == f"{NAME}x"
    assert [one["cause"] for one in feature["examples"]] == ["ttl", "code"]
    tests = {one["statistic"]: one for one in feature["drift"]["tests"]}
    assert set(tests) == {"null_rate", "psi", "js", "ks"}
    for one in tests.values():
        above = one["value"] >= one["threshold"] and one["value"] >= one["floor"]
        assert one["fired"] is (above and one["statistic"] != "null_rate")


def test_a_statistic_without_groups_has_no_threshold() -> None:
    reference = summarise_reference([np.full(100, 2.0)], parse_type("f64"))
    made = report({}, drift({"c": reference}, {"c": reference}))
    tests = {one["statistic"]: one for one in json.loads(made.to_json())["features"][0]["drift"]["tests"]}
    assert tests["psi"]["threshold"] is None
    assert tests["psi"]["p"] == 1.0
    assert made.table()[0][4] == "steady"


def test_table_rows_stand_under_the_header() -> None:
    rows = report(parity(Cause.CODE, Cause.CODE, Cause.TTL), drifts(1.0)).table()
    assert [len(row) for row in rows] == [len(HEADER)]
    row = dict(zip(HEADER, rows[0], strict=True))
    assert (row["rows"], row["mismatches"], row["causes"]) == ("3", "3", "ttl=1 code=2")
    assert float(row["value"]) >= float(row["threshold"])
    assert report({}, drifts(rows=0)).table()[0][4] == "too_few"
    assert report(parity(None)).table()[0][4] == "-"


def test_examples_are_few_whatever_the_rows() -> None:
    counted = parity(*[Cause.CODE] * 50)
    tally([finding("x", Cause.CODE), finding("y")], counted)
    assert len(counted[f"{NAME}x"].examples[Cause.CODE]) == EXAMPLES_MAX
    assert counted[f"{NAME}x"].mismatches == 51
    assert list(counted) == [f"{NAME}x", f"{NAME}y"]


def test_bad_limits_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="fault_count_max"):
        ParityLimits(fault_count_max=-1)
    with pytest.raises(InvalidArgument, match="timing_share_max"):
        ParityLimits(timing_share_max=1.5)
