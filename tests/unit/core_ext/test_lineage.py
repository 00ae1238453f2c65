"""Lineage graph against its twin: bitemporal edges, walks both ways, growth, refusals, threads."""

import threading
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from core_ext.lineage import FOREVER_US, HOPS_MAX, NONE, LineageGraph
from core_ext.twin import lineage as twin
from core_ext.twin.lineage import Edge, Twin

TIMES = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 2**63 - 2])
ENDS = st.one_of(TIMES, st.just(FOREVER_US))
LIMIT_S = 60.0


def u32(values: Any) -> NDArray[np.uint32]:
    return np.array(values, np.uint32)


def extend(graph: LineageGraph, edges: list[Edge]) -> int:
    def column(name: str) -> NDArray[np.int64]:
        return np.array([getattr(edge, name) for edge in edges], np.int64)

    times = ("valid_from_us", "valid_to_us", "known_from_us", "known_to_us")
    sources, targets = u32([edge.source for edge in edges]), u32([edge.target for edge in edges])
    return graph.extend(sources, targets, *map(column, times))


@st.composite
def edge_lists(draw: st.DrawFn, node_count: int) -> list[Edge]:
    nodes = st.integers(0, node_count - 1)
    few = st.sampled_from([0, node_count - 1])  # so that blocks of a few nodes grow often
    ends = st.one_of(nodes, few)
    return draw(st.lists(st.builds(Edge, ends, ends, TIMES, ENDS, TIMES, ENDS), max_size=30))


@given(st.integers(1, 9), st.data())
def test_walks_equal_their_twin(node_count: int, data: st.DataObject) -> None:
    graph, oracle = LineageGraph(), Twin()
    graph.add_nodes(node_count)
    for _ in range(data.draw(st.integers(1, 5))):
        batch = data.draw(edge_lists(node_count))
        assert extend(graph, batch) == len(oracle.edges)
        oracle.edges += batch
        for edge in data.draw(st.lists(st.integers(0, 200), max_size=3)):
            replace_both(graph, oracle, edge, data.draw(ENDS), data.draw(TIMES))
    assert graph.edge_count == len(oracle.edges)
    upstream, starts = data.draw(st.booleans()), data.draw(st.lists(st.integers(0, node_count - 1), max_size=4))
    asked: dict[str, Any] = {"upstream": upstream, "valid_us": data.draw(ENDS), "known_us": data.draw(ENDS)}
    hops_max = data.draw(st.sampled_from([0, 1, 2, HOPS_MAX]))
    found = graph.closure(u32(starts), hops_max=hops_max, **asked)
    assert [part.tolist() for part in found] == list(oracle.closure(starts, hops_max=hops_max, **asked))
    near = graph.adjacent(u32(starts), **asked)
    assert [part.tolist() for part in near] == list(oracle.adjacent(starts, **asked))


def replace_both(graph: LineageGraph, oracle: Twin, edge: int, valid_to_us: int, known_us: int) -> None:
    if edge >= len(oracle.edges):
        return
    held = oracle.edges[edge]
    if held.known_to_us != FOREVER_US:
        with pytest.raises(ValueError, match="replaced before"):
            graph.replace(held.source, held.target, edge, valid_to_us, known_us)
        return
    assert graph.replace(held.source, held.target, edge, valid_to_us, known_us) == len(oracle.edges)
    oracle.replace(edge, valid_to_us, known_us)


def test_the_twin_has_the_same_constants() -> None:
    assert (twin.NONE, twin.FOREVER_US) == (NONE, FOREVER_US)


def test_a_correction_leaves_what_was_believed_before() -> None:
    graph = LineageGraph()
    graph.add_nodes(2)
    extend(graph, [Edge(0, 1, 10, known_from_us=10)])
    assert graph.replace(0, 1, 0, 20, 30) == 1

    def reached(valid_us: int, known_us: int) -> int:
        return len(graph.closure(u32([0]), upstream=False, valid_us=valid_us, known_us=known_us)[0]) - 1

    assert reached(25, 29) == 1, "until 30 nobody knew that it had ended at 20"
    assert reached(25, 30) == 0
    assert reached(19, 30) == 1
    assert reached(9, 30) == 0
    assert reached(15, 9) == 0


def test_a_cycle_is_walked_once() -> None:
    graph = LineageGraph()
    graph.add_nodes(3)
    extend(graph, [Edge(0, 1, 0), Edge(1, 2, 0), Edge(2, 0, 0), Edge(1, 1, 0)])
    nodes, parents, edges, ends = graph.closure(u32([1]), upstream=False, valid_us=1, known_us=1)
    assert (nodes.tolist(), parents.tolist(), edges.tolist()) == ([1, 2, 0], [NONE, 0, 1], [NONE, 1, 2])
    assert ends.tolist() == [1, 2, 3]


@pytest.mark.parametrize("batch", [1, 7, 4_000])
def test_bytes_of_an_edge_stay_bounded_however_edges_come(batch: int) -> None:
    rng = np.random.default_rng(5)
    node_count, edge_count = 400, 4_000
    graph, oracle = LineageGraph(), Twin()
    graph.add_nodes(node_count)
    edges = [
        Edge(int(source), int(target), 0)
        for source, target in zip(
            rng.zipf(1.5, edge_count) % node_count, rng.integers(0, node_count, edge_count), strict=True
        )
    ]
    for start in range(0, edge_count, batch):
        extend(graph, edges[start : start + batch])
    oracle.edges = edges
    exact = 24 * edge_count + 24 * node_count + 4_000  # spans and the lock
    assert graph.memory_bytes <= (exact if batch == edge_count else 3 * exact)
    assert graph.span_count == 1
    asked: dict[str, Any] = {"upstream": True, "valid_us": 0, "known_us": 0}
    assert graph.closure(u32([3]), **asked)[0].tolist() == oracle.closure([3], **asked)[0]


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    graph = LineageGraph()
    assert graph.add_nodes(0) == 0
    assert graph.add_nodes(2) == 0
    assert graph.add_nodes(1) == 2
    with pytest.raises(ValueError, match="not in the graph"):
        extend(graph, [Edge(0, 1, 0), Edge(0, 3, 0)])
    assert graph.edge_count == 0
    with pytest.raises(ValueError, match="not in the graph"):
        graph.replace(0, 1, 0, 0, 0)
    with pytest.raises(ValueError, match="not in the graph"):
        graph.closure(u32([3]), upstream=False, valid_us=0, known_us=0)
    with pytest.raises(ValueError, match="not in the graph"):
        graph.adjacent(u32([3]), upstream=False, valid_us=0, known_us=0)
    times = np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="known_to_us holds 1 values"):
        graph.extend(u32([0, 1]), u32([1, 2]), times, times, times, times[:1])
    with pytest.raises(OverflowError):
        graph.add_nodes(2**32 - 1)
    assert extend(graph, []) == 0
    assert graph.measured()[:3] == (3, 0, 0)


def test_walks_and_writes_of_many_threads_agree_with_the_whole() -> None:
    graph, chain = LineageGraph(), 3_000
    graph.add_nodes(chain)
    lengths: list[int] = []
    done = threading.Event()

    def walk() -> None:
        while True:
            is_last = done.is_set()
            nodes, _, _, ends = graph.closure(u32([0]), upstream=False, valid_us=0, known_us=0)
            assert nodes.tolist() == list(range(len(nodes)))
            assert len(ends) == len(nodes)
            lengths.append(len(nodes))
            if is_last:
                return

    walkers = [threading.Thread(target=walk) for _ in range(3)]
    for walker in walkers:
        walker.start()
    for node in range(chain - 1):
        extend(graph, [Edge(node, node + 1, 0)])
    done.set()
    for walker in walkers:
        walker.join(LIMIT_S)
    assert not any(walker.is_alive() for walker in walkers)
    assert max(lengths) == chain
    assert sorted(lengths)[-3:] == [chain] * 3, "the last walk of each thread saw every edge"


def test_no_edge_holds_at_the_end_of_time() -> None:
    graph = LineageGraph()
    graph.add_nodes(2)
    extend(graph, [Edge(0, 1, 0)])
    for valid_us, known_us, count in ((FOREVER_US - 1, FOREVER_US - 1, 2), (FOREVER_US, 0, 1), (0, FOREVER_US, 1)):
        found = graph.closure(u32([0]), upstream=False, valid_us=valid_us, known_us=known_us)
        assert len(found[0]) == count
