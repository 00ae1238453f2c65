"""What the registry asks of its storage."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from control_plane.domain.plan import Plan
from headrace.definitions.changes import Change
from headrace.definitions.registered import RegistryState


@dataclass(frozen=True, slots=True)
class Revision:
    """One line of the append-only log: who did what, and when."""

    number: int
    time: datetime
    principal: str
    action: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to a request, kept so that repeating the request gives it again; `digest` tells another request apart."""

    digest: str
    revision: int
    changes: tuple[Change, ...]


class RegistryTransaction(Protocol):
    """One writer's view of the registry, alone until it ends."""

    @property
    def state(self) -> RegistryState:
        """The registry as this transaction found it."""

    def answer(self, request_id: str) -> Answer | None:
        """Answer that was kept for a request."""

    def keep_answer(self, request_id: str, answer: Answer, time: datetime) -> None:
        """Keeps an answer; the oldest beyond a bound are dropped."""

    def store(self, plan: Plan, revision: Revision) -> None:
        """Writes the records of a plan and the line of the log."""


class RegistryStore(Protocol):
    """Durable registry."""

    def read(self) -> RegistryState:
        """The newest committed state."""

    def revision(self) -> int:
        """Its revision, read more cheaply."""

    def revisions(self, after: int, limit: int) -> Sequence[Revision]:
        """Lines of the log in order."""

    def transaction(self) -> AbstractContextManager[RegistryTransaction]:
        """Commits at the end of the block, or nothing where it raises. Raises Aborted when another writer won."""
