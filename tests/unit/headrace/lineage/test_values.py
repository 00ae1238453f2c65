"""Nodes that can be, and runs that are told apart."""

from dataclasses import replace

import pytest

from headrace.errors import InvalidArgument
from headrace.lineage.values import NAME_LENGTH_MAX, Node, NodeKind, Run, RunState


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "a\u202eb", "x" * (NAME_LENGTH_MAX + 1)])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Node(NodeKind.DATASET, name)
    assert caught.value.reason == "INVALID_NAME"


def test_kinds_have_words() -> None:
    assert NodeKind.ON_DEMAND_VIEW.label == "on-demand view"
    assert NodeKind.SOURCE_COLUMN.label == "source column"


def test_every_part_of_a_run_is_in_its_digest() -> None:
    run = Run("id", "job", RunState.SUCCEEDED, 1, 2)
    others = [
        replace(run, job="other"),
        replace(run, state=RunState.FAILED),
        replace(run, end_time_us=3),
        replace(run, git_sha="x"),
        replace(run, digests={"a": "b"}),
    ]
    assert len({one.digest for one in [run, *others]}) == len(others) + 1
    assert replace(run).digest == run.digest
