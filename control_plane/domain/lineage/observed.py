"""Edges that a run of a job shows: what it read and wrote, and which versions of the data."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from control_plane.domain.lineage import nodes
from control_plane.domain.lineage.edges import Edge, EdgeChange
from headrace.errors import InvalidArgument
from headrace.lineage.values import NAME_LENGTH_MAX, EdgeKind, Node, NodeKind, Run, RunData, RunState

DATA_COUNT_MAX: Final = 10_000  # of one run; a job reads the views of a service, or the files of a folder
TEXT_LENGTH_MAX: Final = 128


def run_node(run: Run) -> Node:
    """Node of a run."""
    return nodes.outside(NodeKind.RUN, run.run_id)


def checked_run(run: Run) -> Run:
    """The run with a canonical id; raises InvalidArgument for what no run can say."""
    try:
        run_id = str(uuid.UUID(run.run_id))
    except ValueError as error:
        raise InvalidArgument("run_id is no UUID", reason="INVALID_RUN_ID", field="run_id") from error
    for name, text, length in (
        ("job", run.job, TEXT_LENGTH_MAX),
        ("git_sha", run.git_sha, TEXT_LENGTH_MAX),
        ("kernel_version", run.kernel_version, TEXT_LENGTH_MAX),
    ):
        if len(text) > length or not text.isprintable() or (name == "job" and not text):
            message = f"{name} of a run is {text[:40]!r}; it is printable and has at most {length} characters"
            raise InvalidArgument(message, reason="INVALID_NAME", field=name)
    for name, data in (("inputs", run.inputs), ("outputs", run.outputs)):
        _check_data(name, data)
    if not 0 <= run.start_time_us <= run.end_time_us:
        raise InvalidArgument(
            "end_time of a run lies before its start_time; give both", reason="OUT_OF_RANGE", field="end_time"
        )
    return replace(run, run_id=run_id)


def run_edges(run: Run, kinds: Mapping[str, NodeKind]) -> EdgeChange:
    """Edges of a run; `kinds` tells definitions among its data. A failed run has read, and written nothing."""
    here = run_node(run)
    found = [Edge(nodes.outside(NodeKind.JOB, run.job), here, EdgeKind.RUNS)]
    for data in run.inputs:
        found += [*_versioned(data, kinds, "inputs"), Edge(_node(data, kinds, "inputs"), here, EdgeKind.READS)]
    for data in run.outputs if run.state is RunState.SUCCEEDED else ():
        found.append(Edge(here, _whole(data.name, kinds, "outputs"), EdgeKind.WRITES))  # readers name no version
        found.append(Edge(here, _node(data, kinds, "outputs"), EdgeKind.WRITES))
    return EdgeChange(here, tuple(dict.fromkeys(found)), valid_from_us=run.end_time_us)


def _versioned(data: RunData, kinds: Mapping[str, NodeKind], field_name: str) -> Sequence[Edge]:
    if not data.version:
        return []
    whole = _whole(data.name, kinds, field_name)
    return [Edge(whole, _node(data, kinds, field_name), EdgeKind.CONTAINS)]


def _node(data: RunData, kinds: Mapping[str, NodeKind], field_name: str) -> Node:
    if data.version:
        return nodes.outside(NodeKind.SNAPSHOT, f"{data.name}#{data.version}")
    return _whole(data.name, kinds, field_name)


def _whole(name: str, kinds: Mapping[str, NodeKind], field_name: str) -> Node:
    return Node(kinds[name], name) if name in kinds else nodes.parse_outside(name, field_name)


def _check_data(name: str, data: Sequence[RunData]) -> None:
    if len(data) > DATA_COUNT_MAX:
        message = f"{name} of a run has {len(data)} entries; at most {DATA_COUNT_MAX} are allowed"
        raise InvalidArgument(message, reason="TOO_MANY", field=name)
    for index, one in enumerate(data):
        if not one.name or len(one.name) + len(one.version) > NAME_LENGTH_MAX - TEXT_LENGTH_MAX:
            message = f"{name}[{index}] of a run has no name, or one that is too long"
            raise InvalidArgument(message, reason="INVALID_NAME", field=f"{name}[{index}].name")
