"""The jobs of the service: taken durably, run a few at a time, each seen by its owner alone."""

import shutil
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from batch.jobs.context import Context
from batch.jobs.historical import release_run
from batch.jobs.job_table import Job, JobState, JobTable
from batch.jobs.process import WorkerProcess, drop_partial
from batch.offline.catalogue import Catalogue
from batch.offline.lake import caller_roots, has_lake, lake_config
from headrace.errors import AlreadyExists, HeadraceError, InvalidArgument, NotFound, ResourceExhausted
from headrace.names import parse_version_ref
from headrace.serving.logging import EventLog
from headrace.serving.principal import Principal

PERMISSION: Final = "HISTORY_READ"
RUNNING_MAX: Final = 2  # a join uses two threads of its own
WAITING_MAX: Final = 100
MEMORY_LIMIT_BYTES: Final = 2 << 30
ENTITY_FILES_MAX: Final = 10_000
PAGE_SIZE: Final = 100
PAGE_SIZE_MAX: Final = 1_000
TOKEN_LENGTH_MAX: Final = 18  # digits of a job's number
RETRY_AFTER_MS: Final = 10_000
_IDLE_S: Final = 1.0

Progress = tuple[str, int, int]
Query = dict[str, Any]  # Any: JSON values


@dataclass(frozen=True, slots=True)
class JobLimits:
    """What the service grants."""

    running_max: int = RUNNING_MAX
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES


class JobQueue:
    """Owns the table of jobs and the threads that run them."""

    def __init__(
        self, folder: Path, context: Context, limits: JobLimits, clock_us: Callable[[], int], log: EventLog
    ) -> None:
        self._folder = folder
        self._context = context
        self._limits = limits
        self._clock_us = clock_us
        self._log = log
        self._table = JobTable(folder)
        self._work = folder / "running"
        self._wake = threading.Condition()
        self._is_closing = False
        self._running: dict[str, WorkerProcess] = {}
        self._progress: dict[str, Progress] = {}
        self._cancelled: set[str] = set()  # of jobs that run or are about to
        self._threads = [
            threading.Thread(target=self._run, name=f"job-{i}", daemon=True) for i in range(limits.running_max)
        ]

    def open(self) -> None:
        """Ends what a server that is gone had under way, and goes on with what waits."""
        for job in self._table.in_state(JobState.RUNNING):
            self._clear(job)
            error = {
                "code": "ABORTED",
                "reason": "SERVER_RESTARTED",
                "field": "",
                "message": "the server stopped while the job ran; start the job again",
            }
            self._table.end(job.job_id, JobState.RUNNING, JobState.FAILED, self._clock_us(), error)
            self._log.warning("job_broken_off", job=job.job_id)
        shutil.rmtree(self._work, ignore_errors=True)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stops the jobs that run, which a restart tells as FAILED, and waits for their threads."""
        with self._wake:
            self._is_closing = True
            self._wake.notify_all()
        for process in list(self._running.values()):
            process.stop()
        for thread in self._threads:
            thread.join()
        self._table.close()

    def start(self, principal: Principal, query: Query, request_id: str) -> Job:
        """Takes a job; the same request again gives the same job."""
        principal.require(PERMISSION)
        _check_uuid(request_id, "request_id")
        if (held := self._table.of_request(principal.name, request_id)) is not None:
            if held.query != query:
                raise AlreadyExists(
                    "request_id stands for another query already; give each request its own",
                    reason="REQUEST_ID_TAKEN",
                    field="request_id",
                )
            return held
        self._check(query)
        with self._wake:
            if len(self._table.in_state(JobState.QUEUED)) >= WAITING_MAX:
                raise ResourceExhausted(
                    f"{WAITING_MAX} jobs wait already; try again later",
                    reason="QUEUE_FULL",
                    retry_after_ms=RETRY_AFTER_MS,
                )
            job = Job(str(uuid.uuid4()), principal.name, request_id, JobState.QUEUED, query, self._clock_us())
            self._table.add(job)
            self._wake.notify()
        return job

    def get(self, principal: Principal, job_id: str) -> Job:
        """One job of the caller."""
        principal.require(PERMISSION)
        job = self._table.get(job_id)
        if job is None or job.owner != principal.name:
            raise NotFound(f"there is no job {job_id!r} of yours", reason="UNKNOWN_JOB", metadata={"job": job_id[:100]})
        return job

    def list(self, principal: Principal, page_size: int, page_token: str) -> tuple[Sequence[Job], str]:
        """A page of the caller's jobs, and the token of the next."""
        principal.require(PERMISSION)
        is_token = not page_token or (page_token.isdecimal() and len(page_token) <= TOKEN_LENGTH_MAX)
        if page_size < 0 or not is_token:
            raise InvalidArgument(
                "page_size is negative or page_token is none that was given",
                reason="BAD_PAGE",
                field="page_size" if page_size < 0 else "page_token",
            )
        size = min(page_size or PAGE_SIZE, PAGE_SIZE_MAX)
        jobs = self._table.page(principal.name, int(page_token or 0), size + 1)
        return jobs[:size], str(jobs[size - 1].number) if len(jobs) > size else ""

    def cancel(self, principal: Principal, job_id: str) -> Job:
        """Stops a job of the caller."""
        job = self.get(principal, job_id)
        if self._table.end(job_id, JobState.QUEUED, JobState.CANCELLED, self._clock_us(), {}):
            return self.get(principal, job_id)
        if not job.has_ended:
            self._cancelled.add(job_id)
            process = self._running.get(job_id)
            if process is not None:
                process.stop()
        return self.get(principal, job_id)

    def progress(self, job_id: str) -> Progress | None:
        """How far a running job is."""
        return self._progress.get(job_id)

    def counts(self) -> Mapping[JobState, int]:
        """Jobs by state."""
        return self._table.counts()

    # ---- checks at the edge ----

    def _check(self, query: Query) -> None:
        parse_version_ref(query["service"], "query.feature_service")
        if not 1 <= len(query["entities"]) <= ENTITY_FILES_MAX:
            count = len(query["entities"])
            raise InvalidArgument(
                f"{count} entity files; name 1 to {ENTITY_FILES_MAX}", reason="OUT_OF_RANGE", field="query.entity_uris"
            )
        roots = caller_roots(self._context.lake, self._context.roots)
        for uri in query["entities"]:
            roots.resolve(uri, "query.entity_uris")
        roots.resolve(query["output"], "query.output_uri")
        limit = query["memory_limit_bytes"] or self._limits.memory_limit_bytes
        if not 0 < limit <= self._limits.memory_limit_bytes:
            raise InvalidArgument(
                f"a memory limit of {limit} bytes is not 1 to {self._limits.memory_limit_bytes}, as this server grants",
                reason="OUT_OF_RANGE",
                field="query.memory_limit_bytes",
                metadata={"bytes": str(limit)},
            )

    # ---- the threads ----

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._carry_out(job)
            except Exception as error:  # noqa: BLE001 - a worker loop survives what one job does
                self._log.failure("job_failed", error, job=job.job_id)
                self._end(job, {"error": {"code": "INTERNAL", "reason": "INTERNAL", "message": "the server failed"}})

    def _next(self) -> Job | None:
        with self._wake:
            while not self._is_closing:
                for job in self._table.in_state(JobState.QUEUED):
                    if self._table.start(job.job_id, self._clock_us()):
                        return replace(job, state=JobState.RUNNING)
                self._wake.wait(_IDLE_S)
        return None

    def _carry_out(self, job: Job) -> None:
        folder = self._work / job.job_id
        process = WorkerProcess(self._order(job, folder), folder)
        self._running[job.job_id] = process
        if self._is_closing or job.job_id in self._cancelled:
            process.stop()
        try:
            self._log.info("job_started", job=job.job_id, owner=job.owner)
            last = process.follow(lambda *told: self._progress.__setitem__(job.job_id, told))
        finally:
            process.close()
            self._running.pop(job.job_id, None)
            self._progress.pop(job.job_id, None)
            self._cancelled.discard(job.job_id)
        if process.is_stopped and "result" not in last:
            self._clear(job)
            if self._is_closing:
                return  # the next server tells it
            self._table.end(job.job_id, JobState.RUNNING, JobState.CANCELLED, self._clock_us(), {})
            return
        if "error" in last:
            self._clear(job)
        self._end(job, last)

    def _end(self, job: Job, last: Mapping[str, Any]) -> None:  # Any: JSON values
        state = JobState.SUCCEEDED if "result" in last else JobState.FAILED
        self._table.end(job.job_id, JobState.RUNNING, state, self._clock_us(), last.get("result") or last["error"])
        self._log.info("job_ended", job=job.job_id, state=state.name)

    def _order(self, job: Job, folder: Path) -> dict[str, Any]:  # Any: JSON values
        limit = job.query["memory_limit_bytes"] or self._limits.memory_limit_bytes
        arguments = {
            **job.query,
            "memory_limit_bytes": limit,
            "run_id": job.job_id,
            "temp_folder": str(folder),
        }
        return {
            "command": "get_historical",
            "lake": str(self._context.lake),
            "registry": self._context.registry,
            "token": self._context.token,
            "confined": True,
            "roots": list(self._context.roots),
            "arguments": arguments,
        }

    def _clear(self, job: Job) -> None:
        """Takes away what a killed run left: its half file and its hold on snapshots."""
        drop_partial(job.query["output"], job.job_id)
        if not has_lake(self._context.lake):
            return
        try:
            catalogue = Catalogue(lake_config(self._context.lake, self._context.roots))
            try:
                release_run(catalogue, uuid.UUID(job.job_id))
            finally:
                catalogue.close()
        except HeadraceError as error:
            self._log.warning("job_not_cleared", job=job.job_id, detail=error.message)


def _check_uuid(text: str, field: str) -> None:
    try:
        uuid.UUID(text)
    except ValueError as error:
        raise InvalidArgument(f"{field} {text[:100]!r} is no UUID", reason="NOT_A_UUID", field=field) from error
