"""The durable lineage log over an engine."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, Engine, func, insert, select, update

from control_plane.domain.lineage.declared import declared_edges, node_of
from control_plane.domain.lineage.edges import EdgeChange, edge_change
from control_plane.domain.lineage.observed import run_node
from control_plane.domain.lineage.storage import NOT_REPLACED, EdgeDetail, EdgeRows
from control_plane.store.engine import reading, writing
from control_plane.store.lineage_log import append, chunks, lock_head, node_ids, open_edges
from control_plane.store.records import to_us
from control_plane.store.tables import lineage_edges, lineage_head, lineage_nodes, lineage_runs
from core_ext.lineage import FOREVER_US
from headrace.definitions.registered import RegistryState, all_records
from headrace.definitions.transform import canonical_json
from headrace.errors import AlreadyExists
from headrace.lineage.values import Node, NodeKind, Run, RunData, RunState

BLOCK_ROWS: Final = 131_072  # rows in memory as Python numbers at a time


@dataclass(frozen=True, slots=True)
class SqlTail:
    """The rest of the log, read as it is taken."""

    nodes: Iterator[Sequence[tuple[int, str]]]
    edges: Iterator[EdgeRows]


class SqlLineageStore:
    """Reads and appends the log. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def tail(self, node_count: int, edge_count: int) -> Iterator[SqlTail]:
        """What came after so many nodes and edges, of one moment."""
        nodes = select(lineage_nodes.c.kind, lineage_nodes.c.name).where(lineage_nodes.c.node_id >= node_count)
        edges = select(
            lineage_edges.c.source_id,
            lineage_edges.c.target_id,
            lineage_edges.c.kind,
            lineage_edges.c.valid_from_us,
            func.coalesce(lineage_edges.c.valid_to_us, FOREVER_US),
            lineage_edges.c.known_us,
            func.coalesce(lineage_edges.c.replaces_id, NOT_REPLACED),
        ).where(lineage_edges.c.edge_id >= edge_count)
        with reading(self._engine) as connection:
            yield SqlTail(
                _blocks(connection, nodes.order_by(lineage_nodes.c.node_id)),
                map(_edge_rows, _blocks(connection, edges.order_by(lineage_edges.c.edge_id))),
            )

    def details(self, edges: Sequence[int]) -> Mapping[int, EdgeDetail]:
        """Details of edges by number."""
        query = select(
            lineage_edges.c.edge_id,
            lineage_edges.c.transform,
            lineage_edges.c.valid_from_us,
            func.coalesce(lineage_edges.c.valid_to_us, FOREVER_US).label("valid_to_us"),
            lineage_nodes.c.kind,
            lineage_nodes.c.name,
        ).join(lineage_nodes, lineage_nodes.c.node_id == lineage_edges.c.origin_id)
        with reading(self._engine) as connection:
            return {
                row.edge_id: EdgeDetail(
                    Node(NodeKind(row.kind), row.name), row.transform, row.valid_from_us, row.valid_to_us
                )
                for part in chunks(edges)
                for row in connection.execute(query.where(lineage_edges.c.edge_id.in_(part)))
            }

    def catch_up(self, state: RegistryState, now_us: int) -> int:
        """Appends what a registry declares and the log does not say: it was written before there was a log."""
        with reading(self._engine) as connection:
            if int(connection.execute(select(lineage_head.c.declared_revision)).scalar_one()) >= state.revision:
                return 0
        with writing(self._engine) as connection:
            if lock_head(connection) >= state.revision:
                return 0
            records = all_records(state)
            ids = node_ids(connection, map(node_of, records))
            found = [
                edge_change(
                    node,
                    list(open_edges(connection, number)),
                    declared_edges(record, state),
                    to_us(record.stamp.create_time),
                )
                for record, (node, number) in zip(records, ids.items(), strict=True)
            ]
            count = append(connection, [change for change in found if change is not None], now_us)
            connection.execute(update(lineage_head).values(declared_revision=state.revision))
            return count

    def record_run(self, run: Run, change: EdgeChange, now_us: int) -> bool:
        """Keeps a run and its edges; False where it is known."""
        with writing(self._engine) as connection:
            lock_head(connection)
            number = node_ids(connection, [run_node(run)])[run_node(run)]
            known = connection.execute(
                select(lineage_runs.c.digest).where(lineage_runs.c.node_id == number)
            ).scalar_one_or_none()
            if known is not None:
                _require_same(run, known)
                return False
            connection.execute(insert(lineage_runs), {"node_id": number, **_run_row(run)})
            append(connection, [change], now_us)
            return True

    def runs(self, names: Sequence[str]) -> Mapping[str, Run]:
        """Runs by the texts of their nodes."""
        query = select(lineage_nodes.c.name, lineage_runs).join(
            lineage_runs, lineage_runs.c.node_id == lineage_nodes.c.node_id
        )
        with reading(self._engine) as connection:
            return {
                row["name"]: _run(row)
                for part in chunks(names)
                for row in connection.execute(query.where(lineage_nodes.c.name.in_(part))).mappings()
            }


def _blocks(connection: Connection, query: Any) -> Iterator[Sequence[Any]]:  # Any: a selection of any columns
    yield from connection.execute(query, execution_options={"yield_per": BLOCK_ROWS}).partitions()


def _edge_rows(rows: Sequence[Any]) -> EdgeRows:
    width = len(EdgeRows._fields)
    numbers = np.fromiter(chain.from_iterable(rows), np.int64, width * len(rows)).reshape(-1, width)
    kinds = (np.uint32, np.uint32, np.uint8, np.int64, np.int64, np.int64, np.int64)
    return EdgeRows(*(np.ascontiguousarray(numbers[:, at], kind) for at, kind in enumerate(kinds)))


def _run_row(run: Run) -> dict[str, Any]:  # Any: column values of several types
    detail = {name: asdict(run)[name] for name in ("inputs", "outputs", "digests")}
    return {
        "job": run.job,
        "state": int(run.state),
        "start_time_us": run.start_time_us,
        "end_time_us": run.end_time_us,
        "git_sha": run.git_sha,
        "kernel_version": run.kernel_version,
        "detail": canonical_json(detail),
        "digest": run.digest,
    }


def _run(row: Mapping[Any, Any]) -> Run:
    detail = json.loads(row["detail"])
    return Run(
        run_id=row["name"].partition(":")[2],
        job=row["job"],
        state=RunState(row["state"]),
        start_time_us=row["start_time_us"],
        end_time_us=row["end_time_us"],
        inputs=tuple(RunData(**data) for data in detail["inputs"]),
        outputs=tuple(RunData(**data) for data in detail["outputs"]),
        git_sha=row["git_sha"],
        kernel_version=row["kernel_version"],
        digests=detail["digests"],
    )


def _require_same(run: Run, digest: str) -> None:
    if digest != run.digest:
        raise AlreadyExists(
            f"run {run.run_id} is known with other data; give each run an id of its own",
            reason="RUN_EXISTS",
            field="run_id",
            metadata={"run_id": run.run_id},
        )
