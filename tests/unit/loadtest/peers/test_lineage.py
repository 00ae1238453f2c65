"""The comparison of lineage: every figure is reported, and peers reach the very same nodes or break it."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from core_ext.lineage import FOREVER_US
from core_ext.twin.lineage import Edge, Twin
from loadtest.peers import lineage
from loadtest.peers.lineage_graph import NOW_US, Edges, generate
from loadtest.peers.result import Figure, Missing

TINY = lineage.Scale("tiny", 60, 300, 10, 5, 2, 20, 1)


class Slow:
    """A peer that walks the twin; `lost` nodes are not told."""

    name = "twin"

    def __init__(self, edges: Edges, lost: int = 0) -> None:
        pairs = zip(*(ends.tolist() for ends in edges.now()), strict=True)
        self._twin = Twin([Edge(source, target, 0) for source, target in pairs])
        self._lost = lost

    def seconds(self, nodes: Sequence[int]) -> list[float]:
        return [30.0 for _ in nodes]

    def reached(self, node: int) -> NDArray[np.uint32]:
        found = self._twin.closure([node], upstream=False, valid_us=0, known_us=0)[0]
        return np.sort(np.array(found, np.uint32))[self._lost :]

    def stop(self) -> None:
        raise AssertionError("whoever made it stops it")


def test_the_graph_is_the_same_again_with_heavy_tails_and_ended_edges() -> None:
    edges, again = generate(2_000, 20_000), generate(2_000, 20_000)
    assert np.array_equal(edges.sources, again.sources)
    degrees = np.bincount(edges.now()[0], minlength=edges.node_count)
    assert degrees.max() > 50 * degrees.mean()
    assert len(edges.now()[0]) == np.sum(edges.known_to_us == FOREVER_US) - np.sum(edges.valid_to_us != FOREVER_US)
    ended = edges.valid_to_us != FOREVER_US
    assert 0 < ended.sum() < 0.1 * len(ended)
    assert (edges.valid_from_us[ended] < edges.valid_to_us[ended]).all()
    assert degrees[edges.widest(3)].tolist() == sorted(degrees.tolist())[:-4:-1]


def test_now_is_what_the_graph_sees_now() -> None:
    edges = generate(50, 400)
    nodes = np.arange(50, dtype=np.uint32)
    positions, ends, _ = edges.graph().adjacent(nodes, upstream=False, valid_us=NOW_US, known_us=NOW_US)
    seen = sorted(zip(positions.tolist(), ends.tolist(), strict=True))
    assert seen == sorted(zip(*(part.tolist() for part in edges.now()), strict=True))


def test_a_peer_that_reaches_the_same_gives_a_ratio() -> None:
    edges = generate(TINY.nodes, TINY.edges)
    found = lineage.compare(TINY, edges, Slow(edges), "closure_vs_rustworkx", lambda _: None)
    assert not found.broken
    assert found.ok
    assert found.peer == "twin"


def test_a_peer_that_reaches_others_breaks_the_figure() -> None:
    edges = generate(TINY.nodes, TINY.edges)
    found = lineage.compare(TINY, edges, Slow(edges, lost=2), "closure_vs_rustworkx", lambda _: None)
    assert found.broken
    assert "differ" in found.note


def test_every_figure_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "Rustworkx", lambda edges, folder: Stoppable(edges))
    monkeypatch.setattr(lineage, "has_postgres", lambda: False)
    report = lineage.run(TINY)
    figures = {one.id: one for one in report.figures}
    assert list(figures)[: len(lineage.AIMS)] == list(lineage.AIMS)
    assert isinstance(figures["closure_vs_rustworkx"], Figure)
    missing = figures["closure_vs_postgres_cte"]
    assert isinstance(missing, Missing) and "not installed" in missing.note
    assert {"append_us", "bytes_per_edge"} <= figures.keys()


class Stoppable(Slow):
    """One that may be stopped."""

    def stop(self) -> None:
        pass


def test_without_peers_their_figures_are_not_required() -> None:
    found = {one.id: one.ok for one in lineage.completed([], lineage.HUGE)}
    assert [name for name, ok in found.items() if ok] == ["closure_vs_rustworkx", "closure_vs_postgres_cte"]
