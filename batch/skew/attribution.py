"""Names the cause of every served value that differs from its re-derived truth.

The order of the decision; the first hypothesis that gives exactly what was served names the cause:
 1. UNAVAILABLE was served: no value to compare, counted apart.
 2. Equal to the truth, which knows every row up to the cut-off of the run: a match.
 3. Equal to the rules over the applied offset: the server was right with what it had, and rows beyond made the truth.
    apply_lag where those acknowledged by T give the truth, late_event where they change nothing or not enough.
 4. Equal to the rules over all rows acknowledged by T: apply_lag, as rows beyond the recorded offset were seen.
 5. ttl: expiry never, expiry always.  6. default: none stood in, or always where no value is there.
 7. The recorded transform digest is not the version's: version where it is another version's, else code.
 8. boundary: one edge off by one.
 9. missing: what no row gives, or what is left without the newest row.
10. version: another version of the view, nearest first.
11. missing: the truth is what no row gives, and something else was served.
12. code: equal inputs and digest, and the recomputation still differs.
Signs that stand in status or digest come before those that a value may give by chance. A log with event times tells
causes apart that leave an empty slot alike: a row that expired, one that was lost, one on the wrong side of an edge.
Not told apart: an older event lost from a window is `boundary` where its hop held nothing else, and `code` elsewhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from batch.skew.served import Answer, Derivation, Edge, Evidence, Knowledge, Rule, Served
from core_ext import rules
from headrace.errors import InvalidArgument

VALUES_MAX: Final = 100_000  # of one call, so that a run holds one batch of answers at a time
VERSIONS_TRIED_MAX: Final = 8  # nearest first; a mismatch of an older one is told as code


class Cause(StrEnum):
    """Why a served value differs."""

    LATE_EVENT = "late_event"
    APPLY_LAG = "apply_lag"
    TTL = "ttl"
    VERSION = "version"
    DEFAULT = "default"
    BOUNDARY = "boundary"
    CODE = "code"
    MISSING = "missing"


class Outcome(StrEnum):
    """What the comparison of one value gave."""

    MATCH = "match"
    MISMATCH = "mismatch"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One compared value. `why` says which hypothesis gave what was served; `also` names a cause that took part."""

    served: Served
    outcome: Outcome
    expected: Answer | None = None
    cause: Cause | None = None
    why: str = ""
    also: tuple[Cause, ...] = ()


@dataclass(slots=True)
class _Case:
    """A mismatch on its way through the hypotheses."""

    at: int
    served: Served
    expected: Answer
    applied: Answer
    acknowledged: Answer
    cause: Cause | None = None
    why: str = ""
    also: tuple[Cause, ...] = field(default=())

    def close(self, cause: Cause, why: str, also: tuple[Cause, ...] = ()) -> None:
        self.cause, self.why, self.also = cause, why, also


_RULES: Final = (
    (Derivation(expiry=Rule.NEVER), Cause.TTL, "equal without expiry"),
    (Derivation(expiry=Rule.ALWAYS), Cause.TTL, "equal if it had expired"),
    (Derivation(defaulting=Rule.NEVER), Cause.DEFAULT, "equal without the default"),
    (Derivation(defaulting=Rule.ALWAYS), Cause.DEFAULT, "equal with the default in place"),
)
_EDGES: Final = tuple(
    (Derivation(edge=edge), Cause.BOUNDARY, f"equal with edge {edge}") for edge in Edge if edge is not Edge.DECLARED
)
_ABSENT: Final = (
    (Derivation(Knowledge.NOTHING), Cause.MISSING, "equal to an answer without rows"),
    (Derivation(Knowledge.WITHOUT_NEWEST), Cause.MISSING, "equal without the newest row"),
)


def attribute(served: Sequence[Served], evidence: Evidence) -> tuple[Finding, ...]:
    """One finding a value, in order. Hypotheses are asked only for values that nothing has explained yet."""
    if len(served) > VALUES_MAX:
        raise InvalidArgument(
            f"{len(served)} values in one call; give at most {VALUES_MAX}", reason="TOO_MANY", field="served"
        )
    findings = [Finding(value, Outcome.UNAVAILABLE) for value in served]
    places = [at for at, value in enumerate(served) if value.answer.state != rules.UNAVAILABLE]
    truths = _derive([served[at] for at in places], Derivation(Knowledge.KNOWN), evidence)
    differing = []
    for at, truth in zip(places, truths, strict=True):
        if served[at].answer.same_as(truth):
            findings[at] = Finding(served[at], Outcome.MATCH, truth)
        else:
            differing.append((at, truth))
    for case in _explained(differing, served, evidence):
        findings[case.at] = Finding(case.served, Outcome.MISMATCH, case.expected, case.cause, case.why, case.also)
    return tuple(findings)


def _explained(
    differing: Sequence[tuple[int, Answer]], served: Sequence[Served], evidence: Evidence
) -> Iterator[_Case]:
    values = [served[at] for at, _ in differing]
    applied = _derive(values, Derivation(), evidence)
    acknowledged = _derive(values, Derivation(Knowledge.ACKNOWLEDGED), evidence)
    cases = [
        _Case(at, value, truth, *pair)
        for (at, truth), value, pair in zip(differing, values, zip(applied, acknowledged, strict=True), strict=True)
    ]
    for case in cases:
        _by_time(case)
    _by_hypotheses(cases, _RULES, evidence)
    _by_digest(cases, evidence)
    _by_hypotheses(cases, (*_EDGES, *_ABSENT), evidence)
    _by_version(cases, evidence)
    _by_absent_truth(cases, evidence)
    for case in _open(cases):
        case.close(Cause.CODE, "same inputs and digest, and no rule gives what was served")
    yield from cases


def _by_time(case: _Case) -> None:
    """Whether rows beyond the applied offset alone make the difference."""
    if case.served.answer.explained_by(case.applied):
        if case.acknowledged.same_as(case.expected):
            case.close(Cause.APPLY_LAG, "rows acknowledged before the read were not applied")
        elif case.acknowledged.same_as(case.applied):
            case.close(Cause.LATE_EVENT, "rows written after the read")
        else:
            case.close(Cause.LATE_EVENT, "rows written after the read, on top of rows not applied", (Cause.APPLY_LAG,))
    elif case.served.answer.explained_by(case.acknowledged):
        case.close(Cause.APPLY_LAG, "rows beyond the recorded offset were seen")


def _by_hypotheses(cases: list[_Case], tries: Sequence[tuple[Derivation, Cause, str]], evidence: Evidence) -> None:
    for derivation, cause, why in tries:
        pending = _open(cases)
        answers = _derive([case.served for case in pending], derivation, evidence)
        for case, answer in zip(pending, answers, strict=True):
            if case.served.answer.explained_by(answer):
                case.close(cause, why)


def _by_digest(cases: list[_Case], evidence: Evidence) -> None:
    """The digest that the server recorded says which transform ran, whatever values it gave."""
    pending = _open(cases)
    for case, digests in zip(pending, _digests(pending, evidence), strict=True):
        recorded, own = case.served.transform_digest, case.served.feature.version
        if digests.get(own) == recorded:
            continue
        others = [version for version in _nearest(digests, own) if digests[version] == recorded]
        if others:
            case.close(Cause.VERSION, f"the transform of v{others[0]} ran")
        else:
            case.close(Cause.CODE, "the transform that ran is not the registered one")


def _by_version(cases: list[_Case], evidence: Evidence) -> None:
    pending = _open(cases)
    wanted: dict[int, list[_Case]] = {}
    rank_of: dict[tuple[int, int], int] = {}
    for case, digests in zip(pending, _digests(pending, evidence), strict=True):
        for rank, version in enumerate(_nearest(digests, case.served.feature.version)[:VERSIONS_TRIED_MAX]):
            wanted.setdefault(version, []).append(case)
            rank_of[case.at, version] = rank
    found: dict[int, list[int]] = {}
    for version, group in wanted.items():
        answers = _derive([case.served for case in group], Derivation(version=version), evidence)
        for case, answer in zip(group, answers, strict=True):
            if case.served.answer.explained_by(answer):
                found.setdefault(case.at, []).append(version)
    for case in pending:
        if case.at in found:
            version = min(found[case.at], key=lambda one: rank_of[case.at, one])
            case.close(Cause.VERSION, f"equal to v{version}")


def _by_absent_truth(cases: list[_Case], evidence: Evidence) -> None:
    pending = _open(cases)
    answers = _derive([case.served for case in pending], Derivation(Knowledge.NOTHING), evidence)
    for case, answer in zip(pending, answers, strict=True):
        if case.applied.same_as(answer):
            case.close(Cause.MISSING, "the truth has no row, and a value was served")


def _open(cases: Sequence[_Case]) -> list[_Case]:
    return [case for case in cases if case.cause is None]


def _nearest(digests: dict[int, bytes], own: int) -> list[int]:
    return sorted((version for version in digests if version != own), key=lambda one: (abs(one - own), -one))


def _derive(served: Sequence[Served], derivation: Derivation, evidence: Evidence) -> Sequence[Answer]:
    return evidence.derive(served, derivation) if served else ()


def _digests(cases: Sequence[_Case], evidence: Evidence) -> list[dict[int, bytes]]:
    if not cases:
        return []
    return [dict(digests) for digests in evidence.transform_digests([case.served for case in cases])]
