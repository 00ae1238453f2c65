"""What changed above a node between two times: edges, schemas, code, data, owners and limits, the nearest first."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.lineage.impact import PATH_STEPS_MAX
from control_plane.domain.lineage.mirror import Closure, Mirror, Moment
from control_plane.domain.lineage.nodes import owning_name
from control_plane.domain.lineage.storage import EdgeDetail, LineageStore
from control_plane.domain.lineage.times import time_us
from control_plane.domain.storage import Revision
from headrace.lineage.values import EdgeKind, Node, NodeKind, PathStep, Run, UpstreamChange, UpstreamKind

_OUTSIDE: Final = frozenset({NodeKind.RUN, NodeKind.SNAPSHOT, NodeKind.TRAINING_SET})
_SENTENCES: Final = (
    ("owner changes", UpstreamKind.OWNER),
    ("freshness limit changes", UpstreamKind.SLA),
    ("type of column", UpstreamKind.SCHEMA),
    ("kind changes", UpstreamKind.DEFINITION),
    ("uri changes", UpstreamKind.DEFINITION),
    ("query changes", UpstreamKind.DEFINITION),
    ("inputs changes", UpstreamKind.DEFINITION),
    ("event time column changes", UpstreamKind.DEFINITION),
    ("availability delay changes", UpstreamKind.DEFINITION),
    ("retired", UpstreamKind.DEFINITION),
)  # of the changes of a plan; those of columns that come or go are edges, and text changes nothing


@dataclass(frozen=True, slots=True)
class _Side:
    """All above the node at one time."""

    closure: Closure
    positions: Mapping[int, int]  # of a node, by its number
    ends: Mapping[int, tuple[int, int]]  # source and target of an edge, by its number

    def hop_count(self, position: int) -> int:
        """Hops from the node asked about."""
        return int(np.searchsorted(self.closure.ends, position, side="right"))


@dataclass(frozen=True, slots=True)
class Found:
    """A change without its path, which leads to a position and, for an edge, to the node above that."""

    kind: UpstreamKind
    node: Node
    hop_count: int
    time_us: int
    text: str
    side: _Side
    position: int
    last: PathStep | None = None


class Upstream:
    """Compares what is above a node at two times, by what is known now."""

    def __init__(self, mirror: Mirror, store: LineageStore, owner: Callable[[Node], str]) -> None:
        self._mirror = mirror
        self._store = store
        self._owner = owner

    def changes(self, number: int, before: Moment, after: Moment, revisions: Iterable[Revision]) -> list[Found]:
        """In the order of hops, then the newest first."""
        old, new = self._side(number, before), self._side(number, after)
        found = [*self._edges(old, new), *self._code(old, new), *self._definitions(old, new, revisions)]
        return sorted(found, key=lambda one: (one.hop_count, -one.time_us, one.kind, one.node, one.text))

    def page(self, found: Sequence[Found], first: int, size: int) -> list[UpstreamChange]:
        """Changes from one on with their paths: at most so many, fewer where the paths are long."""
        taken: list[UpstreamChange] = []
        steps = 0
        for one in found[first : first + size]:
            steps += one.hop_count
            if taken and steps > PATH_STEPS_MAX:
                break
            path = self._path(one)
            taken.append(
                UpstreamChange(one.kind, one.node, one.hop_count, one.time_us, one.text, self._owner(one.node), path)
            )
        return taken

    def _side(self, number: int, moment: Moment) -> _Side:
        closure = self._mirror.closure([number], moment, upstream=True)
        positions, sources, edges = self._mirror.adjacent(closure.nodes, moment, upstream=True)
        targets: NDArray[np.uint32] = closure.nodes[positions]
        ends = dict(zip(edges.tolist(), zip(sources.tolist(), targets.tolist(), strict=True), strict=True))
        return _Side(closure, {node: at for at, node in enumerate(closure.nodes.tolist())}, ends)

    def _edges(self, old: _Side, new: _Side) -> Iterator[Found]:
        begun, ended = self._only(new, old), self._only(old, new)
        details = self._store.details(sorted(begun | ended))
        for side, edges, is_begun in ((new, begun, True), (old, ended, False)):
            for edge in sorted(edges):
                yield self._edge(side, edge, details[edge], is_begun)

    def _only(self, side: _Side, other: _Side) -> set[int]:
        """Edges of one side that the other lacks; several definitions may say the same edge, each by a number."""
        stands = {(*ends, self._mirror.edge_kind(edge)) for edge, ends in other.ends.items()}
        edges = side.ends.keys() - other.ends.keys()
        return {edge for edge in edges if (*side.ends[edge], self._mirror.edge_kind(edge)) not in stands}

    def _edge(self, side: _Side, edge: int, detail: EdgeDetail, is_begun: bool) -> Found:
        above, below = (self._mirror.node(number) for number in side.ends[edge])
        kind = self._mirror.edge_kind(edge)
        text = _edge_text(above, below, kind, is_begun)
        target = side.positions[side.ends[edge][1]]
        at_us = detail.valid_from_us if is_begun else detail.valid_to_us
        last = PathStep(above, kind, detail.transform)
        change = _edge_change(above, below, kind)
        return Found(change, above, side.hop_count(target) + 1, at_us, text, side, target, last)

    def _code(self, old: _Side, new: _Side) -> Iterator[Found]:
        """Jobs whose newest run above the node is of other code than the one before."""
        sides = [self._newest_runs(side) for side in (old, new)]
        for job, run in sides[1].items():
            before = sides[0].get(job)
            if before is None or before.run_id == run.run_id:
                continue
            pairs = (("git sha", before.git_sha, run.git_sha), ("kernel", before.kernel_version, run.kernel_version))
            node = Node(NodeKind.RUN, f"run:{run.run_id}")
            number = self._mirror.number(node.name)
            assert number is not None, "its run is above the node"
            position = new.positions[number]
            hop_count = new.hop_count(position)
            for what, first, second in pairs:
                if first != second:
                    text = f"{what} of job {job} changes from {first or 'none'} to {second or 'none'}"
                    yield Found(UpstreamKind.CODE, node, hop_count, run.end_time_us, text, new, position)

    def _newest_runs(self, side: _Side) -> dict[str, Run]:
        kinds = self._mirror.node_kinds(side.closure.nodes)
        names = [self._mirror.node(number).name for number in side.closure.nodes[kinds == NodeKind.RUN].tolist()]
        newest: dict[str, Run] = {}
        for run in sorted(self._store.runs(names).values(), key=lambda run: (run.end_time_us, run.run_id)):
            newest[run.job] = run
        return newest

    def _definitions(self, old: _Side, new: _Side, revisions: Iterable[Revision]) -> Iterator[Found]:
        nearest = self._nearest(old) | self._nearest(new)
        for revision in revisions:
            for change in revision.changes:
                if change.name not in nearest:
                    continue
                side, position = nearest[change.name]
                node, hop_count = self._node(side, position), side.hop_count(position)
                at_us = time_us(revision.time)
                for detail in change.details:
                    kind = _sentence_kind(detail)
                    if kind is not None:
                        text = f"{change.name}: {detail}, by {revision.principal}"
                        yield Found(kind, node, hop_count, at_us, text, side, position)

    def _nearest(self, side: _Side) -> dict[str, tuple[_Side, int]]:
        """The first node of each definition."""
        found: dict[str, tuple[_Side, int]] = {}
        for position in range(len(side.closure.nodes)):
            name = owning_name(self._node(side, position))
            if name:
                found.setdefault(name, (side, position))
        return found

    def _path(self, found: Found) -> tuple[PathStep, ...]:
        """Steps from the node asked about up to a change."""
        side = found.side
        positions = side.closure.path(found.position)
        edges = [int(side.closure.edges[at]) for at in positions[1:]]
        steps = [PathStep(self._node(side, positions[0]))]
        steps += [
            PathStep(self._node(side, at), self._mirror.edge_kind(edge))
            for at, edge in zip(positions[1:], edges, strict=True)
        ]
        return tuple(steps) if found.last is None else (*steps, found.last)

    def _node(self, side: _Side, position: int) -> Node:
        return self._mirror.node(int(side.closure.nodes[position]))


def _edge_change(above: Node, below: Node, kind: EdgeKind) -> UpstreamKind:
    if kind is EdgeKind.CONTAINS and below.kind is NodeKind.SOURCE_COLUMN:
        return UpstreamKind.SCHEMA
    return UpstreamKind.DATA if {above.kind, below.kind} & _OUTSIDE else UpstreamKind.EDGE


def _edge_text(above: Node, below: Node, kind: EdgeKind, is_begun: bool) -> str:
    verbs: Mapping[EdgeKind, Sequence[str]] = {
        EdgeKind.CONTAINS: ("is a part of", "is no longer a part of"),
        EdgeKind.WRITES: ("was written by", "is no longer written by"),
        EdgeKind.RUNS: ("ran as", "no longer runs as"),
    }
    verb = verbs.get(kind, ("reads", "no longer reads"))[0 if is_begun else 1]
    if kind is EdgeKind.RUNS:
        return f"{above.name} {verb} {below.name}"
    return f"{below.name} {verb} {above.name}"


def _sentence_kind(detail: str) -> UpstreamKind | None:
    return next((kind for start, kind in _SENTENCES if detail.startswith(start)), None)
