"""Edges that definitions declare: which columns and features each of them reads, by its compiled expressions."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from control_plane.domain.lineage import nodes
from control_plane.domain.lineage.edges import Declaration, Edge
from headrace.definitions.lookups import KNOWN_TIME
from headrace.definitions.on_demand import OnDemandView, RequestSource
from headrace.definitions.registered import (
    Registered,
    RegisteredEntity,
    RegisteredModel,
    RegisteredOnDemandView,
    RegisteredService,
    RegisteredSource,
    RegisteredView,
    RegistryState,
    State,
)
from headrace.definitions.sources import LAKE_SCHEME, Source
from headrace.definitions.transforms import Derived, Latest, Transform, Window
from headrace.definitions.views import Feature, FeatureView
from headrace.expressions import expression_identity
from headrace.lineage.values import EdgeKind, Node, NodeKind
from headrace.names import VersionRef, parse_pinned_ref

_WORD: Final = re.compile(r"\w+")


def node_of(record: Registered) -> Node:
    """The node of a registered version, or of a source or entity."""
    kinds: dict[type[Registered], NodeKind] = {
        RegisteredSource: NodeKind.SOURCE,
        RegisteredEntity: NodeKind.ENTITY,
        RegisteredView: NodeKind.FEATURE_VIEW,
        RegisteredOnDemandView: NodeKind.ON_DEMAND_VIEW,
        RegisteredService: NodeKind.FEATURE_SERVICE,
        RegisteredModel: NodeKind.MODEL,
    }
    return Node(kinds[type(record)], str(record.ref))


def declared_changes(records: Sequence[Registered], before: RegistryState, after: RegistryState) -> list[Declaration]:
    """What records say from now on, and the sources that read views which come with them."""
    said: dict[VersionRef, Registered] = {record.ref: record for record in records}
    new = {ref for ref in said if after.view(ref) is not None and before.view(ref) is None}
    if new:
        said |= {one.ref: one for one in after.sources.values() if not new.isdisjoint(_lake_refs(one.definition))}
    return [Declaration(node_of(record), declared_edges(record, after)) for record in said.values()]


def declared_edges(record: Registered, state: RegistryState) -> list[Edge]:
    """Edges of one record, each once; none of a retired version."""
    if getattr(record, "state", State.ACTIVE) is State.RETIRED:
        return []
    match record:
        case RegisteredSource():
            found = _source_edges(record.definition, state)
        case RegisteredView():
            found = _ViewEdges(record, state).edges()
        case RegisteredOnDemandView():
            found = _on_demand_edges(record, state)
        case RegisteredService():
            found = _service_edges(record, state)
        case RegisteredModel():
            service = Node(NodeKind.FEATURE_SERVICE, str(record.definition.service))
            found = iter([Edge(service, node_of(record), EdgeKind.PINS)])
        case _:
            found = iter([])
    return list(dict.fromkeys(found))


def _source_edges(source: Source, state: RegistryState) -> Iterator[Edge]:
    here = nodes.source(source.name)
    for place in _places(source):
        if place.startswith(LAKE_SCHEME):
            yield from _lake_edges(_lake_ref(place), source.query, here, state)
        else:
            yield Edge(nodes.outside(NodeKind.DATASET, place), here, EdgeKind.READS, source.query.strip())
    for column in source.columns:
        yield Edge(here, nodes.column(source.name, column.name), EdgeKind.CONTAINS)


def _places(source: Source) -> Sequence[str]:
    return [source.uri] if source.uri else list(source.inputs.values())


def _lake_ref(place: str) -> VersionRef:
    return parse_pinned_ref(place.removeprefix(LAKE_SCHEME))


def _lake_refs(source: Source) -> set[VersionRef]:
    return {_lake_ref(place) for place in _places(source) if place.startswith(LAKE_SCHEME)}


def _lake_edges(ref: VersionRef, query: str, here: Node, state: RegistryState) -> Iterator[Edge]:
    """The view and its features that a SELECT can read: it has to name a column, or to take all by a star."""
    yield Edge(Node(NodeKind.FEATURE_VIEW, str(ref)), here, EdgeKind.READS, query.strip())
    record = state.view(ref)
    words = {word.lower() for word in _WORD.findall(query)}
    for feature in record.definition.features if record else ():
        if "*" in query or feature.name in words:
            yield Edge(nodes.feature(ref, feature.name), here, EdgeKind.VALUE, query.strip())


class _ViewEdges:
    """The edges of one view: a column that it adds to its events stands for what that column is made of."""

    def __init__(self, record: RegisteredView, state: RegistryState) -> None:
        self._here = node_of(record)
        self._ref = record.ref
        self._view: FeatureView = record.definition
        self._state = state
        self._added = self._added_columns()

    def edges(self) -> Iterator[Edge]:
        """In the order of the definition."""
        view, source = self._view, nodes.source(self._view.source)
        yield Edge(source, self._here, EdgeKind.READS)
        yield Edge(nodes.entity(view.entity), self._here, EdgeKind.KEY)
        registered = self._state.sources[view.source].definition
        for key in self._state.entities[view.entity].definition.join_keys:
            column = nodes.column(view.source, key.name)
            yield Edge(source, column, EdgeKind.CONTAINS)  # a key comes with each event, listed as a column or not
            yield Edge(column, self._here, EdgeKind.KEY)
        yield Edge(nodes.column(view.source, registered.event_time_column), self._here, EdgeKind.TIME)
        if view.filter:
            identity = expression_identity(view.filter)
            yield from self._reads(identity.columns, self._here, EdgeKind.FILTER, identity.canonical)
        for feature in view.features:
            here = nodes.feature(self._ref, feature.name)
            yield Edge(self._here, here, EdgeKind.CONTAINS)
            yield from self._feature(feature, here)

    def _feature(self, feature: Feature, here: Node) -> Iterator[Edge]:
        text, columns = _computation(feature.transform)
        if isinstance(feature.transform, Derived):
            for name in columns:
                yield Edge(nodes.feature(self._ref, name), here, EdgeKind.VALUE, text)
        else:
            yield from self._reads(columns, here, EdgeKind.VALUE, text)

    def _reads(self, columns: Sequence[str], here: Node, kind: EdgeKind, text: str) -> Iterator[Edge]:
        for column in columns:
            for above, is_key in self._origins(column):
                yield Edge(above, here, EdgeKind.KEY if is_key else kind, text)

    def _origins(self, column: str) -> list[tuple[Node, bool]]:
        return self._added.get(column, [(nodes.column(self._view.source, column), False)])

    def _added_columns(self) -> dict[str, list[tuple[Node, bool]]]:
        """What each column that lookups and functions add is made of; `True` for what only chose the row."""
        self._added = {}
        for number, entry in enumerate(self._view.lookups, start=1):
            keys = [
                (above, True)
                for column in dict(sorted(entry.join_key_mapping.items())).values()
                for above, _ in self._origins(column)
            ]
            looked = Node(NodeKind.FEATURE_VIEW, entry.feature_view)
            self._added[KNOWN_TIME.format(number)] = [(looked, False), *keys]
            for name in entry.features:
                self._added[entry.output_prefix + name] = [(nodes.feature(entry.view, name), False), *keys]
        for one in self._view.functions:
            origins = [origin for column in one.columns for origin in self._origins(column)]
            self._added[one.name] = list(dict.fromkeys(origins))
        return self._added


def _computation(transform: Transform) -> tuple[str, list[str]]:
    """Text of a transform for people, and the columns or features that it reads."""
    if isinstance(transform, Latest):
        return f"latest({transform.column})", [transform.column]
    if isinstance(transform, Derived):
        identity = expression_identity(transform.expression)
        return identity.canonical, list(identity.columns)
    identities = [expression_identity(text) for text in (transform.expression, transform.denominator) if text]
    return _window_text(transform), list(dict.fromkeys(name for one in identities for name in one.columns))


def _window_text(window: Window) -> str:
    parts = [expression_identity(text).canonical for text in (window.expression, window.denominator) if text]
    kind = "window" if window.session_gap is None else "session"
    return f"{kind} {window.aggregate}({', '.join(parts)}) over {window.over}"


def _on_demand_edges(record: RegisteredOnDemandView, state: RegistryState) -> Iterator[Edge]:
    view, here = record.definition, node_of(record)
    columns = _on_demand_columns(view, state)
    for feature in view.features:
        made = nodes.feature(record.ref, feature.name)
        yield Edge(here, made, EdgeKind.CONTAINS)
        text, names = _computation(feature.transform)
        for name in names:
            if name in columns:  # else data of the request, which nothing of ours makes
                yield Edge(columns[name], made, EdgeKind.VALUE, text)


def _on_demand_columns(view: OnDemandView, state: RegistryState) -> dict[str, Node]:
    found = {}
    for entry in view.sources:
        if isinstance(entry, RequestSource):
            continue
        for name in entry.features or _features_of(entry.view, state):
            found[entry.output_prefix + name] = nodes.feature(entry.view, name)
    return found


def _service_edges(record: RegisteredService, state: RegistryState) -> Iterator[Edge]:
    here = node_of(record)
    for entry in record.definition.entries:
        yield Edge(_view_node(entry.view, state), here, EdgeKind.READS)
        for name in entry.features or _features_of(entry.view, state):
            yield Edge(nodes.feature(entry.view, name), here, EdgeKind.SERVES)


def _view_node(ref: VersionRef, state: RegistryState) -> Node:
    record = state.view(ref) or state.on_demand_view(ref)
    assert record is not None, "entries are pinned to registered versions"
    return node_of(record)


def _features_of(ref: VersionRef, state: RegistryState) -> list[str]:
    record = state.view(ref) or state.on_demand_view(ref)
    assert record is not None, "entries are pinned to registered versions"
    return [feature.name for feature in record.definition.features]
