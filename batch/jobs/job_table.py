"""The jobs of a server in an SQLite file: what was asked, what became of it. It outlives the server."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from headrace.errors import DataLoss, Unavailable

FILE_NAME: Final = "jobs.sqlite"
ENDED_KEPT_MAX: Final = 1_000
BUSY_TIMEOUT_S: Final = 5.0


class JobState(IntEnum):
    """What becomes of a job; the numbers are those of the contract."""

    QUEUED = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5


ENDED: Final = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Job:
    """One job. `query`, `result` and `error` are JSON documents; times are UTC microseconds, 0 where not yet."""

    job_id: str
    owner: str
    request_id: str
    state: JobState
    query: Mapping[str, Any]  # Any: JSON values, here and below
    create_time_us: int
    start_time_us: int = 0
    end_time_us: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0  # in the order of their making

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ENDED


_COLUMNS: Final = (
    "job_id, owner, request_id, state, query, create_time_us, start_time_us, end_time_us, result, error, number"
)
_TABLE: Final = """
create table if not exists jobs (
  number integer primary key autoincrement, job_id text not null unique, owner text not null,
  request_id text not null, state integer not null, query text not null, create_time_us integer not null,
  start_time_us integer not null, end_time_us integer not null, result text not null, error text not null,
  unique (owner, request_id)
)
"""


class JobTable:
    """Every change is on disk when its method returns; safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        with _translated():
            self._connection = sqlite3.connect(
                folder / FILE_NAME, timeout=BUSY_TIMEOUT_S, check_same_thread=False, isolation_level=None
            )
            for pragma in ("journal_mode = WAL", "synchronous = FULL"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.execute(_TABLE)

    def add(self, job: Job) -> None:
        """Takes a new job."""
        values = (job.job_id, job.owner, job.request_id, int(job.state), json.dumps(dict(job.query)))
        self._run(
            "insert into jobs (job_id, owner, request_id, state, query, create_time_us, start_time_us, end_time_us, "
            "result, error) values (?, ?, ?, ?, ?, ?, 0, 0, '{}', '{}')",
            (*values, job.create_time_us),
        )

    def get(self, job_id: str) -> Job | None:
        """A job by its id."""
        return next(iter(self._select("where job_id = ?", (job_id,))), None)

    def of_request(self, owner: str, request_id: str) -> Job | None:
        """The job that a request has made."""
        return next(iter(self._select("where owner = ? and request_id = ?", (owner, request_id))), None)

    def page(self, owner: str, before: int, count: int) -> Sequence[Job]:
        """Jobs of an owner older than a number (0: all), the newest first."""
        bound = before or 2**62
        return self._select("where owner = ? and number < ? order by number desc limit ?", (owner, bound, count))

    def in_state(self, state: JobState) -> Sequence[Job]:
        """Jobs in a state, the oldest first."""
        return self._select("where state = ? order by number", (int(state),))

    def counts(self) -> Mapping[JobState, int]:
        """Jobs by state."""
        rows = self._run("select state, count(*) from jobs group by state", ())
        return {JobState(state): count for state, count in rows}

    def start(self, job_id: str, time_us: int) -> bool:
        """From QUEUED to RUNNING; False where it is no longer queued."""
        return self._move(job_id, JobState.QUEUED, "state = ?, start_time_us = ?", (int(JobState.RUNNING), time_us))

    def end(self, job_id: str, origin: JobState, state: JobState, time_us: int, document: Mapping[str, Any]) -> bool:
        """From QUEUED or RUNNING to an end; False where another end came first."""
        column = "result" if state is JobState.SUCCEEDED else "error"
        values = (int(state), time_us, json.dumps(dict(document)))
        moved = self._move(job_id, origin, f"state = ?, end_time_us = ?, {column} = ?", values)
        self._forget()
        return moved

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    def _move(self, job_id: str, origin: JobState, change: str, values: tuple[object, ...]) -> bool:
        rows = self._run(
            f"update jobs set {change} where job_id = ? and state = ? returning number",  # noqa: S608 - constants only
            (*values, job_id, int(origin)),
        )
        return bool(rows)

    def _forget(self) -> None:
        states = ",".join(str(int(state)) for state in ENDED)
        self._run(
            f"delete from jobs where state in ({states}) and number <= "  # noqa: S608 - constants only
            f"(select number from jobs where state in ({states}) order by number desc limit 1 offset ?)",
            (ENDED_KEPT_MAX,),
        )

    def _select(self, rest: str, values: tuple[object, ...]) -> list[Job]:
        return [_job(row) for row in self._run(f"select {_COLUMNS} from jobs {rest}", values)]  # noqa: S608 - as above

    def _run(self, text: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:  # Any: columns of a row
        with self._lock, _translated():
            return self._connection.execute(text, values).fetchall()


def _job(row: tuple[Any, ...]) -> Job:  # Any: columns of a row
    job_id, owner, request_id, state, query, create_us, start_us, end_us, result, error, number = row
    return Job(
        job_id=job_id,
        owner=owner,
        request_id=request_id,
        state=JobState(state),
        query=json.loads(query),
        create_time_us=create_us,
        start_time_us=start_us,
        end_time_us=end_us,
        result=json.loads(result),
        error=json.loads(error),
        number=number,
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Unavailable(
            f"the table of jobs does not answer: {error}; look at its disk", reason="JOBS_UNAVAILABLE"
        ) from error
    except sqlite3.DatabaseError as error:
        raise DataLoss(f"the table of jobs cannot be read: {error}", reason="JOBS_DAMAGED") from error
