"""Appends to the lineage log, inside the transaction of whoever changes something."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, func, insert, select, update

from control_plane.domain.lineage.edges import Declaration, Edge, EdgeChange, edge_change
from control_plane.store.tables import lineage_edges, lineage_head, lineage_nodes
from headrace.errors import DataLoss
from headrace.lineage.values import EdgeKind, Node, NodeKind

Value = TypeVar("Value")
CHUNK: Final = 500  # parameters of one statement; SQLite takes some thousands at least


def lock_head(connection: Connection) -> int:
    """Makes this transaction the one writer of the log; returns the registry revision that it holds."""
    return int(connection.execute(select(lineage_head.c.declared_revision).with_for_update()).scalar_one())


def declare(connection: Connection, declarations: Sequence[Declaration], revision: int, now_us: int) -> int:
    """Appends what a revision of the registry changes against what the log holds; returns the number of rows."""
    lock_head(connection)
    ids = node_ids(connection, [one.origin for one in declarations])
    changes = [
        edge_change(one.origin, list(open_edges(connection, ids[one.origin])), one.edges) for one in declarations
    ]
    count = append(connection, [change for change in changes if change is not None], now_us)
    connection.execute(update(lineage_head).values(declared_revision=revision))
    return count


def append(connection: Connection, changes: Sequence[EdgeChange], now_us: int) -> int:
    """Appends changes that are known from now on; the head is locked. Returns the number of rows."""
    if not changes:
        return 0
    edges = [edge for change in changes for edge in (*change.begun, *change.ended)]
    ids = node_ids(connection, dict.fromkeys([
        *(change.origin for change in changes), *(node for edge in edges for node in (edge.source, edge.target))
    ]))  # fmt: skip
    newest = select(lineage_edges.c.edge_id, lineage_edges.c.known_us).order_by(lineage_edges.c.edge_id.desc()).limit(1)
    last = connection.execute(newest).one_or_none()
    number = 0 if last is None else last.edge_id + 1
    known_us = now_us if last is None else max(now_us, last.known_us + 1)  # so that one moment is one state of the log
    rows = list(_rows(connection, changes, ids, known_us))
    for count, row in enumerate(rows):
        row["edge_id"] = number + count
    if rows:
        connection.execute(insert(lineage_edges), rows)
    return len(rows)


def open_edges(connection: Connection, origin_id: int) -> dict[Edge, int]:
    """Edges that an origin says still hold, with their numbers."""
    later = lineage_edges.alias("later")
    source, target = lineage_nodes.alias("source"), lineage_nodes.alias("target")
    replaced = select(later.c.replaces_id).where(later.c.replaces_id == lineage_edges.c.edge_id).exists()
    query = (
        select(
            lineage_edges.c.edge_id,
            lineage_edges.c.kind,
            lineage_edges.c.transform,
            source.c.kind.label("source_kind"),
            source.c.name.label("source_name"),
            target.c.kind.label("target_kind"),
            target.c.name.label("target_name"),
        )
        .join(source, source.c.node_id == lineage_edges.c.source_id)
        .join(target, target.c.node_id == lineage_edges.c.target_id)
        .where(lineage_edges.c.origin_id == origin_id, lineage_edges.c.valid_to_us.is_(None), ~replaced)
    )
    return {
        Edge(
            Node(NodeKind(row.source_kind), row.source_name),
            Node(NodeKind(row.target_kind), row.target_name),
            EdgeKind(row.kind),
            row.transform,
        ): row.edge_id
        for row in connection.execute(query)
    }


def node_ids(connection: Connection, nodes: Iterable[Node]) -> dict[Node, int]:
    """Numbers of nodes; those that are new get the next ones."""
    wanted = list(nodes)
    known: dict[str, int] = {}
    for part in chunks([node.name for node in wanted]):
        query = select(lineage_nodes.c.name, lineage_nodes.c.node_id).where(lineage_nodes.c.name.in_(part))
        known |= {row.name: row.node_id for row in connection.execute(query)}
    following = connection.execute(select(func.coalesce(func.max(lineage_nodes.c.node_id), -1))).scalar_one() + 1
    new = [node for node in wanted if node.name not in known]
    rows = [{"node_id": following + at, "kind": int(node.kind), "name": node.name} for at, node in enumerate(new)]
    if rows:
        connection.execute(insert(lineage_nodes), rows)
    known |= {row["name"]: row["node_id"] for row in rows}
    return {node: known[node.name] for node in wanted}


def chunks(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """Parts that fit one statement."""
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


def _rows(
    connection: Connection, changes: Sequence[EdgeChange], ids: dict[Node, int], known_us: int
) -> Iterator[dict[str, Any]]:  # Any: column values of several types
    for change in changes:
        origin_id = ids[change.origin]
        held = open_edges(connection, origin_id) if change.ended else {}
        for edge in change.ended:
            if edge not in held:
                raise DataLoss(
                    f"the lineage log does not hold the edge from {edge.source.name} to {edge.target.name} that ends; "
                    "restore the registry database",
                    reason="LINEAGE_DAMAGED",
                )
            begun = select(lineage_edges.c.valid_from_us).where(lineage_edges.c.edge_id == held[edge])
            times = (connection.execute(begun).scalar_one(), known_us, held[edge])
            yield _row(edge, origin_id, ids, known_us, times)
        for edge in change.begun:
            valid_from_us = known_us if change.valid_from_us is None else change.valid_from_us
            yield _row(edge, origin_id, ids, known_us, (valid_from_us, None, None))


def _row(
    edge: Edge, origin_id: int, ids: dict[Node, int], known_us: int, times: tuple[int, int | None, int | None]
) -> dict[str, Any]:  # Any: column values of several types
    return {
        "source_id": ids[edge.source],
        "target_id": ids[edge.target],
        "kind": int(edge.kind),
        "origin_id": origin_id,
        "valid_from_us": times[0],
        "valid_to_us": times[1],
        "known_us": known_us,
        "replaces_id": times[2],
        "transform": edge.transform,
    }
