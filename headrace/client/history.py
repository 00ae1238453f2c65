"""The blocking client of the historical service."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final

from headrace.client.unary import UnaryClient
from headrace.convert.values import timestamp_from_pb, timestamp_to_pb
from headrace.errors import BY_CODE, Aborted, DeadlineExceeded, HeadraceError, InternalError
from protos.offline.v1 import historical_service_pb2 as pb

CALL_TIMEOUT_S_DEFAULT: Final = 30.0
POLL_INTERVAL_S: Final = 0.2
_SERVICE: Final = "/headrace.offline.v1.HistoricalService/"
_PAGE_SIZE: Final = 1_000


class JobState(IntEnum):
    """State of a job; the numbers are those of the contract."""

    QUEUED = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5


@dataclass(frozen=True, slots=True)
class HistoricalJob:
    """One job. `output`, `row_count`, `digest` and `snapshots` are those of its result, empty before SUCCEEDED."""

    name: str
    state: JobState
    feature_service: str
    stage: str = ""
    done_count: int = 0
    total_count: int = 0
    output: str = ""
    row_count: int = 0
    digest: str = ""
    cutoff_time: datetime | None = None
    snapshots: tuple[tuple[str, int], ...] = ()
    error: HeadraceError | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state not in (JobState.QUEUED, JobState.RUNNING)


class HistoryClient(UnaryClient):
    """Starts, watches and cancels historical jobs over one channel; safe to share between threads."""

    service = _SERVICE

    def start(
        self,
        feature_service: str,
        entities: Sequence[str],
        output: str,
        *,
        time_column: str = "",
        cutoff_time: datetime | None = None,
        memory_limit_bytes: int = 0,
        request_id: str = "",
        timeout_s: float = CALL_TIMEOUT_S_DEFAULT,
    ) -> HistoricalJob:
        """Starts a job; entity files and output are places that the server sees, below its roots."""
        query = pb.HistoricalQuery(
            feature_service=feature_service,
            entity_uris=entities,
            output_uri=output,
            time_column=time_column,
            memory_limit_bytes=memory_limit_bytes,
        )
        if cutoff_time is not None:
            query.cutoff_time.CopyFrom(timestamp_to_pb(cutoff_time))
        request = pb.StartHistoricalJobRequest(query=query, request_id=request_id or str(uuid.uuid4()))
        answer = pb.StartHistoricalJobResponse.FromString(self._unary("StartHistoricalJob", request, timeout_s))
        return _job(answer.job)

    def get(self, name: str, timeout_s: float = CALL_TIMEOUT_S_DEFAULT) -> HistoricalJob:
        """One job as it is now."""
        raw = self._unary("GetHistoricalJob", pb.GetHistoricalJobRequest(name=name), timeout_s)
        return _job(pb.GetHistoricalJobResponse.FromString(raw).job)

    def list(self, timeout_s: float = CALL_TIMEOUT_S_DEFAULT) -> Iterator[HistoricalJob]:
        """The caller's jobs, the newest first, page by page."""
        token = ""
        while True:
            request = pb.ListHistoricalJobsRequest(page_size=_PAGE_SIZE, page_token=token)
            answer = pb.ListHistoricalJobsResponse.FromString(self._unary("ListHistoricalJobs", request, timeout_s))
            yield from map(_job, answer.jobs)
            token = answer.next_page_token
            if not token:
                return

    def cancel(self, name: str, timeout_s: float = CALL_TIMEOUT_S_DEFAULT) -> HistoricalJob:
        """Stops a job."""
        raw = self._unary("CancelHistoricalJob", pb.CancelHistoricalJobRequest(name=name), timeout_s)
        return _job(pb.CancelHistoricalJobResponse.FromString(raw).job)

    def wait(
        self, name: str, limit_s: float, watch: Callable[[HistoricalJob], None] = lambda job: None
    ) -> HistoricalJob:
        """The job when it has succeeded; raises its error, Aborted where it was cancelled, DeadlineExceeded."""
        deadline = self._clock() + limit_s
        while not (job := self.get(name)).has_ended:
            watch(job)
            if self._clock() >= deadline:
                raise DeadlineExceeded(
                    f"{name} is {job.state.name} after {limit_s:.0f} s; it goes on, look again later",
                    reason="JOB_NOT_ENDED",
                    metadata={"job": name},
                )
            self._sleep(POLL_INTERVAL_S)
        if job.error is not None:
            raise job.error
        if job.state is JobState.CANCELLED:
            raise Aborted(f"{name} was cancelled; start it again", reason="JOB_CANCELLED", metadata={"job": name})
        return job


def _job(message: pb.HistoricalJob) -> HistoricalJob:
    result = message.result
    is_set = message.HasField("result")
    return HistoricalJob(
        name=message.name,
        state=JobState(message.state),
        feature_service=result.feature_service or message.query.feature_service,
        stage=message.progress.stage,
        done_count=message.progress.done_count,
        total_count=message.progress.total_count,
        output=result.output_uri,
        row_count=result.row_count,
        digest=result.digest,
        cutoff_time=timestamp_from_pb(result.cutoff_time, "cutoff_time") if is_set else None,
        snapshots=tuple((view.feature_view, view.snapshot_id) for view in result.views),
        error=_error(message.error) if message.HasField("error") else None,
    )


def _error(message: pb.JobError) -> HeadraceError:
    kind = BY_CODE.get(message.code, InternalError)
    return kind(message.message, reason=message.reason or "JOB_FAILED", field=message.field)
