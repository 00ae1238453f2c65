"""On-demand features of one selection, taken apart: what servers and jobs gather, ask for and compute alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from headrace.definitions.on_demand import REQUEST_FIELD_COUNT_MAX
from headrace.definitions.on_demand_plans import OnDemandPlan
from headrace.definitions.views import Feature
from headrace.errors import InvalidArgument
from headrace.expressions import CompiledExpression
from headrace.names import VersionRef
from headrace.types import ValueType


class From(IntEnum):
    """Where a program reads from; the numbers are those of core_ext.on_demand."""

    FEATURE = 1
    REQUEST = 2
    PROGRAM = 3


class StoredFeature(NamedTuple):
    """A feature of a view that is stored; `keys` are the request columns of its join keys, in their order."""

    view: VersionRef
    feature: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OnDemandProgram:
    """One on-demand feature: its expression, and per column of it where that comes from."""

    view: VersionRef
    feature: Feature
    fallback: int
    expression: CompiledExpression
    sources: tuple[tuple[From, int], ...]


@dataclass
class Selection:
    """Grows feature by feature; each feature, field and program stands once, programs after those that they read.

    `plan_of` gives the plan of an on-demand view, None for a view that is stored; `keys_of` the join keys of either.
    """

    plan_of: Callable[[VersionRef], OnDemandPlan | None]
    keys_of: Callable[[VersionRef], Sequence[str]]
    features: list[StoredFeature] = field(default_factory=list)
    request_fields: dict[str, ValueType] = field(default_factory=dict)
    programs: list[OnDemandProgram] = field(default_factory=list)
    _places: dict[StoredFeature, tuple[From, int]] = field(default_factory=dict)

    def add(self, view: VersionRef, feature: str, keys: Sequence[str]) -> tuple[From, int]:
        """Place of a feature that is read by the request columns `keys` of its join keys.

        Raises InvalidArgument where a request field would have two types, or there would be too many.
        """
        wanted = StoredFeature(view, feature, tuple(keys))
        if wanted not in self._places:
            plan = self.plan_of(view)
            if plan is None:
                self.features.append(wanted)
                self._places[wanted] = (From.FEATURE, len(self.features) - 1)
            else:
                self._places[wanted] = self._add_program(plan, wanted)
        return self._places[wanted]

    def _add_program(self, plan: OnDemandPlan, wanted: StoredFeature) -> tuple[From, int]:
        keys, expression = dict(zip(plan.keys, wanted.keys, strict=True)), plan.features[wanted.feature]
        found = plan.view.feature(wanted.feature)
        assert found is not None, "plans compile every feature of their view"
        sources = tuple(self._source(plan, name, keys) for name in expression.columns)
        self.programs.append(OnDemandProgram(wanted.view, found, int(plan.view.fallback), expression, sources))
        return From.PROGRAM, len(self.programs) - 1

    def _source(self, plan: OnDemandPlan, name: str, keys: Mapping[str, str]) -> tuple[From, int]:
        column = plan.columns[name]
        if column.entry is None:
            return From.REQUEST, self._field(column.name, column.type)
        entry = column.entry
        below = [keys[entry.request_column(key)] for key in self.keys_of(entry.view)]
        return self.add(entry.view, column.name, below)

    def _field(self, name: str, kind: ValueType) -> int:
        known = self.request_fields.setdefault(name, kind)
        if known != kind:
            raise InvalidArgument(
                f"request field {name!r} is {known} for one view and {kind} for another: read them in two requests",
                reason="REQUEST_FIELD_CONFLICT",
                field="features",
                metadata={"request_field": name},
            )
        if len(self.request_fields) > REQUEST_FIELD_COUNT_MAX:
            raise InvalidArgument(
                f"the selection reads more than {REQUEST_FIELD_COUNT_MAX} request fields: split it",
                reason="TOO_MANY_REQUEST_FIELDS",
                field="features",
            )
        return list(self.request_fields).index(name)
