"""The mirror read on bit by bit equals one that is built of the whole log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from sqlalchemy import Engine

from control_plane.domain.lineage.edges import Edge, EdgeChange
from control_plane.domain.lineage.mirror import NOW_US, Mirror, Moment
from control_plane.domain.lineage.storage import EdgeRows
from control_plane.store import lineage_store
from control_plane.store.engine import FILE_NAME, open_sqlite, writing
from control_plane.store.lineage_log import append
from control_plane.store.lineage_store import SqlLineageStore, SqlTail
from control_plane.store.migrate import migrate
from headrace.lineage.values import EdgeKind, Node, NodeKind

NODES = [Node(NodeKind.DATASET, f"dataset:{name}") for name in "abcdef"]
ORIGINS = [Node(NodeKind.RUN, f"run:{number}") for number in range(2)]
EDGES = st.builds(Edge, st.sampled_from(NODES), st.sampled_from(NODES), st.sampled_from(EdgeKind))


@cache
def empty_database() -> bytes:
    with TemporaryDirectory() as folder:
        engine = open_sqlite(Path(folder))
        migrate(engine)
        engine.dispose()
        return (Path(folder) / FILE_NAME).read_bytes()


@contextmanager
def new_database() -> Iterator[tuple[Engine, SqlLineageStore]]:
    with TemporaryDirectory() as folder:
        (Path(folder) / FILE_NAME).write_bytes(empty_database())
        engine = open_sqlite(Path(folder))
        yield engine, SqlLineageStore(engine)
        engine.dispose()


@settings(max_examples=30)
@given(st.data())
def test_reading_on_equals_reading_all(data: st.DataObject) -> None:
    with new_database() as (engine, store):
        mirror = Mirror(store)
        held: dict[Node, dict[Edge, None]] = {origin: {} for origin in ORIGINS}
        seen: list[tuple[int, set[tuple[str, str]]]] = []
        for time_us in range(1, data.draw(st.integers(1, 6)) + 1):
            origin = data.draw(st.sampled_from(ORIGINS))
            wanted = dict.fromkeys(data.draw(st.lists(EDGES, max_size=6)))
            begun = [edge for edge in wanted if edge not in held[origin]]
            ended = [edge for edge in held[origin] if edge not in wanted]
            held[origin] = wanted
            with writing(engine) as connection:
                append(connection, [EdgeChange(origin, begun, ended)], time_us)
            if data.draw(st.booleans()):
                mirror.refresh()
            names = {(edge.source.name, edge.target.name) for edges in held.values() for edge in edges}
            seen.append((time_us, names))
        mirror.refresh()
        whole = Mirror(store)
        whole.refresh()
        assert mirror.graph.measured()[:2] == whole.graph.measured()[:2]
        assert edges_of(whole, Moment(NOW_US, whole.newest_known_us)) == seen[-1][1]
        for time_us, names in seen:
            for moment in (Moment(time_us, NOW_US), Moment(NOW_US, time_us), Moment(time_us, time_us)):
                assert edges_of(mirror, moment) == edges_of(whole, moment)
            assert edges_of(mirror, Moment(time_us, NOW_US)) == names


def edges_of(mirror: Mirror, moment: Moment) -> set[tuple[str, str]]:
    nodes = np.arange(mirror.graph.node_count, dtype=np.uint32)
    positions, ends, edges = mirror.adjacent(nodes, moment, upstream=False)
    assert len(mirror.edge_kinds(edges)) == len(edges)
    names = [mirror.node(number).name for number in range(len(nodes))]
    return {(names[source], names[target]) for source, target in zip(positions, ends, strict=True)}


class WatchedStore(SqlLineageStore):
    """Tells between the blocks of a tail, and after them, what a reader sees."""

    def __init__(self, engine: Engine, seen: Callable[[], None]) -> None:
        super().__init__(engine)
        self._seen = seen

    @contextmanager
    def tail(self, node_count: int, edge_count: int) -> Iterator[SqlTail]:
        """As of the store."""
        with super().tail(node_count, edge_count) as tail:
            yield SqlTail(tail.nodes, self._told(tail.edges))

    def _told(self, blocks: Iterator[EdgeRows]) -> Iterator[EdgeRows]:
        for block in blocks:
            self._seen()
            yield block
        self._seen()


def test_a_reader_never_sees_half_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage_store, "BLOCK_ROWS", 1)
    seen: list[int] = []
    with new_database() as (engine, _):
        mirror = Mirror(WatchedStore(engine, lambda: seen.append(mirror.newest_known_us)))
        first, second, third = (Edge(NODES[at], NODES[at + 1], EdgeKind.READS) for at in range(3))
        with writing(engine) as connection:
            append(connection, [EdgeChange(ORIGINS[0], [first])], 1)
        mirror.refresh()
        assert mirror.newest_known_us == 1
        seen.clear()
        with writing(engine) as connection:
            append(connection, [EdgeChange(ORIGINS[0], [second, third], [first])], 2)
        mirror.refresh()
        assert seen == [1, 1, 1, 1], "three blocks are one change, seen when all of it is there"
        assert mirror.newest_known_us == 2


def test_a_node_has_one_number_and_one_text() -> None:
    with new_database() as (engine, store):
        edge = Edge(NODES[0], NODES[1], EdgeKind.READS)
        for time_us in (5, 5, 5):
            with writing(engine) as connection:
                append(connection, [EdgeChange(ORIGINS[0], [edge])], time_us)
        mirror = Mirror(store)
        mirror.refresh()
        assert (mirror.graph.node_count, mirror.graph.edge_count) == (3, 3)
        assert mirror.newest_known_us == 7, "each change is known at a time of its own"
        assert [mirror.node(number) for number in range(3)] == [ORIGINS[0], NODES[0], NODES[1]]
        assert mirror.number("dataset:b") == 2
        assert mirror.number("dataset:z") is None
        details = store.details([0, 2])
        assert {number: one.origin for number, one in details.items()} == {0: ORIGINS[0], 2: ORIGINS[0]}
