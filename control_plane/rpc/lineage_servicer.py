"""gRPC edge of lineage: converts, calls one domain method, converts back."""

# ruff: noqa: N802 - gRPC names the methods

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final, TypeVar

import grpc

from control_plane.domain.lineage.lineage import ImpactQuestion, Lineage
from headrace.convert import lineage as convert
from headrace.errors import InvalidArgument
from headrace.lineage.values import NodeChange, NodeKind
from headrace.serving.principal import Principal
from protos.control.v1 import lineage_service_pb2 as pb
from protos.control.v1 import lineage_service_pb2_grpc as rpc

SERVICE: Final = pb.DESCRIPTOR.services_by_name["LineageService"]
_Number = TypeVar("_Number", bound=IntEnum)


class LineageServicer(rpc.LineageServiceServicer):
    """LineageService over the lineage; `principal` gives the caller of the running call."""

    def __init__(self, lineage: Lineage, principal: Callable[[], Principal]) -> None:
        self._lineage = lineage
        self._principal = principal

    def ListImpactedNodes(
        self, request: pb.ListImpactedNodesRequest, context: grpc.ServicerContext
    ) -> pb.ListImpactedNodesResponse:
        """A page of what a node reaches."""
        as_of = request.as_of_time if request.HasField("as_of_time") else None
        question = ImpactQuestion(
            node=request.name,
            column=request.column,
            change=_known(NodeChange, request.change, "change"),
            as_of_us=None if as_of is None else convert.time_from_pb(as_of, "as_of_time"),
            kinds=_kinds(request.node_kinds),
        )
        page = self._lineage.impact(self._principal(), question, request.page_size, request.page_token)
        return pb.ListImpactedNodesResponse(
            impacted_nodes=map(convert.impacted_to_pb, page.items),
            next_page_token=page.next_page_token,
            totals=map(convert.total_to_pb, page.totals),
            node=page.start.name,
            known_time=convert.time_to_pb(page.moment.known_us),
        )

    def ListUpstreamChanges(
        self, request: pb.ListUpstreamChangesRequest, context: grpc.ServicerContext
    ) -> pb.ListUpstreamChangesResponse:
        """A page of what changed above a node."""
        if not request.HasField("start_time"):
            raise InvalidArgument("start_time is missing; say since when", reason="REQUIRED", field="start_time")
        end = request.end_time if request.HasField("end_time") else None
        times_us = (
            convert.time_from_pb(request.start_time, "start_time"),
            None if end is None else convert.time_from_pb(end, "end_time"),
        )
        page = self._lineage.changes(
            self._principal(), request.name, request.column, times_us, (request.page_size, request.page_token)
        )
        return pb.ListUpstreamChangesResponse(
            upstream_changes=map(convert.change_to_pb, page.items),
            next_page_token=page.next_page_token,
            change_count=page.count,
            node=page.start.name,
        )

    def ListRequirements(
        self, request: pb.ListRequirementsRequest, context: grpc.ServicerContext
    ) -> pb.ListRequirementsResponse:
        """A page of what a model was made of."""
        page = self._lineage.requirements(self._principal(), request.name, request.page_size, request.page_token)
        return pb.ListRequirementsResponse(
            requirements=map(convert.requirement_to_pb, page.items),
            next_page_token=page.next_page_token,
            node=page.start.name,
        )

    def RecordRun(self, request: pb.RecordRunRequest, context: grpc.ServicerContext) -> pb.RecordRunResponse:
        """Keeps a run."""
        if not request.HasField("run"):
            raise InvalidArgument("run is missing; say which run", reason="REQUIRED", field="run")
        is_new = self._lineage.record_run(self._principal(), convert.run_from_pb(request.run))
        return pb.RecordRunResponse(known=not is_new)


def _kinds(numbers: Iterable[int]) -> frozenset[NodeKind]:
    return frozenset(_known(NodeKind, number, "node_kinds") for number in numbers)


def _known(kind: type[_Number], number: int, field: str) -> _Number:
    try:
        return kind(number)
    except ValueError as error:
        raise InvalidArgument(
            f"{field} is {number}, which this release does not know; known: {', '.join(one.name for one in kind)}",
            reason="UNKNOWN_VALUE",
            field=field,
        ) from error
