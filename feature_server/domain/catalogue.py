"""The registry as reads and writes use it: names to layouts, services to compiled plans."""

import difflib
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from core_ext.request_core import RequestCore
from feature_server.domain.layouts import EntityLayout, ViewLayout, entity_layout, on_demand_layouts, view_layouts
from feature_server.domain.selected import AnyColumn, AnyLayout, select_column
from feature_server.domain.selection import Prepared, prepare
from feature_server.domain.selector import Selector
from headrace.definitions.registered import RegisteredService, RegistryState, State
from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument, NotFound
from headrace.names import parse_feature_ref, parse_version_ref
from headrace.serving.logging import EventLog

LISTS_MAX: Final = 1_024  # prepared lists of features that are kept; each holds a plan of up to 2,000 columns
_NEAR_NAMES: Final = 3
_NEAR_POOL_MAX: Final = 10_000  # names that a near match is sought among, so that a typing error stays cheap


_Layout = TypeVar("_Layout", bound=AnyLayout)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """One state of the registry, compiled."""

    state: RegistryState = field(default_factory=RegistryState)
    views: Mapping[str, ViewLayout] = field(default_factory=dict)
    selectable: Mapping[str, AnyLayout] = field(default_factory=dict)
    by_id: Mapping[int, ViewLayout] = field(default_factory=dict)
    services: Mapping[str, Prepared] = field(default_factory=dict)


class Catalogue:
    """Owns the compiled registry; readers see one state or the next, never a mixture."""

    def __init__(self, core: RequestCore, log: EventLog, function_modules: Collection[str] = ()) -> None:
        self._function_modules = function_modules
        self._core = core
        self._log = log
        self._snapshot = _Snapshot()
        self._lock = threading.Lock()  # of the prepared lists
        self._lists: OrderedDict[tuple[str, ...], Prepared] = OrderedDict()
        self._handles: dict[bytes, Prepared] = {}
        self._former: dict[bytes, Prepared] = {}
        self._read_before: Counter[str] = Counter()

    @property
    def revision(self) -> int:
        """Revision of the registry that is served."""
        return self._snapshot.state.revision

    @property
    def highest_id(self) -> int:
        """Highest internal id of that registry."""
        return self._snapshot.state.highest_id

    def rows_read(self) -> Counter[str]:
        """Rows that were answered by service, under its name with the version."""
        read = {prepared.feature_service: prepared.plan.row_count for prepared in self._snapshot.services.values()}
        return self._read_before + Counter(read)

    @property
    def layouts(self) -> tuple[RegistryState, Mapping[str, ViewLayout]]:
        """The registry that is served, and the layout of every view version in it."""
        snapshot = self._snapshot
        return snapshot.state, snapshot.views

    def publish(self, state: RegistryState) -> None:
        """Compiles a registry and serves it from now on."""
        views = view_layouts(state, self._function_modules)
        selectable: dict[str, AnyLayout] = {**views, **on_demand_layouts(state)}
        services: dict[str, Prepared] = {}
        for versions in state.services.values():
            for record in versions:
                if record.state is State.ACTIVE:
                    self._add_service(services, record, selectable, state.revision)
        by_id = {view.view_id: view for view in views.values()}
        former = {prepared.handle: prepared for prepared in self._snapshot.services.values()}
        plans = {prepared.handle: prepared.plan for prepared in services.values()}
        self._read_before = self.rows_read()
        self._snapshot = _Snapshot(state, views, selectable, by_id, services)
        self._core.publish(
            list(plans.values()), {name: prepared.plan for name, prepared in services.items()}, state.revision
        )
        with self._lock:
            self._former = {**former, **self._handles}
            self._lists.clear()  # a list without versions may now mean newer ones
            self._handles.clear()

    def view(self, name: str) -> ViewLayout:
        """View of "name@v3", or of "name" the newest version that is not retired.

        Raises NotFound, or FailedPrecondition where it cannot be computed here.
        """
        snapshot = self._snapshot
        record = snapshot.state.view(parse_version_ref(name, "feature_view"))
        if record is None:
            raise _unknown("feature view", "UNKNOWN_FEATURE_VIEW", "feature_view", name, snapshot.views)
        return _served(snapshot.views[str(record.ref)], "feature_view")

    def pinned_view(self, ref: str) -> ViewLayout:
        """The view version of "name@v3". Raises NotFound, or FailedPrecondition where it cannot be computed here."""
        views = self._snapshot.views
        if ref not in views:
            raise _unknown("feature view", "UNKNOWN_FEATURE_VIEW", "feature_view", ref, views)
        return _served(views[ref], "feature_view")

    def view_of_id(self, view_id: int) -> ViewLayout | None:
        """View version of an internal id."""
        return self._snapshot.by_id.get(view_id)

    @property
    def retired_ids(self) -> frozenset[int]:
        """Internal ids of the view versions that are retired: no read is answered from their rows."""
        return frozenset(view_id for view_id, view in self._snapshot.by_id.items() if not view.is_active)

    def entity(self, name: str) -> EntityLayout:
        """Entity of a name. Raises NotFound."""
        entities = self._snapshot.state.entities
        if name not in entities:
            raise _unknown("entity", "UNKNOWN_ENTITY", "entity", name, entities)
        return entity_layout(entities[name])

    def views_of_entity(self, name: str) -> list[ViewLayout]:
        """Every view version of an entity, retired ones included."""
        return [view for view in self._snapshot.views.values() if view.entity.name == name]

    def service(self, name: str) -> Prepared:
        """Compiled service of "name@v2", or of "name" the newest version that is not retired.

        Raises NotFound, or FailedPrecondition for a retired version.
        """
        snapshot = self._snapshot
        prepared = snapshot.services.get(name)
        if prepared is not None:
            return prepared
        record = snapshot.state.service(parse_version_ref(name, "feature_service"))
        if record is None:
            raise _unknown("feature service", "UNKNOWN_FEATURE_SERVICE", "feature_service", name, snapshot.services)
        if record.state is State.ACTIVE:
            columns = list(_service_columns(record, snapshot.selectable))
            prepare(str(record.ref), columns, snapshot.state.revision, snapshot.selectable)
        raise FailedPrecondition(
            f"feature service {name!r} is retired: read a version that is served",
            reason="FEATURE_SERVICE_RETIRED",
            field="feature_service",
            metadata={"feature_service": name},
        )

    def features(self, references: Sequence[str]) -> Prepared:
        """Compiled list of "view@v3:feature"; the newest view version where none is given. Raises NotFound."""
        key = tuple(references)
        with self._lock:
            kept = self._lists.get(key)
            if kept is not None:
                self._lists.move_to_end(key)
                return kept
        prepared = self._prepare_list(references)
        with self._lock:
            self._lists[key] = prepared
            self._handles[prepared.handle] = prepared
            if len(self._lists) > LISTS_MAX:
                _, dropped = self._lists.popitem(last=False)
                self._handles.pop(dropped.handle, None)
        return prepared

    def selector(self) -> Selector:
        """The registry of now, to explain features by."""
        snapshot = self._snapshot
        return Selector(snapshot.state, snapshot.selectable, lambda text: self._list_column(snapshot, text, "feature"))

    def handle(self, handle: bytes) -> Prepared:
        """Prepared list of a handle; services are known to the core itself. Raises FailedPrecondition."""
        with self._lock:
            prepared = self._handles.get(handle)
        if prepared is None:
            raise FailedPrecondition(
                f"handle {handle.hex()} is not known here, or its selection changed: call PrepareFeatureSet again",
                reason="UNKNOWN_HANDLE",
                field="handle",
                metadata={"handle": handle.hex()},
            )
        return prepared

    def answered(self, handle: bytes) -> Prepared | None:
        """Selection of a read that was answered a moment ago, of the registry of now or the one before it.

        A handle is the digest of all that decides an answer but the rows, so that either is the same.
        """
        for prepared in self._snapshot.services.values():
            if prepared.handle == handle:
                return prepared
        with self._lock:
            return self._handles.get(handle) or self._former.get(handle)

    def _add_service(
        self,
        services: dict[str, Prepared],
        record: RegisteredService,
        views: Mapping[str, AnyLayout],
        revision: int,
    ) -> None:
        try:
            prepared = prepare(str(record.ref), list(_service_columns(record, views)), revision, views)
        except HeadraceError as error:
            # One service that cannot be compiled must not keep the others from being served.
            self._log.error("feature_service_not_served", feature_service=str(record.ref), detail=error.message)
            return
        services[str(record.ref)] = prepared
        services[record.ref.name] = prepared  # versions come in ascending order: the newest stays

    def _prepare_list(self, references: Sequence[str]) -> Prepared:
        snapshot = self._snapshot
        columns = [self._list_column(snapshot, text, f"features[{index}]") for index, text in enumerate(references)]
        if not columns:
            raise InvalidArgument("name a feature service or features", reason="NO_SELECTION", field="features")
        return prepare("", columns, snapshot.state.revision, snapshot.selectable)

    def _list_column(self, snapshot: _Snapshot, text: str, field_path: str) -> AnyColumn:
        reference = parse_feature_ref(text, field_path)
        name = f"{reference.view}@v{reference.version}" if reference.version else reference.view
        ref = parse_version_ref(name, field_path)
        record = snapshot.state.view(ref) or snapshot.state.on_demand_view(ref)
        if record is None:
            raise _unknown("feature view", "UNKNOWN_FEATURE_VIEW", field_path, name, snapshot.selectable)
        view = _served(snapshot.selectable[str(record.ref)], field_path)
        if not view.is_active:
            raise FailedPrecondition(
                f"{view.ref!r} is retired: read a version that is served",
                reason="FEATURE_VIEW_RETIRED",
                field=field_path,
                metadata={"feature_view": view.ref},
            )
        if reference.feature not in view.columns:
            raise _unknown(f"feature of {view.ref!r}", "UNKNOWN_FEATURE", field_path, reference.feature, view.columns)
        return select_column(text, view, reference.feature, view.key_names)


def _service_columns(record: RegisteredService, views: Mapping[str, AnyLayout]) -> Iterable[AnyColumn]:
    for entry in record.definition.entries:
        view = _served(views[entry.feature_view], "feature_service")
        keys = tuple(entry.request_column(key) for key in view.key_names)
        for feature in entry.features:
            yield select_column(entry.output_prefix + feature, view, feature, keys)


def _served(view: _Layout, field_path: str) -> _Layout:
    """The view, where this installation computes it."""
    if view.refusal is None:
        return view
    raise FailedPrecondition(
        f"{view.ref!r} is not served: {view.refusal.message}",
        reason=view.refusal.reason,
        field=field_path,
        metadata={"feature_view": view.ref},
    )


def _unknown(what: str, reason: str, field_path: str, name: str, known: Iterable[str]) -> NotFound:
    pool = [candidate for _, candidate in zip(range(_NEAR_POOL_MAX), known, strict=False)]
    near = difflib.get_close_matches(name, pool, n=_NEAR_NAMES)
    advice = (
        f"; did you mean {', '.join(map(repr, near))}?" if near else "; list what is registered with `headrace list`"
    )
    return NotFound(
        f"unknown {what} {name!r}{advice}",
        reason=reason,
        field=field_path,
        metadata={"name": name, "near": ",".join(near)},
    )
