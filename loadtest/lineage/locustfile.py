"""Locust user of lineage: calls start when they are due, and latency counts from then."""

from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import grpc
import grpc.experimental.gevent as grpc_gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.online.environment import address_of, options_of
from loadtest.online.open_loop import CALL_DEADLINE_S, OpenLoopUser, Run, SteadyShape, judge_run
from protos.control.v1 import lineage_service_pb2 as pb
from protos.control.v1 import lineage_service_pb2_grpc as rpc

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
class AnswerRun(Run):
    """The answer that every call must give."""

    expected: pb.ListImpactedNodesResponse


def begin(environment: Environment, **_: object) -> None:
    """Asks once; pages together must hold as many nodes as their totals say."""
    request, count = request_of(environment), 0
    LineageUser.current = AnswerRun(pb.ListImpactedNodesResponse())
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
    LineageUser.current = AnswerRun(first)
    total = sum(one.node_count for one in first.totals)
    if count != total:
        LineageUser.current.recorder.failed(f"the pages hold {count} nodes, and their totals say {total}")


def request_of(environment: Environment) -> pb.ListImpactedNodesRequest:
    """The question of every call."""
    options = options_of(environment)
    return pb.ListImpactedNodesRequest(name=options.node, column=options.column)


def judge(environment: Environment, **_: object) -> None:
    """Gives the verdict."""
    judge_run(environment, LineageUser.current)


class LineageShape(SteadyShape):
    """That of the run."""

    def run_now(self) -> Run | None:
        """The run that goes on."""
        return LineageUser.current


class LineageUser(OpenLoopUser):
    """One person who asks what a node reaches."""

    call_name = "impact"
    current: ClassVar[AnswerRun | None] = None

    def on_start(self) -> None:
        """Opens a connection of its own; the first call, which connects, is not counted."""
        assert LineageUser.current is not None  # test_start comes before the first user
        self._run = LineageUser.current
        self._stub = rpc.LineageServiceStub(self.connect(self._run))
        self._request = request_of(self.environment)
        with suppress(grpc.RpcError):  # a call that counts will say so
            self.call()
        self.set_arrivals(self._run)

    def call(self) -> str:
        """Asks, and compares with the first answer."""
        found = self._stub.ListImpactedNodes(self._request, timeout=CALL_DEADLINE_S)
        wanted = self._run.expected
        is_same = list(found.impacted_nodes) == list(wanted.impacted_nodes) and list(found.totals) == list(
            wanted.totals
        )
        return "" if is_same and found.node == wanted.node else "the answer changed"


# Locust declares add_listener without types.
events.init_command_line_parser.add_listener(add_arguments)  # type: ignore[no-untyped-call]
events.test_start.add_listener(begin)  # type: ignore[no-untyped-call]
events.quitting.add_listener(judge)  # type: ignore[no-untyped-call]
