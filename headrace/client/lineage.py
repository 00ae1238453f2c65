"""The blocking client of lineage."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from headrace.client.unary import UnaryClient
from headrace.convert.lineage import (
    change_from_pb,
    impacted_from_pb,
    requirement_from_pb,
    run_to_pb,
    time_from_pb,
    time_to_pb,
    total_from_pb,
)
from headrace.lineage.values import Impacted, NodeChange, NodeKind, Requirement, Run, Total, UpstreamChange
from protos.control.v1 import lineage_service_pb2 as pb

CALL_TIMEOUT_S_DEFAULT: Final = 30.0  # a closure of millions of nodes takes some hundred milliseconds
_PAGE_SIZE: Final = 1_000  # the most that a page of the contract holds


@dataclass(frozen=True, slots=True)
class ImpactPage:
    """A page of what a node reaches: the node found, totals over all pages, and what the answer knows of."""

    node: str
    totals: tuple[Total, ...]
    known_time_us: int
    items: tuple[Impacted, ...]


class LineageClient(UnaryClient):
    """Asks the lineage of the control plane over one channel; safe to share between threads."""

    service = "/headrace.control.v1.LineageService/"

    def impact(
        self,
        name: str,
        column: str = "",
        *,
        change: NodeChange = NodeChange.ANY,
        as_of_us: int | None = None,
        kinds: Iterable[NodeKind] = (),
        page_size: int = _PAGE_SIZE,
        timeout_s: float = CALL_TIMEOUT_S_DEFAULT,
    ) -> Iterator[ImpactPage]:
        """Everything that a node reaches, page by page; at least one page comes, and all are of one moment."""
        token = ""
        while True:
            request = pb.ListImpactedNodesRequest(
                name=name,
                column=column,
                change=pb.NodeChange.ValueType(change),
                as_of_time=None if as_of_us is None else time_to_pb(as_of_us),
                node_kinds=[pb.NodeKind.ValueType(kind) for kind in kinds],
                page_size=page_size,
                page_token=token,
            )
            raw = self._unary("ListImpactedNodes", request, timeout_s)
            answer = pb.ListImpactedNodesResponse.FromString(raw)
            yield ImpactPage(
                node=answer.node,
                totals=tuple(map(total_from_pb, answer.totals)),
                known_time_us=time_from_pb(answer.known_time, "known_time"),
                items=tuple(map(impacted_from_pb, answer.impacted_nodes)),
            )
            token = answer.next_page_token
            if not token:
                return

    def changes(
        self,
        name: str,
        column: str = "",
        *,
        start_us: int,
        end_us: int | None = None,
        page_size: int = _PAGE_SIZE,
        timeout_s: float = CALL_TIMEOUT_S_DEFAULT,
    ) -> Iterator[UpstreamChange]:
        """What changed above a node between two times, else until now: the nearest first, then the newest."""
        request = pb.ListUpstreamChangesRequest(
            name=name,
            column=column,
            start_time=time_to_pb(start_us),
            end_time=None if end_us is None else time_to_pb(end_us),
            page_size=page_size,
        )
        while True:
            answer = pb.ListUpstreamChangesResponse.FromString(self._unary("ListUpstreamChanges", request, timeout_s))
            yield from map(change_from_pb, answer.upstream_changes)
            request.page_token = answer.next_page_token
            if not answer.next_page_token:
                return

    def requirements(
        self, name: str, *, page_size: int = _PAGE_SIZE, timeout_s: float = CALL_TIMEOUT_S_DEFAULT
    ) -> Iterator[Requirement]:
        """What a model version was made of, the nearest first."""
        request = pb.ListRequirementsRequest(name=name, page_size=page_size)
        while True:
            answer = pb.ListRequirementsResponse.FromString(self._unary("ListRequirements", request, timeout_s))
            yield from map(requirement_from_pb, answer.requirements)
            request.page_token = answer.next_page_token
            if not answer.next_page_token:
                return

    def record_run(self, run: Run, timeout_s: float = CALL_TIMEOUT_S_DEFAULT) -> bool:
        """Keeps a run of a job; False where it is known already."""
        raw = self._unary("RecordRun", pb.RecordRunRequest(run=run_to_pb(run)), timeout_s)
        return not pb.RecordRunResponse.FromString(raw).known
