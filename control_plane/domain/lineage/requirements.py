"""What a model was made of: all above it, with what proves each part and whether the registry still has it."""

from collections.abc import Callable
from typing import Final

from control_plane.domain.lineage.mirror import Mirror, Moment
from control_plane.domain.lineage.nodes import owning_name
from control_plane.domain.lineage.storage import LineageStore
from headrace.definitions.registered import RegisteredOnDemandView, RegisteredView, RegistryState, named
from headrace.lineage.values import Node, NodeKind, Requirement, Run

_LISTED: Final = frozenset(NodeKind) - {NodeKind.FEATURE, NodeKind.SOURCE_COLUMN, NodeKind.JOB}
"""Features and columns stand in the versions that they belong to; a job is the name of its runs."""


def requirements(
    mirror: Mirror, store: LineageStore, state: RegistryState, owner: Callable[[Node], str], start: int, moment: Moment
) -> list[Requirement]:
    """Everything above a node, the nearest first; what the registry cannot know exists for it when lineage says so."""
    closure = mirror.closure([start], moment, upstream=True)
    found = []
    hops = {position: hop for hop, (first, last) in enumerate(closure.hops()) for position in range(first, last)}
    listed = [
        (position, mirror.node(number))
        for position, number in enumerate(closure.nodes.tolist())
        if position > 0 and mirror.node(number).kind in _LISTED
    ]
    runs = store.runs([node.name for _, node in listed if node.kind is NodeKind.RUN])
    proofs = {name: digest for run in runs.values() for name, digest in run.digests.items()}
    for position, node in listed:
        digest, exists = _registered(node, state)
        detail = _run_detail(runs[node.name]) if node.name in runs else ""
        found.append(
            Requirement(node, hops[position], owner(node), exists, digest or proofs.get(node.name, ""), detail)
        )
    return found


def _registered(node: Node, state: RegistryState) -> tuple[str, bool]:
    """Digest of a registered version, and whether the registry holds it; retired versions still resolve."""
    name = owning_name(node)
    if not name:
        return "", True
    for record in named(state, name):
        if str(record.ref) == node.name:
            has_digest = isinstance(record, RegisteredView | RegisteredOnDemandView)
            return record.transform_digest.hex() if has_digest else "", True
    return "", False


def _run_detail(run: Run) -> str:
    code = f", git {run.git_sha}" if run.git_sha else ""
    kernel = f", kernel {run.kernel_version}" if run.kernel_version else ""
    return f"{run.job} {run.state.name.lower()}{code}{kernel}"
