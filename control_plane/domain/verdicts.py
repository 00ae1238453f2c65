"""Verdicts: what a plan decides about one definition."""

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.definitions.changes import ChangeKind


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason to refuse a definition; `field` is its path within the definition."""

    reason: str
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Decision about one definition; `version` is that after the change."""

    change_kind: ChangeKind
    version: int
    details: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def created(version: int, *details: str) -> Verdict:
    """A new name."""
    return Verdict(ChangeKind.CREATE, version, details)


def renewed(version: int, details: Sequence[str]) -> Verdict:
    """The next version of a name."""
    return Verdict(ChangeKind.NEW_VERSION, version, tuple(details))


def updated(version: int, details: Sequence[str]) -> Verdict:
    """Changed parts that need no version."""
    return Verdict(ChangeKind.UPDATE, version, tuple(details))


def unchanged(version: int) -> Verdict:
    """Nothing to do."""
    return Verdict(ChangeKind.UNCHANGED, version)


def refused(version: int, problems: Sequence[Problem]) -> Verdict:
    """Nothing that can be done."""
    return Verdict(ChangeKind.REFUSED, version, tuple(problem.message for problem in problems), tuple(problems))


def incompatible(field: str, what: str) -> Problem:
    """A change that the versions before forbid."""
    return Problem("INCOMPATIBLE_CHANGE", field, f"{what}; this change is incompatible and needs a new name")
