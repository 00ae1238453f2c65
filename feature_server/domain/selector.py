"""One state of the registry, to take a feature apart by: its column, what its expression reads, a plan of them all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from feature_server.domain.layouts import OnDemandLayout
from feature_server.domain.selected import AnyColumn, AnyLayout, SelectedColumn, select_column
from feature_server.domain.selection import Prepared, prepare
from headrace.definitions.registered import RegistryState
from headrace.definitions.transforms import Derived
from headrace.expressions import compile_expression
from headrace.types import ValueType


@dataclass(frozen=True, slots=True)
class Selector:
    """`find` gives the column of "view@v3:feature", or raises why there is none."""

    state: RegistryState
    layouts: Mapping[str, AnyLayout]
    find: Callable[[str], AnyColumn]

    def inputs(self, column: AnyColumn) -> list[AnyColumn]:
        """Features that the expression of a column reads, none for other transforms."""
        if isinstance(column, SelectedColumn):
            return [select_column(name, column.view, name, column.key_columns) for name in _derived_from(column)]
        plan = column.view.plan
        assert plan is not None, "a view without a plan is refused when it is found"
        keys = dict(zip(column.view.key_names, column.key_columns, strict=True))
        found = []
        for name in plan.features[column.feature].columns:
            source = plan.columns[name]
            if source.entry is not None:
                layout = self.layouts[str(source.entry.view)]
                below = tuple(keys[source.entry.request_column(key)] for key in layout.key_names)
                found.append(select_column(name, layout, source.name, below))
        return found

    def request_fields(self, column: AnyColumn) -> dict[str, ValueType]:
        """Fields of the request that the expression of a column reads itself."""
        if not isinstance(column.view, OnDemandLayout) or column.view.plan is None:
            return {}
        plan = column.view.plan
        sources = [plan.columns[name] for name in plan.features[column.feature].columns]
        return {source.name: source.type for source in sources if source.entry is None}

    def prepare(self, columns: Sequence[AnyColumn]) -> Prepared:
        """Columns as one selection. Raises what `prepare` of selections does."""
        return prepare("", columns, self.state.revision, self.layouts)

    def source_name(self, source_id: int) -> str:
        """Name of a source by its internal id, empty where the registry knows none."""
        found = (name for name, record in self.state.sources.items() if record.source_id == source_id)
        return next(found, "")


def _derived_from(column: SelectedColumn) -> Sequence[str]:
    transform = column.view.definition.features[column.place].transform
    if not isinstance(transform, Derived):
        return ()
    types = {feature.name: feature.type for feature in column.view.definition.features}
    return compile_expression(transform.expression, types).columns
