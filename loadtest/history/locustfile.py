"""Locust user of the historical service: calls start when they are due, and latency counts from then."""

import itertools
import time
import uuid
from dataclasses import dataclass, field
from typing import ClassVar, Final

import gevent
import grpc
import grpc.experimental.gevent as grpc_gevent
from gevent.pool import Pool
from locust import LoadTestShape, User, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.online.arrivals import Arrivals, Load, Shape
from loadtest.online.environment import address_of, give_verdict, options_of
from loadtest.online.gate import Recorder
from protos.offline.v1 import historical_service_pb2 as pb
from protos.offline.v1 import historical_service_pb2_grpc as rpc

CALL_DEADLINE_S: Final = 5.0
JOB_LIMIT_S: Final = 120.0
POLL_S: Final = 0.1
OUTSTANDING_MAX: Final = 200  # calls of one user; one more is an error, so that a hanging server cannot fill memory
DRAIN_S: Final = 6.0  # longer than one deadline
LIST_EVERY: Final = 20  # calls
SETTLE_S: Final = 1.0
SEED: Final = 20_261_127
OWN_CONNECTION: Final = (("grpc.use_local_subchannel_pool", 1),)  # else all users would share one

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
class Run:
    """The job that all users ask for, and what they record."""

    name: str
    digest: str
    recorder: Recorder = field(default_factory=Recorder)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    start_s: float = field(default_factory=time.perf_counter)


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
    HistoryUser.current = Run(job.name, job.result.digest)
    if job.state != pb.JOB_STATE_SUCCEEDED:
        HistoryUser.current.recorder.failed(f"the join ended as {pb.JobState.Name(job.state)}: {job.error.message}")


def judge(environment: Environment, **_: object) -> None:
    """Prints and writes the verdict, and sets the exit code by it."""
    recorder = Recorder() if HistoryUser.current is None else HistoryUser.current.recorder
    give_verdict(environment, recorder)


class HistoryShape(LoadTestShape):
    """Sets the number of users so that their calls make the asked rate."""

    def tick(self) -> tuple[int, float] | None:
        """Users now and how fast to get there; None ends the run."""
        assert self.runner is not None  # Locust sets it before the first tick
        load = load_of(self.runner.environment)
        run = HistoryUser.current
        elapsed_s = 0.0 if run is None else time.perf_counter() - run.start_s  # the join is no part of the run
        if elapsed_s >= load.duration_s:
            return None
        users = load.users_at(elapsed_s)
        return users, float(users)


class HistoryUser(User):
    """One person who watches a job."""

    wait_time = constant(0)
    current: ClassVar[Run | None] = None

    def on_start(self) -> None:
        """Opens a connection of its own; the first call, which connects, is not counted."""
        assert HistoryUser.current is not None  # test_start comes before the first user
        self._run = HistoryUser.current
        self._pool = Pool(OUTSTANDING_MAX)
        self._channel = grpc.insecure_channel(address_of(self.environment), options=OWN_CONNECTION)
        self._stub = rpc.HistoricalServiceStub(self._channel)
        self._sent = itertools.count(1)
        self._watch(0)
        seed = SEED + next(self._run.numbers)
        self._arrivals = Arrivals(load_of(self.environment).user_rate, time.perf_counter() + SETTLE_S, seed)

    @task
    def arrive(self) -> None:
        """Waits until the next call is due, and starts it without waiting for its answer."""
        due_s = self._arrivals.next_due_s()
        gevent.sleep(max(0.0, due_s - time.perf_counter()))
        self._run.recorder.plan()
        if self._pool.full():
            self._report(due_s, due_s, f"{OUTSTANDING_MAX} calls of one user are outstanding")
            return
        self._pool.spawn(self._one_call, due_s)

    def on_stop(self) -> None:
        """Lets the calls under way end."""
        self._pool.join(timeout=DRAIN_S)
        self._channel.close()

    def _one_call(self, due_s: float) -> None:
        sent_s, fault = time.perf_counter(), ""
        try:
            fault = self._watch(next(self._sent))
        except grpc.RpcError as error:
            fault = f"{error.code().name}: {error.details()}"
        self._report(due_s, sent_s, fault)

    def _watch(self, number: int) -> str:
        """One call, and what is wrong with its answer."""
        if number % LIST_EVERY == 1:
            jobs = self._stub.ListHistoricalJobs(pb.ListHistoricalJobsRequest(), timeout=CALL_DEADLINE_S).jobs
            return "" if any(job.name == self._run.name for job in jobs) else "the job is not listed"
        job = self._stub.GetHistoricalJob(pb.GetHistoricalJobRequest(name=self._run.name), timeout=CALL_DEADLINE_S).job
        is_right = job.state == pb.JOB_STATE_SUCCEEDED and job.result.digest == self._run.digest
        return "" if is_right else "the job or its digest changed"

    def _report(self, due_s: float, sent_s: float, fault: str) -> None:
        latency_ms = (time.perf_counter() - due_s) * 1000
        if fault:
            self._run.recorder.failed(fault)
        else:
            self._run.recorder.answered(latency_ms, (sent_s - due_s) * 1000)
        self.environment.events.request.fire(
            request_type="gRPC",
            name="watch",
            response_time=latency_ms,
            response_length=0,
            exception=RuntimeError(fault) if fault else None,
            context={},
        )


def load_of(environment: Environment) -> Load:
    """The load that the options ask for."""
    options = options_of(environment)
    return Load(Shape.STEADY, options.arrival_rate, options.duration_s)


# Locust declares add_listener without types.
events.init_command_line_parser.add_listener(add_arguments)  # type: ignore[no-untyped-call]
events.test_start.add_listener(begin)  # type: ignore[no-untyped-call]
events.quitting.add_listener(judge)  # type: ignore[no-untyped-call]
