"""Locust user of the online service: calls start when they are due, and latency counts from then."""

import gc
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Final

import gevent
import grpc
import grpc.experimental.gevent as grpc_gevent
from gevent.pool import Pool
from locust import LoadTestShape, User, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.calls import READ_METHOD, Calls
from loadtest.dataset import SCENARIOS
from loadtest.online.arrivals import Arrivals, Load, Shape
from loadtest.online.environment import address_of, give_verdict, options_of
from loadtest.online.gate import Recorder
from loadtest.online.open_loop import CALL_DEADLINE_S, DRAIN_S, OUTSTANDING_MAX, OWN_CONNECTION, SETTLE_S
from loadtest.rows import SEED, Keys
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as rpc

CHECK_EVERY: Final = 50  # of one user: the first answer and then one in so many are compared value by value
CHECKED_BYTES_MAX: Final = 64 << 20  # answers kept for that until the run is over, so that checking delays no call
PREPARED_CALLS: Final = 10_000  # requests made before a run, then used in turn by all users

grpc_gevent.init_gevent()


def add_arguments(parser: LocustArgumentParser) -> None:
    """Our options beside Locust's; Locust's own page shows them too."""
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default="1x200", help="What one call asks for")
    parser.add_argument("--shape", choices=[one.value for one in Shape], default="steady", help="How the rate moves")
    parser.add_argument("--arrival-rate", type=float, default=200.0, help="Calls per second")
    parser.add_argument("--duration-s", type=float, default=30.0, help="Length of the run in seconds")
    parser.add_argument("--entities", type=int, default=1_000_000, help="Users that the server holds")
    parser.add_argument("--seed", type=int, default=SEED, help="Seed of keys and arrivals")
    parser.add_argument("--p99-ms-max", type=float, default=10.0, help="Latency that 99 % of calls must hold")
    parser.add_argument("--summary", default="", help="File for the JSON summary")


@dataclass(frozen=True, slots=True)
class Run:
    """What all users of one run share. Requests are made before it, so that making them delays no call."""

    calls: Calls
    requests: Iterator[tuple[Keys, bytes]]
    recorder: Recorder
    numbers: Iterator[int]
    kept: list[tuple[Keys, bytes]] = field(default_factory=list)

    def keep(self, users: Keys, answer: bytes) -> None:
        """Keeps an answer to be checked later, while there is room."""
        if (len(self.kept) + 1) * len(answer) <= CHECKED_BYTES_MAX:
            self.kept.append((users, answer))

    def check_kept(self) -> None:
        """Compares the kept answers with the loaded rows; a wrong one is an error."""
        for users, answer in self.kept:
            faults = self.calls.faults(users, answer)
            if faults:
                self.recorder.failed("; ".join(faults[:3]))
        self.kept.clear()


def begin(environment: Environment, **_: object) -> None:
    """Every run, also a second one from Locust's page, begins with requests of its own and an empty record."""
    options = options_of(environment)
    scenario = SCENARIOS[options.scenario]
    with grpc.insecure_channel(address_of(environment)) as channel:
        calls = Calls(scenario, options.entities, options.seed, prepare(channel, scenario.service))
    requests = itertools.cycle(list(calls.stream(PREPARED_CALLS)))
    OnlineUser.current = Run(calls, requests, Recorder(), itertools.count())
    gc.collect()
    gc.freeze()  # the collector need not walk the prepared requests during the run
    shape = environment.shape_class
    if shape is not None:
        shape.start_time = time.perf_counter()  # the preparation is no part of the run


def judge(environment: Environment, **_: object) -> None:
    """Prints and writes the verdict, and sets the exit code by it."""
    recorder = Recorder()
    if OnlineUser.current is not None:
        OnlineUser.current.check_kept()
        recorder = OnlineUser.current.recorder
    give_verdict(environment, recorder)


class OnlineShape(LoadTestShape):
    """Sets the number of users so that their calls make the asked rate."""

    def tick(self) -> tuple[int, float] | None:
        """Users now and how fast to get there; None ends the run."""
        assert self.runner is not None  # Locust sets it before the first tick
        load = load_of(self.runner.environment)
        elapsed_s = time.perf_counter() - self.start_time
        if elapsed_s >= load.duration_s:
            return None
        users = load.users_at(elapsed_s)
        return users, float(users)


class OnlineUser(User):
    """One model server: draws keys by popularity and calls at its due times."""

    wait_time = constant(0)
    current: ClassVar[Run | None] = None

    def on_start(self) -> None:
        """Opens a connection of its own; the first call, which connects, is not counted."""
        assert OnlineUser.current is not None  # test_start comes before the first user
        self._run = OnlineUser.current
        self._pool = Pool(OUTSTANDING_MAX)
        self._sent = itertools.count(1)
        self._channel = grpc.insecure_channel(address_of(self.environment), options=OWN_CONNECTION)
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(READ_METHOD)
        self._call(next(self._run.requests)[1], timeout=CALL_DEADLINE_S)
        seed = options_of(self.environment).seed + next(self._run.numbers)
        self._arrivals = Arrivals(load_of(self.environment).user_rate, time.perf_counter() + SETTLE_S, seed)

    @task
    def arrive(self) -> None:
        """Waits until the next call is due, and starts it without waiting for its answer."""
        due_s = self._arrivals.next_due_s()
        gevent.sleep(max(0.0, due_s - time.perf_counter()))
        self._run.recorder.plan()
        if self._pool.full():
            self._report(due_s, due_s, b"", f"{OUTSTANDING_MAX} calls of one user are outstanding")
            return
        users, request = next(self._run.requests)
        self._pool.spawn(self._one_call, due_s, users, request)

    def on_stop(self) -> None:
        """Lets the calls under way end."""
        self._pool.join(timeout=DRAIN_S)
        self._channel.close()

    def _one_call(self, due_s: float, users: Keys, request: bytes) -> None:
        sent_s, fault, answer = time.perf_counter(), "", b""
        try:
            answer = self._call(request, timeout=CALL_DEADLINE_S)
        except grpc.RpcError as error:
            fault = f"{error.code().name}: {error.details()}"
        ended_s = time.perf_counter()
        if not fault and next(self._sent) % CHECK_EVERY == 1:
            self._run.keep(users, answer)
        self._report(due_s, sent_s, answer, fault, ended_s)

    def _report(self, due_s: float, sent_s: float, answer: bytes, fault: str, ended_s: float | None = None) -> None:
        latency_ms = ((ended_s or time.perf_counter()) - due_s) * 1000
        if fault:
            self._run.recorder.failed(fault)
        else:
            self._run.recorder.answered(latency_ms, (sent_s - due_s) * 1000)
        self.environment.events.request.fire(
            request_type="gRPC",
            name=self._run.calls.scenario.name,
            response_time=latency_ms,
            response_length=len(answer),
            exception=RuntimeError(fault) if fault else None,
            context={},
        )


def load_of(environment: Environment) -> Load:
    """The load that the options ask for."""
    options = options_of(environment)
    return Load(Shape(options.shape), options.arrival_rate, options.duration_s)


def prepare(channel: grpc.Channel, service: str) -> bytes:
    """Handle of the service, resolved once as a model server does."""
    stub = rpc.OnlineFeatureServiceStub(channel)
    answer = stub.PrepareFeatureSet(pb.PrepareFeatureSetRequest(feature_service=service), timeout=CALL_DEADLINE_S)
    return bytes(answer.handle)


# Locust declares add_listener without types.
events.init_command_line_parser.add_listener(add_arguments)  # type: ignore[no-untyped-call]
events.test_start.add_listener(begin)  # type: ignore[no-untyped-call]
events.quitting.add_listener(judge)  # type: ignore[no-untyped-call]
