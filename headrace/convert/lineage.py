"""Lineage from and to messages."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf import timestamp_pb2

from headrace.convert.values import timestamp_from_pb, timestamp_to_pb
from headrace.errors import InvalidArgument
from headrace.lineage.values import (
    EdgeKind,
    Effect,
    Impacted,
    Node,
    NodeKind,
    PathStep,
    Requirement,
    Run,
    RunData,
    RunState,
    Total,
    UpstreamChange,
    UpstreamKind,
)
from protos.control.v1 import lineage_service_pb2 as pb

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def time_to_pb(time_us: int) -> timestamp_pb2.Timestamp:
    """Message of microseconds since the epoch."""
    return timestamp_to_pb(_EPOCH + timedelta(microseconds=time_us))


def time_from_pb(message: timestamp_pb2.Timestamp, field: str) -> int:
    """Microseconds since the epoch; raises InvalidArgument outside the years 1 to 9999."""
    return (timestamp_from_pb(message, field) - _EPOCH) // _MICROSECOND


def impacted_to_pb(impacted: Impacted) -> pb.ImpactedNode:
    """Message of a node that is reached."""
    return pb.ImpactedNode(
        node=impacted.node.name,
        node_kind=pb.NodeKind.ValueType(impacted.node.kind),
        hop_count=impacted.hop_count,
        owner=impacted.owner,
        effect=pb.Effect.ValueType(impacted.effect),
        path=map(step_to_pb, impacted.path),
    )


def impacted_from_pb(message: pb.ImpactedNode) -> Impacted:
    """Node that is reached, of a message."""
    node = Node(NodeKind(message.node_kind), message.node)
    path = tuple(map(step_from_pb, message.path))
    return Impacted(node, message.hop_count, message.owner, Effect(message.effect), path)


def step_to_pb(step: PathStep) -> pb.PathStep:
    """Message of one step of a path."""
    return pb.PathStep(
        node=step.node.name,
        node_kind=pb.NodeKind.ValueType(step.node.kind),
        edge_kind=pb.EdgeKind.ValueType(step.kind or 0),
        transform=step.transform,
    )


def step_from_pb(message: pb.PathStep) -> PathStep:
    """Step of a message."""
    kind = EdgeKind(message.edge_kind) if message.edge_kind else None
    return PathStep(Node(NodeKind(message.node_kind), message.node), kind, message.transform)


def total_to_pb(total: Total) -> pb.ImpactTotal:
    """Message of a total."""
    kind = pb.NodeKind.ValueType(total.kind)
    return pb.ImpactTotal(hop_count=total.hop_count, node_kind=kind, node_count=total.count)


def total_from_pb(message: pb.ImpactTotal) -> Total:
    """Total of a message."""
    return Total(message.hop_count, NodeKind(message.node_kind), message.node_count)


def change_to_pb(change: UpstreamChange) -> pb.UpstreamChange:
    """Message of a change above a node."""
    return pb.UpstreamChange(
        kind=pb.UpstreamKind.ValueType(change.kind),
        node=change.node.name,
        node_kind=pb.NodeKind.ValueType(change.node.kind),
        hop_count=change.hop_count,
        change_time=time_to_pb(change.time_us),
        text=change.text,
        owner=change.owner,
        path=map(step_to_pb, change.path),
    )


def change_from_pb(message: pb.UpstreamChange) -> UpstreamChange:
    """Change above a node, of a message."""
    return UpstreamChange(
        kind=UpstreamKind(message.kind),
        node=Node(NodeKind(message.node_kind), message.node),
        hop_count=message.hop_count,
        time_us=time_from_pb(message.change_time, "change_time"),
        text=message.text,
        owner=message.owner,
        path=tuple(map(step_from_pb, message.path)),
    )


def requirement_to_pb(requirement: Requirement) -> pb.Requirement:
    """Message of a requirement."""
    return pb.Requirement(
        node=requirement.node.name,
        node_kind=pb.NodeKind.ValueType(requirement.node.kind),
        hop_count=requirement.hop_count,
        owner=requirement.owner,
        registered=requirement.exists,
        digest=requirement.digest,
        detail=requirement.detail,
    )


def requirement_from_pb(message: pb.Requirement) -> Requirement:
    """Requirement of a message."""
    node = Node(NodeKind(message.node_kind), message.node)
    return Requirement(node, message.hop_count, message.owner, message.registered, message.digest, message.detail)


def run_to_pb(run: Run) -> pb.Run:
    """Message of a run."""
    return pb.Run(
        run_id=run.run_id,
        job=run.job,
        state=pb.RunState.ValueType(run.state),
        start_time=time_to_pb(run.start_time_us),
        end_time=time_to_pb(run.end_time_us),
        inputs=_data_to_pb(run.inputs),
        outputs=_data_to_pb(run.outputs),
        git_sha=run.git_sha,
        kernel_version=run.kernel_version,
        digests=run.digests,
    )


def run_from_pb(message: pb.Run) -> Run:
    """Run of a message; raises InvalidArgument where it did not end or times are out of range."""
    try:
        state = RunState(message.state)
    except ValueError as error:
        raise InvalidArgument(
            f"state of the run is {message.state}; a run is kept when it has SUCCEEDED or FAILED",
            reason="UNKNOWN_VALUE",
            field="run.state",
        ) from error
    return Run(
        run_id=message.run_id,
        job=message.job,
        state=state,
        start_time_us=time_from_pb(message.start_time, "run.start_time"),
        end_time_us=time_from_pb(message.end_time, "run.end_time"),
        inputs=_data_from_pb(message.inputs),
        outputs=_data_from_pb(message.outputs),
        git_sha=message.git_sha,
        kernel_version=message.kernel_version,
        digests=dict(message.digests),
    )


def _data_to_pb(data: Iterable[RunData]) -> list[pb.RunData]:
    return [pb.RunData(node=one.name, version=one.version) for one in data]


def _data_from_pb(messages: Iterable[pb.RunData]) -> tuple[RunData, ...]:
    return tuple(RunData(one.node, one.version) for one in messages)
