"""Each cause injected into random histories and named again; the order of the decision; refusals."""

import random
import sys
from collections import Counter
from dataclasses import replace

import pytest

from batch.skew import attribution
from batch.skew.attribution import Cause, Finding, Outcome, attribute
from batch.skew.served import NO_ROW, Answer, Derivation, Edge, Evidence, Knowledge, Served
from core_ext.twin import rules
from headrace.errors import InvalidArgument
from headrace.names import FeatureRef
from tests.unit.batch.skew.faults import HOUR_US, NAME, NOW_US, injected, situation
from tests.unit.batch.skew.history import History, Row, View, answer

ROUNDS = 300


def logged(rows: list[Row], views: dict[int, View], given: Answer | None = None, applied: int | None = None) -> Served:
    last = len(rows) - 1 if applied is None else applied
    given = given or answer([row for row in rows if row.offset <= last], views[1], NOW_US)
    return Served(b"k", FeatureRef(NAME, 1, "x"), given, NOW_US, 0, 1, last, 7, views[1].digest)


def named(rows: list[Row], views: dict[int, View], value: Served) -> Finding:
    return attribute([value], History(tuple(rows), views))[0]


@pytest.mark.parametrize(("event_times", "share_min"), [(True, 0.99), (False, 0.8)])
def test_each_injected_cause_is_named(event_times: bool, share_min: float, seed: int) -> None:
    matrix: Counter[tuple[Cause, Cause | None]] = Counter()
    for cause in Cause:
        draw = random.Random(f"{seed} {cause}")
        for _ in range(ROUNDS):
            history, value = injected(cause, draw)
            if not event_times:
                value = replace(value, answer=replace(value.answer, event_time_us=None))
            matrix[cause, attribute([value], history)[0].cause] += 1
    sys.stdout.write(f"seed {seed}, event times logged: {event_times}\n{confusion(matrix)}\n")
    for cause in Cause:
        assert matrix[cause, cause] >= share_min * ROUNDS, confusion(matrix)


def confusion(matrix: Counter[tuple[Cause, Cause | None]]) -> str:
    lines = ["injected    " + "".join(f"{cause:>11}" for cause in Cause)]
    lines += [f"{row:<12}" + "".join(f"{matrix[row, column]:>11}" for column in Cause) for row in Cause]
    return "\n".join(lines)


def test_unchanged_histories_match_and_ask_for_nothing_more(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(300):
        here = situation(draw)
        here = replace(here, rows=tuple(here.applied()))
        history = History(here.rows, here.views)
        finding = attribute([here.served(answer(here.rows, here.views[2], here.time_us))], history)[0]
        assert finding.outcome is Outcome.MATCH
        assert history.asked == 1


def test_findings_stand_in_the_order_of_the_values(seed: int) -> None:
    draw = random.Random(seed)
    rows = (Row(NOW_US - 5, NOW_US, 0, 3),)
    views = {1: View("latest")}
    right, wrong = answer(rows, views[1], NOW_US), Answer(rules.PRESENT, b"\x00" * 8)
    given = [draw.choice([right, wrong, Answer(rules.UNAVAILABLE | rules.CAUSE_DEADLINE)]) for _ in range(40)]
    served = [logged(list(rows), views, one) for one in given]
    outcomes = {right: Outcome.MATCH, wrong: Outcome.MISMATCH}
    found = attribute(served, History(rows, views))
    assert [finding.served for finding in found] == served
    assert [finding.outcome for finding in found] == [outcomes.get(one, Outcome.UNAVAILABLE) for one in given]
    assert attribute([], History(rows, views)) == ()


def test_staleness_alone_is_no_mismatch() -> None:
    rows, views = [Row(NOW_US - 5, NOW_US, 0, 3)], {1: View("latest")}
    right = answer(rows, views[1], NOW_US)
    stale = Answer(right.status | rules.STALE, right.value)
    assert named(rows, views, logged(rows, views, stale)).outcome is Outcome.MATCH


def test_late_and_lagging_rows_together_are_told_as_both() -> None:
    rows = [
        Row(NOW_US - 30, NOW_US - 30, 0, 1),
        Row(NOW_US - 20, NOW_US - 19, 1, 2),
        Row(NOW_US - 10, NOW_US + 9, 2, 3),
    ]
    views = {1: View("latest")}
    finding = named(rows, views, logged(rows, views, applied=0))
    assert (finding.cause, finding.also) == (Cause.LATE_EVENT, (Cause.APPLY_LAG,))


def test_rows_seen_beyond_the_recorded_offset_are_apply_lag() -> None:
    rows = [
        Row(NOW_US - 30, NOW_US - 30, 0, 1),
        Row(NOW_US - 20, NOW_US - 19, 1, 2),
        Row(NOW_US - 10, NOW_US + 9, 2, 3),
    ]
    views = {1: View("latest")}
    finding = named(rows, views, logged(rows, views, answer(rows[:2], views[1], NOW_US), applied=0))
    assert (finding.cause, finding.why) == (Cause.APPLY_LAG, "rows beyond the recorded offset were seen")


def test_the_nearest_version_is_named_where_several_give_the_value() -> None:
    rows = [Row(NOW_US - 5, NOW_US - 5, 0, 3)]
    views = {1: View("latest"), 2: View("latest", 4), 5: View("latest", 4)}
    finding = named(rows, views, logged(rows, views, answer(rows, views[5], NOW_US)))
    assert (finding.cause, finding.why) == (Cause.VERSION, "equal to v2")


def test_a_value_without_a_row_in_the_truth_is_missing() -> None:
    views = {1: View("latest")}
    rows = [Row(NOW_US + HOUR_US, NOW_US + HOUR_US, 0, 3)]
    finding = named(rows, views, logged(rows, views, Answer(rules.PRESENT, b"\x01" * 8)))
    assert (finding.cause, finding.why) == (Cause.MISSING, "the truth has no row, and a value was served")


@pytest.mark.parametrize("edge", [edge for edge in Edge if edge is not Edge.DECLARED])
def test_every_edge_of_a_window_is_told_by_name(edge: Edge) -> None:
    view = View("sum", window_us=HOUR_US, hop_us=HOUR_US // 4)
    start = NOW_US - HOUR_US
    times = [start - 5, start, start + 5, NOW_US - 5, NOW_US, NOW_US + 1]
    rows = [Row(time, NOW_US, at, 10**at) for at, time in enumerate(times)]
    given = answer(rows, view, NOW_US, Derivation(edge=edge))
    finding = named(rows, {1: view}, logged(rows, {1: view}, given))
    assert (finding.cause, finding.why) == (Cause.BOUNDARY, f"equal with edge {edge}")


def test_mismatches_ask_a_bounded_number_of_hypotheses() -> None:
    rows = [Row(NOW_US - 5, NOW_US - 5, 0, 3)]
    views = {version: View("latest", version) for version in range(1, 40)}
    history = History(tuple(rows), views)
    finding = attribute([logged(rows, views, Answer(rules.PRESENT, b"\x07" * 8))], history)[0]
    assert finding.cause is Cause.CODE
    fixed = 3 + 4 + 5 + 2 + 1  # truth and two knowledges, rules, edges, absences, absent truth
    assert history.asked == fixed + attribution.VERSIONS_TRIED_MAX


def test_the_model_is_evidence() -> None:
    evidence: Evidence = History((), {1: View("latest")})
    value = logged([], {1: View("latest")}, Answer(rules.MISSING), applied=-1)
    assert evidence.derive([value], Derivation(Knowledge.KNOWN)) == [Answer(rules.MISSING, event_time_us=NO_ROW)]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("entity_key", {"entity_key": b""}),
        ("feature", {"feature": FeatureRef(NAME, 0, "x")}),
        ("time_us", {"time_us": 2**63}),
        ("applied_offset", {"applied_offset": -2}),
        ("shard_epoch", {"shard_epoch": -1}),
    ],
)
def test_a_bad_log_entry_is_refused_by_field(field: str, change: dict[str, object]) -> None:
    value = logged([], {1: View("latest")}, Answer(rules.MISSING), applied=-1)
    with pytest.raises(InvalidArgument) as caught:
        replace(value, **change)  # type: ignore[arg-type]  # one field of its own type each
    assert caught.value.field == field


def test_a_bad_answer_is_refused() -> None:
    for status in (-1, 0, 0x100, 0x0F):
        with pytest.raises(InvalidArgument, match="status"):
            Answer(status)
    with pytest.raises(InvalidArgument, match="leaves the slot empty"):
        Answer(rules.NULL, b"x")
    with pytest.raises(InvalidArgument, match="leaves the slot empty"):
        Answer(rules.EXPIRED | rules.WITHHELD, b"x")
    assert Answer(rules.EXPIRED, b"x").has_value
    assert Answer(rules.NULL | rules.DEFAULTED, b"").has_value  # a default may be the empty string


def test_too_many_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "VALUES_MAX", 1)
    value = logged([], {1: View("latest")}, Answer(rules.MISSING), applied=-1)
    with pytest.raises(InvalidArgument, match="at most 1"):
        attribute([value, value], History((), {1: View("latest")}))
