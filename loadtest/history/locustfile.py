"""Locust user of the historical service: calls start when they are due, and latency counts from then."""

import itertools
import time
import uuid
from dataclasses import dataclass
from typing import ClassVar, Final

import gevent
import grpc
import grpc.experimental.gevent as grpc_gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.online.environment import address_of, options_of
from loadtest.online.open_loop import CALL_DEADLINE_S, OpenLoopUser, Run, SteadyShape, judge_run
from protos.offline.v1 import historical_service_pb2 as pb
from protos.offline.v1 import historical_service_pb2_grpc as rpc

JOB_LIMIT_S: Final = 120.0
POLL_S: Final = 0.1
LIST_EVERY: Final = 20  # calls

grpc_gevent.init_gevent()


def add_arguments(parser: LocustArgumentParser) -> None:
    """Our options beside Locust's."""
    parser.add_argument("--service", default="", help="Feature service to join")
    parser.add_argument("--entities", default="", help="Entity rows, below the roots of the server")
    parser.add_argument("--output", default="", help="Result, below the roots of the server")
    parser.add_argument("--arrival-rate", type=float, default=50.0, help="Calls per second")
    parser.add_argument("--duration-s", type=float, default=30.0, help="Length of the run in seconds")
    parser.add_argument("--p99-ms-max", type=float, default=100.0, help="Latency that 99 % of calls must hold")
    parser.add_argument("--summary", default="", help="File for the JSON summary")


@dataclass(frozen=True, slots=True)
class JobRun(Run):
    """The job that all users ask for."""

    name: str
    digest: str


def begin(environment: Environment, **_: object) -> None:
    """Starts one join and waits for it; a run without a result is no run."""
    options = options_of(environment)
    with grpc.insecure_channel(address_of(environment)) as channel:
        stub = rpc.HistoricalServiceStub(channel)
        query = pb.HistoricalQuery(
            feature_service=options.service, entity_uris=[options.entities], output_uri=options.output
        )
        request = pb.StartHistoricalJobRequest(query=query, request_id=str(uuid.uuid4()))
        job = stub.StartHistoricalJob(request, timeout=CALL_DEADLINE_S).job
        deadline = time.monotonic() + JOB_LIMIT_S
        while job.state in (pb.JOB_STATE_QUEUED, pb.JOB_STATE_RUNNING) and time.monotonic() < deadline:
            gevent.sleep(POLL_S)
            job = stub.GetHistoricalJob(pb.GetHistoricalJobRequest(name=job.name), timeout=CALL_DEADLINE_S).job
    HistoryUser.current = JobRun(job.name, job.result.digest)
    if job.state != pb.JOB_STATE_SUCCEEDED:
        HistoryUser.current.recorder.failed(f"the join ended as {pb.JobState.Name(job.state)}: {job.error.message}")


def judge(environment: Environment, **_: object) -> None:
    """Gives the verdict."""
    judge_run(environment, HistoryUser.current)


class HistoryShape(SteadyShape):
    """That of the run."""

    def run_now(self) -> Run | None:
        """The run that goes on."""
        return HistoryUser.current


class HistoryUser(OpenLoopUser):
    """One person who watches a job."""

    call_name = "watch"
    current: ClassVar[JobRun | None] = None

    def on_start(self) -> None:
        """Opens a connection of its own; the first call, which connects, is not counted."""
        assert HistoryUser.current is not None  # test_start comes before the first user
        self._run = HistoryUser.current
        self._stub = rpc.HistoricalServiceStub(self.connect(self._run))
        self._sent = itertools.count(1)
        self._watch(0)
        self.set_arrivals(self._run)

    def call(self) -> str:
        """Looks at the job, and now and then at the list."""
        return self._watch(next(self._sent))

    def _watch(self, number: int) -> str:
        if number % LIST_EVERY == 1:
            jobs = self._stub.ListHistoricalJobs(pb.ListHistoricalJobsRequest(), timeout=CALL_DEADLINE_S).jobs
            return "" if any(job.name == self._run.name for job in jobs) else "the job is not listed"
        job = self._stub.GetHistoricalJob(pb.GetHistoricalJobRequest(name=self._run.name), timeout=CALL_DEADLINE_S).job
        is_right = job.state == pb.JOB_STATE_SUCCEEDED and job.result.digest == self._run.digest
        return "" if is_right else "the job or its digest changed"


# Locust declares add_listener without types.
events.init_command_line_parser.add_listener(add_arguments)  # type: ignore[no-untyped-call]
events.test_start.add_listener(begin)  # type: ignore[no-untyped-call]
events.quitting.add_listener(judge)  # type: ignore[no-untyped-call]
