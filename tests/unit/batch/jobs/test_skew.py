"""The skew run over a real lake: answers logged as served, faults planted, causes counted."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch.jobs.context import Context
from batch.jobs.skew import Against, derive_served, run_skew
from batch.offline.catalogue import Catalogue
from batch.skew.canonical import value_bytes
from batch.skew.report import EXIT_DONE, EXIT_FINDINGS, FailOn
from batch.skew.served import NO_ROW, Answer, Served
from batch.skew.served_log import ServedFilter, ServedLog, rows_of
from core_ext import rules
from core_ext.keys import encode_key
from headrace.definitions import DefinitionKind
from headrace.definitions.registered import Registered
from headrace.errors import InvalidArgument, NotFound
from headrace.names import FeatureRef
from headrace.types import Scalar, parse_type
from tests.unit.batch.jobs import lakes

REF = FeatureRef("shop.users.activity", 1, "basket")
AT_US = lakes.START_US + 3 * lakes.HOUR_US
F64 = parse_type("f64")
ALL = ServedFilter()


class Registry(lakes.Registry):
    """The shop's registry, which lists as well."""

    def list(self, kind: DefinitionKind, name_prefix: str = "") -> Sequence[Registered]:
        """Every version of a view."""
        return [self.get(kind, name_prefix)]


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = lakes.made_lake(tmp_path / "lake")
    yield opened
    opened.close()


def served(user: int, answer: Answer, time_us: int = AT_US, offset: int = 3) -> Served:
    return Served(encode_key([int(Scalar.I64)], [user]), REF, answer, time_us, 0, 1, offset, 7, lakes.DIGEST)


def value(number: float, event_hour: int) -> Answer:
    return Answer(rules.PRESENT, value_bytes(number, F64), lakes.START_US + event_hour * lakes.HOUR_US)


DEFAULTED = Answer(rules.MISSING | rules.DEFAULTED, value_bytes(0.5, F64), NO_ROW)
RIGHT = [served(1, value(12.0, 2)), served(3, value(7.0, 3)), served(9, DEFAULTED)]


def run(catalogue: Catalogue, tmp_path: Path, wanted: ServedFilter = ALL, **more: Any) -> tuple[dict[str, Any], int]:
    return derive_served(Context(tmp_path / "lake"), catalogue, Registry(), wanted, **more)


def test_right_answers_match(catalogue: Catalogue, tmp_path: Path) -> None:
    ServedLog(catalogue).append(rows_of(RIGHT))
    report, code = run(catalogue, tmp_path, fail_on=[FailOn.PARITY])
    assert (report["rows"], report["mismatches"], code) == (3, 0, EXIT_DONE)
    assert report["features"][0]["verdict"] == "ok"


def test_each_difference_is_counted_under_its_cause(catalogue: Catalogue, tmp_path: Path) -> None:
    stale = served(1, value(10.0, 0), offset=1)  # the row at offset 2 had not been applied
    expired = served(1, Answer(rules.EXPIRED | rules.DEFAULTED, value_bytes(0.5, F64), value(0, 2).event_time_us))
    wrong = served(3, value(7.5, 3))
    ServedLog(catalogue).append(rows_of([*RIGHT, stale, expired, wrong]))
    report, code = run(catalogue, tmp_path, fail_on=[FailOn.PARITY])
    assert report["causes"] == {"apply_lag": 1, "ttl": 1, "code": 1}
    assert (report["rows"], code) == (6, EXIT_FINDINGS)
    assert {one["cause"] for one in report["features"][0]["examples"]} == {"apply_lag", "ttl", "code"}


def test_row_written_after_the_read_is_a_late_event(catalogue: Catalogue, tmp_path: Path) -> None:
    ServedLog(catalogue).append(rows_of(RIGHT))
    late = lakes.history([(1, 3, 99.0, "DE")], 4, write_us=[AT_US + lakes.HOUR_US])
    lakes.append(catalogue, late, 4)
    assert run(catalogue, tmp_path)[0]["causes"] == {"late_event": 1}


def test_time_and_features_narrow_the_run(catalogue: Catalogue, tmp_path: Path) -> None:
    early = replace(RIGHT[0], time_us=AT_US - lakes.HOUR_US)
    ServedLog(catalogue).append(rows_of([early, RIGHT[1]]))
    assert run(catalogue, tmp_path, ServedFilter(since_us=AT_US))[0]["rows"] == 1
    assert run(catalogue, tmp_path, ServedFilter(until_us=AT_US))[0]["rows"] == 1
    assert run(catalogue, tmp_path, ServedFilter(features=("shop.users.activity@v1:country",)))[0]["rows"] == 0


def test_lake_without_a_served_log_gives_an_empty_report(catalogue: Catalogue, tmp_path: Path) -> None:
    report, code = run(catalogue, tmp_path)
    assert (report["rows"], report["served_rows"], code) == (0, 0, EXIT_DONE)


def test_log_keeps_every_field(catalogue: Catalogue) -> None:
    unknown = replace(RIGHT[0], answer=replace(RIGHT[0].answer, event_time_us=None))
    ServedLog(catalogue).append(rows_of([*RIGHT, unknown]))
    [found] = ServedLog(catalogue).batches(ServedFilter())
    assert sorted(map(repr, found)) == sorted(map(repr, [*RIGHT, unknown]))


def test_rows_that_are_no_answers_are_refused(catalogue: Catalogue) -> None:
    with pytest.raises(InvalidArgument, match="no served answers"):
        ServedLog(catalogue).append(rows_of(RIGHT).drop_columns(["status"]))


def many(count: int, shift: float, since_us: int) -> list[Served]:
    """Answers of as many entities, one a microsecond; they are in no table, so that parity has much to say."""
    source = random.Random(count)
    return [
        served(1_000 + at, Answer(rules.PRESENT, value_bytes(source.gauss(shift, 1), F64)), since_us + at)
        for at in range(count)
    ]


LATER_US = AT_US + lakes.HOUR_US
BEFORE = Against(served=ServedFilter(until_us=LATER_US))


@pytest.mark.parametrize(("shift", "state"), [(0.0, "steady"), (1.0, "drifted")])
def test_drift_against_answers_served_before(catalogue: Catalogue, tmp_path: Path, shift: float, state: str) -> None:
    ServedLog(catalogue).append(rows_of([*many(1_000, 0.0, AT_US), *many(900, shift, LATER_US)]))
    now = ServedFilter(since_us=LATER_US)
    report, code = run(catalogue, tmp_path, now, fail_on=[FailOn.DRIFT], against=BEFORE)
    [feature] = report["features"]
    assert feature["drift"]["state"] == state
    assert code == (EXIT_FINDINGS if state == "drifted" else EXIT_DONE)
    assert report["owners"] == {str(REF): "shop"}
    assert report["reference"] == "answers served from the beginning to 2025-10-09T12:53:20+00:00"
    assert report["without_reference"] == []


def test_reference_without_the_served_features_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    ServedLog(catalogue).append(rows_of(many(100, 0.0, LATER_US)))
    with pytest.raises(InvalidArgument, match="none of the features"):
        run(catalogue, tmp_path, ServedFilter(since_us=LATER_US), against=BEFORE)
    with pytest.raises(NotFound, match="no training set"):
        run(catalogue, tmp_path, against=Against("week"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"reference": "week", "reference_since_us": 1}, "TWO_REFERENCES"),
        ({"fail_on": ["drift"]}, "NO_REFERENCE"),
    ],
)
def test_reference_that_cannot_be_meant_is_refused(tmp_path: Path, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        run_skew(Context(tmp_path / "lake"), arguments)
    assert caught.value.reason == reason
