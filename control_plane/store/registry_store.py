"""The durable registry over an engine."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine, delete, insert, select, update

from control_plane.domain.lineage.declared import declared_changes
from control_plane.domain.plan import Plan
from control_plane.domain.storage import Answer, Revision
from control_plane.store.engine import reading, writing
from control_plane.store.lineage_log import declare
from control_plane.store.records import (
    Row,
    changes_of,
    changes_text,
    from_us,
    name_row,
    pin_rows,
    record_of,
    to_us,
    version_row,
)
from control_plane.store.tables import answers, names, pins, registry, revisions, versions
from headrace.definitions.registered import Registered, RegistryState, named, registry_state
from headrace.errors import Aborted

ANSWER_COUNT_MAX: Final = 10_000  # answers kept for repeated requests; clients repeat within minutes, not months


class SqlRegistryStore:
    """Keeps the newest state that it read, so that a read of an unchanged registry costs one row. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._state = RegistryState()

    def read(self) -> RegistryState:
        """The newest committed state."""
        with reading(self._engine) as connection:
            return self._current(connection)

    def revision(self) -> int:
        """The newest committed revision."""
        with reading(self._engine) as connection:
            return int(connection.execute(select(registry.c.revision)).scalar_one())

    def revisions(self, after: int, limit: int) -> Sequence[Revision]:
        """Lines of the log in order."""
        query = select(revisions).where(revisions.c.revision > after).order_by(revisions.c.revision).limit(limit)
        with reading(self._engine) as connection:
            return [
                Revision(row.revision, from_us(row.time_us), row.principal, row.action, changes_of(row.changes))
                for row in connection.execute(query)
            ]

    @contextmanager
    def transaction(self) -> Iterator["SqlTransaction"]:
        """One writer at a time: the row of `registry` is locked first, on every database."""
        with writing(self._engine) as connection:
            connection.execute(select(registry.c.id).with_for_update()).one()
            transaction = SqlTransaction(connection, self._current(connection))
            yield transaction
        if transaction.after is not None:
            self._keep(transaction.after)

    def _current(self, connection: Connection) -> RegistryState:
        head = connection.execute(select(registry.c.revision, registry.c.highest_id)).one()
        kept = self._state
        if kept.revision == head.revision:
            return kept
        rows = connection.execute(select(names, versions).join(versions, names.c.name == versions.c.name))
        state = registry_state(head.revision, head.highest_id, [record_of(dict(row)) for row in rows.mappings()])
        self._keep(state)
        return state

    def _keep(self, state: RegistryState) -> None:
        with self._lock:
            if state.revision > self._state.revision:
                self._state = state


class SqlTransaction:
    """One writer's transaction; `after` is the state that was stored, or None."""

    def __init__(self, connection: Connection, state: RegistryState) -> None:
        self._connection = connection
        self.state = state
        self.after: RegistryState | None = None

    def answer(self, request_id: str) -> Answer | None:
        """Answer that was kept for a request."""
        row = self._connection.execute(select(answers).where(answers.c.request_id == request_id)).one_or_none()
        return None if row is None else Answer(row.digest, row.revision, changes_of(row.changes))

    def keep_answer(self, request_id: str, answer: Answer, time: datetime) -> None:
        """Keeps an answer and drops the oldest beyond the bound."""
        row = {
            "request_id": request_id,
            "digest": answer.digest,
            "revision": answer.revision,
            "changes": changes_text(answer.changes),
            "time_us": to_us(time),
        }
        self._connection.execute(insert(answers), row)
        oldest = select(answers.c.request_id).order_by(answers.c.time_us.desc(), answers.c.request_id)
        dropped = list(self._connection.execute(oldest.offset(ANSWER_COUNT_MAX)).scalars())
        if dropped:
            self._connection.execute(delete(answers).where(answers.c.request_id.in_(dropped)))

    def store(self, plan: Plan, revision: Revision) -> None:
        """Writes records, log, lineage and head; raises Aborted where the head has moved."""
        for name in {record.ref.name: None for record in plan.records}:
            self._store_name(name_row(named(plan.after, name)))
        for record in plan.records:
            self._store_version(record)
        line = {
            "revision": revision.number,
            "time_us": to_us(revision.time),
            "principal": revision.principal,
            "action": revision.action,
            "changes": changes_text(revision.changes),
        }
        self._connection.execute(insert(revisions), line)
        changes = declared_changes(plan.records, self.state, plan.after)
        declare(self._connection, changes, revision.number, to_us(revision.time))
        head = update(registry).where(registry.c.revision == self.state.revision)
        moved = self._connection.execute(head.values(revision=revision.number, highest_id=plan.after.highest_id))
        if moved.rowcount != 1:
            raise Aborted("another writer changed the registry first; repeat the request", reason="CONCURRENT_CHANGE")
        self.after = plan.after

    def _store_name(self, row: Row) -> None:
        if self._connection.execute(update(names).where(names.c.name == row["name"]).values(row)).rowcount == 0:
            self._connection.execute(insert(names), row)

    def _store_version(self, record: Registered) -> None:
        row = version_row(record)
        same = (versions.c.name == row["name"]) & (versions.c.version == row["version"])
        if self._connection.execute(update(versions).where(same).values(row)).rowcount:
            return
        self._connection.execute(insert(versions), row)
        targets = pin_rows(record)
        if targets:
            self._connection.execute(insert(pins), targets)
