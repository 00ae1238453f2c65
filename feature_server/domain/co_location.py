"""Co-location: which views of one entity are always read together, and their rows packed into one row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from core_ext.arrow import ArrowColumn, arrow_column
from core_ext.request_core import Plan
from core_ext.row_codec import Schema, encode_rows
from core_ext.row_columns import DecodedRows, decode_rows
from feature_server.domain.computed_layouts import schema_column
from feature_server.domain.layouts import EntityLayout, ViewLayout
from feature_server.domain.selected import SelectedColumn
from feature_server.domain.selection import Prepared, prepare
from headrace.types import Scalar

# What a row has in its header, kept for each view: event, write and available time, offset, partition, source.
ORDER_TYPES: Final = (*[(int(Scalar.I64), 0, 0)] * 4, *[(int(Scalar.I32), 0, 0)] * 2)
PACKED_HANDLE: Final = b"packed".ljust(32, b"\0")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Plain views of an entity that every service reads all or none of."""

    entity: EntityLayout
    key_columns: tuple[str, ...]
    views: tuple[ViewLayout, ...]
    columns: tuple[SelectedColumn, ...]
    services: tuple[str, ...]
    """Active services that read them, the asked one first."""


@dataclass(frozen=True, slots=True)
class Apart:
    """A view that stays in a row of its own, and why."""

    view: str
    why: str


@dataclass(frozen=True, slots=True)
class Grouping:
    """What a service reads, for itself or to compute on demand, as rows."""

    candidates: tuple[Candidate, ...]
    apart: tuple[Apart, ...]


def grouping(service: str, services: Mapping[str, Prepared]) -> Grouping:
    """Candidates of a service among all active ones, which say what is read together."""
    by_key: dict[tuple[str, tuple[str, ...]], dict[str, ViewLayout]] = {}
    for column in services[service].stored:
        by_key.setdefault((column.view.entity.name, column.key_columns), {})[column.view.ref] = column.view
    readers = _readers(services)
    candidates: list[Candidate] = []
    apart: list[Apart] = []
    for (_, key_columns), views in by_key.items():
        classes: dict[frozenset[str], list[ViewLayout]] = {}
        for view in views.values():
            if view.computed is not None:
                apart.append(Apart(view.ref, "its row holds window tiles, which are merged at every write"))
            else:
                classes.setdefault(readers[view.ref], []).append(view)
        for names, members in classes.items():
            if len(members) == 1:
                apart.append(Apart(members[0].ref, _why_alone(members[0], views, names)))
            else:
                candidates.append(_candidate(service, services, tuple(members), key_columns, names))
    return Grouping(tuple(candidates), tuple(apart))


def _readers(services: Mapping[str, Prepared]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for name, prepared in services.items():
        for column in prepared.stored:
            found.setdefault(column.view.ref, set()).add(name)
    return {ref: frozenset(names) for ref, names in found.items()}


def _why_alone(view: ViewLayout, views: Mapping[str, ViewLayout], names: frozenset[str]) -> str:
    if len(views) == 1:
        return f"the service reads no other view of {view.entity.name}"
    return f"no other plain view of {view.entity.name} is read by exactly {', '.join(sorted(names))}"


def _candidate(
    service: str,
    services: Mapping[str, Prepared],
    views: tuple[ViewLayout, ...],
    key_columns: tuple[str, ...],
    names: frozenset[str],
) -> Candidate:
    refs = {view.ref for view in views}
    columns = services[service].stored
    kept = tuple(one for one in columns if one.view.ref in refs and one.key_columns == key_columns)
    return Candidate(views[0].entity, key_columns, views, kept, (service, *sorted(names - {service})))


def plan_apart(candidate: Candidate) -> Plan:
    """The read of the candidate's columns as rows lie today."""
    return prepare("", candidate.columns, 0, {}).plan


def packed_schema(candidate: Candidate) -> Schema:
    """Columns of all views, then the order fields of each."""
    types = [schema_column(one) for view in candidate.views for one in view.value_types]
    return Schema(1, [*types, *ORDER_TYPES * len(candidate.views)])


def plan_packed(candidate: Candidate, view_id: int) -> Plan:
    """The same read of one packed row, under a view id that nothing has.

    Its one status is that of the whole row: settling each view by its own times is not part of it.
    """
    starts = np.cumsum([0, *(len(view.value_types) for view in candidate.views)]).tolist()
    start_of = {view.ref: start for view, start in zip(candidate.views, starts, strict=False)}
    outputs = [(one.name, 0, start_of[one.view.ref] + one.place, one.default) for one in candidate.columns]
    places = {name: at for at, name in enumerate(candidate.key_columns)}
    join_keys = [
        (name, int(scalar)) for name, scalar in zip(candidate.key_columns, candidate.entity.key_scalars, strict=True)
    ]
    lookup = (candidate.entity.entity_id, [places[name] for name in candidate.key_columns])
    schema = packed_schema(candidate)
    return Plan(PACKED_HANDLE, 0, join_keys, [lookup], [(0, view_id, schema, 0, 0, 1, None)], outputs)


def pack(candidate: Candidate, rows: Sequence[Sequence[bytes]]) -> list[bytes]:
    """One row per entity out of one row per entity and view; `rows` come view by view."""
    decoded = [_decoded(view, stored) for view, stored in zip(candidate.views, rows, strict=True)]
    columns = [column for one in decoded for column in one.columns] + [part for one in decoded for part in _order(one)]
    event_times = np.max([one.event_times_us for one in decoded], axis=0)
    batch = encode_rows(packed_schema(candidate), columns, event_times)
    return batch.stamp(np.arange(len(event_times)), int(event_times.max()), None, 0, 0, 0)


def _decoded(view: ViewLayout, rows: Sequence[bytes]) -> DecodedRows:
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    return decode_rows(view.stored_schema, b"".join(rows), starts, ends)


def _order(decoded: DecodedRows) -> list[ArrowColumn]:
    wide = (decoded.event_times_us, decoded.write_times_us, decoded.available_times_us, decoded.offsets)
    narrow = (decoded.partitions, decoded.source_ids.view(np.int32))
    return [arrow_column(pa.array(one)) for one in (*wide, *narrow)]
