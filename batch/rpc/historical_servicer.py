"""gRPC edge of historical jobs: converts, calls one method of the queue, converts back."""

# ruff: noqa: N802 - gRPC names the methods

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import grpc

from batch.jobs.job_table import Job, JobState
from batch.jobs.queue import JobQueue, Query
from headrace.convert.values import timestamp_from_pb, timestamp_to_pb
from headrace.errors import InvalidArgument
from headrace.serving.principal import Principal
from protos.offline.v1 import historical_service_pb2 as pb
from protos.offline.v1 import historical_service_pb2_grpc as rpc

SERVICE: Final = pb.DESCRIPTOR.services_by_name["HistoricalService"]
NAME_PREFIX: Final = "jobs/"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class HistoricalServicer(rpc.HistoricalServiceServicer):
    """HistoricalService over a queue; `principal` gives the caller of the running call."""

    def __init__(self, queue: JobQueue, principal: Callable[[], Principal]) -> None:
        self._queue = queue
        self._principal = principal

    def StartHistoricalJob(
        self, request: pb.StartHistoricalJobRequest, context: grpc.ServicerContext
    ) -> pb.StartHistoricalJobResponse:
        """Takes a job."""
        job = self._queue.start(self._principal(), _query(request.query), request.request_id)
        return pb.StartHistoricalJobResponse(job=self._message(job))

    def GetHistoricalJob(
        self, request: pb.GetHistoricalJobRequest, context: grpc.ServicerContext
    ) -> pb.GetHistoricalJobResponse:
        """One job."""
        job = self._queue.get(self._principal(), _job_id(request.name))
        return pb.GetHistoricalJobResponse(job=self._message(job))

    def ListHistoricalJobs(
        self, request: pb.ListHistoricalJobsRequest, context: grpc.ServicerContext
    ) -> pb.ListHistoricalJobsResponse:
        """A page of jobs."""
        jobs, token = self._queue.list(self._principal(), request.page_size, request.page_token)
        return pb.ListHistoricalJobsResponse(jobs=map(self._message, jobs), next_page_token=token)

    def CancelHistoricalJob(
        self, request: pb.CancelHistoricalJobRequest, context: grpc.ServicerContext
    ) -> pb.CancelHistoricalJobResponse:
        """Stops a job."""
        job = self._queue.cancel(self._principal(), _job_id(request.name))
        return pb.CancelHistoricalJobResponse(job=self._message(job))

    def _message(self, job: Job) -> pb.HistoricalJob:
        message = pb.HistoricalJob(
            name=NAME_PREFIX + job.job_id,
            state=pb.JobState.ValueType(job.state),
            query=_query_message(job),
            create_time=timestamp_to_pb(_time(job.create_time_us)),
        )
        if job.start_time_us:
            message.start_time.CopyFrom(timestamp_to_pb(_time(job.start_time_us)))
        if job.end_time_us:
            message.end_time.CopyFrom(timestamp_to_pb(_time(job.end_time_us)))
        told = self._queue.progress(job.job_id)
        if told is not None:
            message.progress.CopyFrom(pb.JobProgress(stage=told[0], done_count=told[1], total_count=told[2]))
        if job.state is JobState.SUCCEEDED:
            message.result.CopyFrom(_result(job))
        if job.state is JobState.FAILED:
            fields = {name: str(job.error.get(name, "")) for name in ("code", "reason", "field", "message")}
            message.error.CopyFrom(pb.JobError(**fields))
        return message


def _query(message: pb.HistoricalQuery) -> Query:
    cutoff_us = 0
    if message.HasField("cutoff_time"):
        cutoff_us = (timestamp_from_pb(message.cutoff_time, "query.cutoff_time") - _EPOCH) // timedelta(microseconds=1)
    return {
        "service": message.feature_service,
        "entities": list(message.entity_uris),
        "output": message.output_uri,
        "time_column": message.time_column,
        "cutoff_us": cutoff_us,
        "memory_limit_bytes": message.memory_limit_bytes,
    }


def _query_message(job: Job) -> pb.HistoricalQuery:
    query = job.query
    message = pb.HistoricalQuery(
        feature_service=query["service"],
        entity_uris=query["entities"],
        output_uri=query["output"],
        time_column=query["time_column"],
        memory_limit_bytes=query["memory_limit_bytes"],
    )
    if query["cutoff_us"]:
        message.cutoff_time.CopyFrom(timestamp_to_pb(_time(query["cutoff_us"])))
    return message


def _result(job: Job) -> pb.HistoricalResult:
    result = job.result
    return pb.HistoricalResult(
        output_uri=result["output"],
        row_count=result["row_count"],
        feature_service=result["feature_service"],
        digest=result["digest"],
        cutoff_time=timestamp_to_pb(_time(result["cutoff_us"])),
        views=[pb.ReadView(feature_view=view, snapshot_id=number) for view, number in result["snapshots"].items()],
    )


def _job_id(name: str) -> str:
    if not name.startswith(NAME_PREFIX):
        raise InvalidArgument(f"name {name[:100]!r} is not of the form jobs/UUID", reason="INVALID_NAME", field="name")
    return name.removeprefix(NAME_PREFIX)


def _time(time_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_us)
