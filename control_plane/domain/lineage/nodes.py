"""Texts of nodes: what can be made of something has one that no other node has."""

from typing import Final

from headrace.errors import InvalidArgument
from headrace.lineage.values import Node, NodeKind
from headrace.names import VersionRef

_PREFIXES: Final = {
    NodeKind.DATASET: "dataset:",
    NodeKind.SNAPSHOT: "snapshot:",
    NodeKind.JOB: "job:",
    NodeKind.RUN: "run:",
    NodeKind.TRAINING_SET: "training_set:",
}


def source(name: str) -> Node:
    """A source."""
    return Node(NodeKind.SOURCE, name)


def column(source_name: str, name: str) -> Node:
    """A column of a source, or a key that its events carry."""
    return Node(NodeKind.SOURCE_COLUMN, f"{source_name}:{name}")


def entity(name: str) -> Node:
    """An entity."""
    return Node(NodeKind.ENTITY, name)


def feature(view: VersionRef, name: str) -> Node:
    """A feature of a view version, stored or on demand."""
    return Node(NodeKind.FEATURE, f"{view}:{name}")


def outside(kind: NodeKind, name: str) -> Node:
    """A node that is no definition: a dataset, a snapshot, a job, a run or a training set."""
    return Node(kind, _PREFIXES[kind] + name)


def owning_name(node: Node) -> str:
    """Name of the definition that a node is or belongs to; empty for what no definition makes."""
    return "" if node.kind in _PREFIXES else node.name.partition(":")[0].partition("@")[0]


def parse_outside(text: str, field: str) -> Node:
    """Node of a text such as `dataset:s3://lake/flights`; raises InvalidArgument where its kind is unknown."""
    for kind, prefix in _PREFIXES.items():
        if text.startswith(prefix) and len(text) > len(prefix):
            return Node(kind, text)
    known = ", ".join(_PREFIXES.values())
    raise InvalidArgument(
        f"{text[:100]!r} names no definition, and begins with none of {known}",
        reason="UNKNOWN_NODE",
        field=field,
    )
