"""What a model was made of: all above it, with what proves each part and whether the registry still has it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from control_plane.domain.lineage.mirror import Mirror, Moment
from control_plane.domain.lineage.nodes import owning_name
from control_plane.domain.lineage.storage import LineageStore
from headrace.definitions.registered import RegisteredOnDemandView, RegisteredView, RegistryState, named
from headrace.lineage.values import Node, NodeKind, Requirement, Run

_LISTED: Final = frozenset(NodeKind) - {NodeKind.FEATURE, NodeKind.SOURCE_COLUMN, NodeKind.JOB}
"""Features and columns stand in the versions that they belong to; a job is the name of its runs."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """Finds them; what the registry cannot know exists for it when lineage says so."""

    mirror: Mirror
    store: LineageStore
    state: RegistryState
    owner: Callable[[Node], str]

    def above(self, start: int, moment: Moment) -> list[Requirement]:
        """Everything above a node, the nearest first."""
        closure = self.mirror.closure([start], moment, upstream=True)
        listed = [
            (hop, node)
            for hop, (first, last) in enumerate(closure.hops())
            for node in map(self.mirror.node, closure.nodes[first:last].tolist())
            if hop > 0 and node.kind in _LISTED
        ]
        runs = self.store.runs([node.name for _, node in listed if node.kind is NodeKind.RUN])
        proofs = {name: digest for run in runs.values() for name, digest in run.digests.items()}
        return [self._requirement(node, hop, runs.get(node.name), proofs.get(node.name, "")) for hop, node in listed]

    def _requirement(self, node: Node, hop_count: int, run: Run | None, proof: str) -> Requirement:
        digest, exists = _registered(node, self.state)
        detail = "" if run is None else _run_detail(run)
        return Requirement(node, hop_count, self.owner(node), exists, digest or proof, detail)


def _registered(node: Node, state: RegistryState) -> tuple[str, bool]:
    """Digest of a registered version, and whether the registry holds it; retired versions still resolve."""
    name = owning_name(node)
    if not name:
        return "", True
    for record in named(state, name):
        if str(record.ref) == node.name:
            if isinstance(record, RegisteredView | RegisteredOnDemandView):
                return record.transform_digest.hex(), True
            return "", True
    return "", False


def _run_detail(run: Run) -> str:
    code = f", git {run.git_sha}" if run.git_sha else ""
    kernel = f", kernel {run.kernel_version}" if run.kernel_version else ""
    return f"{run.job} {run.state.name.lower()}{code}{kernel}"
