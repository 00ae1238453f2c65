"""Lineage survives its messages."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headrace.convert import lineage as convert
from headrace.errors import InvalidArgument
from headrace.lineage.values import (
    EdgeKind,
    Effect,
    Impacted,
    Node,
    NodeChange,
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

TEXTS = st.text(st.characters(categories=["L", "N", "P"]), max_size=12)
TIMES = st.integers(0, 4_000_000_000_000_000)
NODES = st.builds(Node, st.sampled_from(NodeKind), TEXTS.filter(bool))
STEPS = st.builds(PathStep, NODES, st.none() | st.sampled_from(EdgeKind), TEXTS)
PATHS = st.lists(STEPS, max_size=4).map(tuple)
DATA = st.lists(st.builds(RunData, TEXTS, TEXTS), max_size=3).map(tuple)


@given(st.builds(Impacted, NODES, st.integers(1, 99), TEXTS, st.sampled_from(Effect), PATHS))
def test_impacted(impacted: Impacted) -> None:
    assert convert.impacted_from_pb(convert.impacted_to_pb(impacted)) == impacted


@given(st.builds(UpstreamChange, st.sampled_from(UpstreamKind), NODES, st.integers(0, 99), TIMES, TEXTS, TEXTS, PATHS))
def test_upstream_change(change: UpstreamChange) -> None:
    assert convert.change_from_pb(convert.change_to_pb(change)) == change


@given(st.builds(Requirement, NODES, st.integers(1, 99), TEXTS, st.booleans(), TEXTS, TEXTS))
def test_requirement(requirement: Requirement) -> None:
    assert convert.requirement_from_pb(convert.requirement_to_pb(requirement)) == requirement


@given(st.builds(Total, st.integers(1, 99), st.sampled_from(NodeKind), st.integers(0, 2**40)))
def test_total(total: Total) -> None:
    assert convert.total_from_pb(convert.total_to_pb(total)) == total


@given(
    st.builds(
        Run,
        TEXTS,
        TEXTS,
        st.sampled_from(RunState),
        TIMES,
        TIMES,
        DATA,
        DATA,
        TEXTS,
        TEXTS,
        st.dictionaries(TEXTS, TEXTS, max_size=2),
    )
)
def test_run(run: Run) -> None:
    again = convert.run_from_pb(convert.run_to_pb(run))
    assert again == run
    assert again.digest == run.digest


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        convert.run_from_pb(pb.Run(run_id="x"))
    assert caught.value.field == "run.state"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (NodeKind, pb.NodeKind),
        (EdgeKind, pb.EdgeKind),
        (NodeChange, pb.NodeChange),
        (Effect, pb.Effect),
        (RunState, pb.RunState),
        (UpstreamKind, pb.UpstreamKind),
    ],
)
def test_numbers_are_those_of_the_contract(ours: type, theirs: object) -> None:
    prefix = {
        "NodeKind": "NODE_KIND_",
        "EdgeKind": "EDGE_KIND_",
        "NodeChange": "NODE_CHANGE_",
        "Effect": "EFFECT_",
        "RunState": "RUN_STATE_",
        "UpstreamKind": "UPSTREAM_KIND_",
    }[ours.__name__]
    named = {one.name: int(one) for one in ours if int(one)}  # type: ignore[attr-defined]
    assert named == {
        name.removeprefix(prefix): number
        for name, number in theirs.items()  # type: ignore[attr-defined]
        if number
    }
