"""The skew run over a real lake: answers logged as served, faults planted, causes counted."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch.jobs.context import Context
from batch.jobs.skew import derive_served
from batch.offline.catalogue import Catalogue
from batch.skew.canonical import value_bytes
from batch.skew.report import EXIT_DONE, EXIT_FINDINGS, FailOn
from batch.skew.served import NO_ROW, Answer, Served
from batch.skew.served_log import ServedFilter, ServedLog, rows_of
from core_ext import rules
from core_ext.keys import encode_key
from headrace.definitions import DefinitionKind
from headrace.definitions.registered import Registered
from headrace.errors import InvalidArgument
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
