"""A Locust user whose calls start when they are due, whatever became of the ones before, and the shape of its run."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Final

import gevent
import grpc
from gevent.pool import Pool
from locust import LoadTestShape, User, constant, task
from locust.env import Environment

from loadtest.online.arrivals import Arrivals, Load, Shape
from loadtest.online.environment import address_of, give_verdict, options_of
from loadtest.online.gate import Recorder

CALL_DEADLINE_S: Final = 5.0
OUTSTANDING_MAX: Final = 200  # calls of one user; one more is an error, so that a hanging server cannot fill memory
DRAIN_S: Final = 6.0  # longer than one deadline
SETTLE_S: Final = 1.0  # from a user's start to its first arrival, while other users still connect
OWN_CONNECTION: Final = (("grpc.use_local_subchannel_pool", 1),)  # else all users would share one
SEED: Final = 20_261_127


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What all users of one run share; a kind of run adds what its calls need. Made when its preparation is over."""

    recorder: Recorder = field(default_factory=Recorder)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    start_s: float = field(default_factory=time.perf_counter)


class OpenLoopUser(User):
    """One person who calls at due times. A kind of user prepares in `on_start`, and says in `call` what is wrong."""

    abstract = True
    wait_time = constant(0)
    call_name: ClassVar[str]

    def connect(self, run: Run) -> grpc.Channel:
        """A connection of its own."""
        self._recorder = run.recorder
        self._pool = Pool(OUTSTANDING_MAX)
        self._channel = grpc.insecure_channel(address_of(self.environment), options=OWN_CONNECTION)
        return self._channel

    def set_arrivals(self, run: Run) -> None:
        """Calls are due from here on."""
        rate = steady_load(self.environment).user_rate
        self._arrivals = Arrivals(rate, time.perf_counter() + SETTLE_S, SEED + next(run.numbers))

    def call(self) -> str:
        """One call, and what is wrong with its answer; raises RpcError."""
        raise NotImplementedError

    @task
    def arrive(self) -> None:
        """Waits until the next call is due, and starts it without waiting for its answer."""
        due_s = self._arrivals.next_due_s()
        gevent.sleep(max(0.0, due_s - time.perf_counter()))
        self._recorder.plan()
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
            fault = self.call()
        except grpc.RpcError as error:
            fault = f"{error.code().name}: {error.details()}"
        self._report(due_s, sent_s, fault)

    def _report(self, due_s: float, sent_s: float, fault: str) -> None:
        latency_ms = (time.perf_counter() - due_s) * 1000
        if fault:
            self._recorder.failed(fault)
        else:
            self._recorder.answered(latency_ms, (sent_s - due_s) * 1000)
        self.environment.events.request.fire(
            request_type="gRPC",
            name=self.call_name,
            response_time=latency_ms,
            response_length=0,
            exception=RuntimeError(fault) if fault else None,
            context={},
        )


class SteadyShape(LoadTestShape):
    """Sets the number of users so that their calls make the asked rate. A kind of shape knows its run."""

    abstract = True

    def run_now(self) -> Run | None:
        """The run that goes on."""
        raise NotImplementedError

    def tick(self) -> tuple[int, float] | None:
        """Users now and how fast to get there; None ends the run."""
        assert self.runner is not None  # Locust sets it before the first tick
        load = steady_load(self.runner.environment)
        run = self.run_now()
        elapsed_s = 0.0 if run is None else time.perf_counter() - run.start_s
        if elapsed_s >= load.duration_s:
            return None
        users = load.users_at(elapsed_s)
        return users, float(users)


def steady_load(environment: Environment) -> Load:
    """The load that the options ask for."""
    options = options_of(environment)
    return Load(Shape.STEADY, options.arrival_rate, options.duration_s)


def judge_run(environment: Environment, run: Run | None) -> None:
    """Prints and writes the verdict, and sets the exit code by it."""
    give_verdict(environment, Recorder() if run is None else run.recorder)
