"""Feature services as jobs join them: stored features looked up, on-demand ones computed from them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from batch.jobs.on_demand import HIDDEN_PREFIX, WantedOnDemand, on_demand_from_document, wanted_program
from batch.jobs.views import Definitions, WantedView, view_document, view_from_document, wanted_view
from headrace.definitions.changes import DefinitionKind
from headrace.definitions.entities import Entity
from headrace.definitions.on_demand_plans import AnyView, OnDemandPlan, OnDemandPlans
from headrace.definitions.registered import (
    RegisteredEntity,
    RegisteredOnDemandView,
    RegisteredService,
    RegisteredView,
)
from headrace.definitions.services import ServiceEntry
from headrace.errors import NotFound
from headrace.names import VersionRef
from headrace.on_demand import From, Selection


@dataclass(frozen=True, slots=True)
class WantedService:
    """A feature service, every view pinned. Without on-demand features the result holds the columns of the views."""

    name: str
    views: tuple[WantedView, ...]
    on_demand: WantedOnDemand | None = None

    @property
    def outputs(self) -> list[str]:
        """Columns of the features in the result."""
        if self.on_demand is not None:
            return list(self.on_demand.outputs)
        return [column.output for view in self.views for column in view.columns]


def resolve_service(definitions: Definitions, name: str) -> WantedService:
    """The service's entries."""
    service = definitions.get(DefinitionKind.FEATURE_SERVICE, name)
    assert isinstance(service, RegisteredService), "the registry answers the kind that was asked for"
    return _Resolver(definitions).resolve(service)


def service_document(service: WantedService) -> dict[str, Any]:  # Any: JSON values
    """JSON form."""
    fields: dict[str, Any] = {"name": service.name, "views": [view_document(view) for view in service.views]}
    return fields if service.on_demand is None else fields | {"on_demand": service.on_demand.document()}


def service_from_document(fields: Mapping[str, Any]) -> WantedService:  # Any: JSON values
    """Service of its JSON form."""
    on_demand = on_demand_from_document(fields["on_demand"]) if "on_demand" in fields else None
    return WantedService(fields["name"], tuple(map(view_from_document, fields["views"])), on_demand)


class _Resolver:
    """Looks up each version once."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._records: dict[VersionRef, AnyView] = {}
        self._plans = OnDemandPlans(self._record, self._entity)

    def resolve(self, service: RegisteredService) -> WantedService:
        """The service with what its on-demand features read."""
        views: list[WantedView] = []
        computed: dict[str, int] = {}  # program by output
        outputs: list[str] = []
        selection = Selection(self._plan, self._keys)
        for entry in service.definition.entries:
            record = self._record(entry.view)
            outputs += [entry.output_prefix + name for name in entry.features]
            if isinstance(record, RegisteredView):
                views.append(wanted_view(self._definitions, record, entry))
                continue
            keys = [entry.request_column(key) for key in self._keys(entry.view)]
            for name in entry.features:
                computed[entry.output_prefix + name] = selection.add(entry.view, name, keys)[1]
        if not computed:
            return WantedService(str(service.ref), tuple(views))
        inputs = tuple(self._add_input(views, selection, place) for place in range(len(selection.features)))
        on_demand = self._on_demand(selection, inputs, computed, outputs)
        return WantedService(str(service.ref), tuple(views), on_demand)

    def _add_input(self, views: list[WantedView], selection: Selection, place: int) -> str:
        """Output of a stored feature; views that are joined anyhow are not joined twice."""
        ref, feature, keys = selection.features[place]
        for at, view in enumerate(views):
            if view.ref != str(ref) or tuple(column for _, column, _ in view.keys) != keys:
                continue
            for column in view.columns:
                if column.feature == feature:
                    return column.output
            added = self._input_view(selection, place).columns
            views[at] = replace(view, columns=(*view.columns, *added))
            return added[0].output
        views.append(self._input_view(selection, place))
        return views[-1].columns[0].output

    def _input_view(self, selection: Selection, place: int) -> WantedView:
        ref, feature, keys = selection.features[place]
        mapping = dict(zip(self._keys(ref), keys, strict=True))
        record = self._record(ref)
        assert isinstance(record, RegisteredView), "on-demand views are programs"
        view = wanted_view(self._definitions, record, ServiceEntry(str(ref), [feature], mapping))
        return replace(view, columns=(replace(view.columns[0], output=f"{HIDDEN_PREFIX}{place}"),))

    def _on_demand(
        self, selection: Selection, inputs: tuple[str, ...], computed: Mapping[str, int], outputs: list[str]
    ) -> WantedOnDemand:
        names: dict[int, list[str]] = {}
        for output, place in computed.items():
            names.setdefault(place, []).append(output)
        programs = []
        for place, one in enumerate(selection.programs):
            record = self._record(one.view)
            types = [self._type(selection, source) for source in one.sources]
            given = names.get(place, [""])
            programs.append(wanted_program(one, record.transform_digest, given[0], types))
        # One feature under two names is computed twice, at the end, so that each column has its program.
        again = [(place, output) for place, outputs_of in names.items() for output in outputs_of[1:]]
        programs += [replace(programs[place], output=output) for place, output in again]
        fields = tuple((name, str(kind)) for name, kind in selection.request_fields.items())
        return WantedOnDemand(inputs, fields, tuple(programs), tuple(outputs))

    def _type(self, selection: Selection, source: tuple[From, int]) -> str:
        where, place = source
        if where is From.REQUEST:
            return str(list(selection.request_fields.values())[place])
        if where is From.PROGRAM:
            return str(selection.programs[place].feature.type)
        ref, name, _ = selection.features[place]
        feature = self._record(ref).definition.feature(name)
        assert feature is not None, "plans were checked"
        return str(feature.type)

    def _record(self, ref: VersionRef) -> AnyView:
        if ref not in self._records:
            try:
                record = self._definitions.get(DefinitionKind.FEATURE_VIEW, str(ref))
            except NotFound:
                record = self._definitions.get(DefinitionKind.ON_DEMAND_VIEW, str(ref))
            assert isinstance(record, RegisteredView | RegisteredOnDemandView), "the kinds that were asked for"
            self._records[ref] = record
        return self._records[ref]

    def _entity(self, name: str) -> Entity:
        entity = self._definitions.get(DefinitionKind.ENTITY, name)
        assert isinstance(entity, RegisteredEntity), "the registry answers the kind that was asked for"
        return entity.definition

    def _plan(self, ref: VersionRef) -> OnDemandPlan | None:
        record = self._record(ref)
        return self._plans.plan_of(record) if isinstance(record, RegisteredOnDemandView) else None

    def _keys(self, ref: VersionRef) -> list[str]:
        record = self._record(ref)
        if isinstance(record, RegisteredOnDemandView):
            return list(self._plans.plan_of(record).keys)
        return [key.name for key in self._entity(record.definition.entity).join_keys]
