"""Locust user of lineage: calls start when they are due, and latency counts from then."""

import itertools
import time
from contextlib import suppress
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
from protos.control.v1 import lineage_service_pb2 as pb
from protos.control.v1 import lineage_service_pb2_grpc as rpc

CALL_DEADLINE_S: Final = 5.0
OUTSTANDING_MAX: Final = 200  # calls of one user; one more is an error, so that a hanging server cannot fill memory
DRAIN_S: Final = 6.0  # longer than one deadline
SETTLE_S: Final = 1.0
SEED: Final = 20_261_127
OWN_CONNECTION: Final = (("grpc.use_local_subchannel_pool", 1),)  # else all users would share one

grpc_gevent.init_gevent()


def add_arguments(parser: LocustArgumentParser) -> None:
    """Our options beside Locust's."""
    parser.add_argument("--node", default="", help="Node whose impact is asked for")
    parser.add_argument("--column", default="", help="Column of it")
    parser.add_argument("--arrival-rate", type=float, default=100.0, help="Calls per second")
    parser.add_argument("--duration-s", type=float, default=30.0, help="Length of the run in seconds")
    parser.add_argument("--p99-ms-max", type=float, default=50.0, help="Latency that 99 % of calls must hold")
    parser.add_argument("--summary", default="", help="File for the JSON summary")


@dataclass(frozen=True, slots=True)
class Run:
    """The answer that every call must give, and what users record."""

    expected: pb.ListImpactedNodesResponse
    recorder: Recorder = field(default_factory=Recorder)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    start_s: float = field(default_factory=time.perf_counter)


def begin(environment: Environment, **_: object) -> None:
    """Asks once; pages together must hold as many nodes as their totals say."""
    request, count = request_of(environment), 0
    LineageUser.current = Run(pb.ListImpactedNodesResponse())
    with grpc.insecure_channel(address_of(environment)) as channel:
        stub = rpc.LineageServiceStub(channel)
        try:
            first = page = stub.ListImpactedNodes(request, timeout=CALL_DEADLINE_S)
            count = len(page.impacted_nodes)
            while page.next_page_token:
                request.page_token = page.next_page_token
                page = stub.ListImpactedNodes(request, timeout=CALL_DEADLINE_S)
                count += len(page.impacted_nodes)
        except grpc.RpcError as error:
            LineageUser.current.recorder.failed(f"{error.code().name}: {error.details()}")
            return
    LineageUser.current = Run(first)
    total = sum(one.node_count for one in first.totals)
    if count != total:
        LineageUser.current.recorder.failed(f"the pages hold {count} nodes, and their totals say {total}")


def request_of(environment: Environment) -> pb.ListImpactedNodesRequest:
    """The question of every call."""
    options = options_of(environment)
    return pb.ListImpactedNodesRequest(name=options.node, column=options.column)


def judge(environment: Environment, **_: object) -> None:
    """Prints and writes the verdict, and sets the exit code by it."""
    recorder = Recorder() if LineageUser.current is None else LineageUser.current.recorder
    give_verdict(environment, recorder)


class LineageShape(LoadTestShape):
    """Sets the number of users so that their calls make the asked rate."""

    def tick(self) -> tuple[int, float] | None:
        """Users now and how fast to get there; None ends the run."""
        assert self.runner is not None  # Locust sets it before the first tick
        load = load_of(self.runner.environment)
        run = LineageUser.current
        elapsed_s = 0.0 if run is None else time.perf_counter() - run.start_s  # the first answer is no part of the run
        if elapsed_s >= load.duration_s:
            return None
        users = load.users_at(elapsed_s)
        return users, float(users)


class LineageUser(User):
    """One person who asks what a node reaches."""

    wait_time = constant(0)
    current: ClassVar[Run | None] = None

    def on_start(self) -> None:
        """Opens a connection of its own; the first call, which connects, is not counted."""
        assert LineageUser.current is not None  # test_start comes before the first user
        self._run = LineageUser.current
        self._pool = Pool(OUTSTANDING_MAX)
        self._channel = grpc.insecure_channel(address_of(self.environment), options=OWN_CONNECTION)
        self._stub = rpc.LineageServiceStub(self._channel)
        self._request = request_of(self.environment)
        with suppress(grpc.RpcError):  # a call that counts will say so
            self._ask()
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
            fault = self._ask()
        except grpc.RpcError as error:
            fault = f"{error.code().name}: {error.details()}"
        self._report(due_s, sent_s, fault)

    def _ask(self) -> str:
        """One call, and what is wrong with its answer."""
        found = self._stub.ListImpactedNodes(self._request, timeout=CALL_DEADLINE_S)
        wanted = self._run.expected
        is_same = list(found.impacted_nodes) == list(wanted.impacted_nodes) and list(found.totals) == list(
            wanted.totals
        )
        return "" if is_same and found.node == wanted.node else "the answer changed"

    def _report(self, due_s: float, sent_s: float, fault: str) -> None:
        latency_ms = (time.perf_counter() - due_s) * 1000
        if fault:
            self._run.recorder.failed(fault)
        else:
            self._run.recorder.answered(latency_ms, (sent_s - due_s) * 1000)
        self.environment.events.request.fire(
            request_type="gRPC",
            name="impact",
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
