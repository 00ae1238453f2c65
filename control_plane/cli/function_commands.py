"""Python functions of views on the command line: their digest, and what they cost a row on this machine."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane.cli.output import Format, print_document
from control_plane.cli.session import Session
from headrace.client import RegistryClient
from headrace.definitions import DefinitionKind, DefinitionSet, FeatureView, RegisteredSource, RegisteredView, Source
from headrace.definitions.lookups import KNOWN_TIME, TIME
from headrace.definitions.python_files import imports_below
from headrace.errors import NotFound
from headrace.function_source import function_of_path, source_digest
from headrace.functions import loaded_functions, measured
from headrace.types import ValueType


@dataclass(frozen=True, slots=True)
class FunctionCost:
    """A function of a view, and what was measured; without a cost the note says why."""

    view: str
    column: str
    path: str
    us_per_row: float | None
    note: str

    @property
    def document(self) -> dict[str, Any]:  # Any: JSON values
        """JSON form."""
        return {
            "feature_view": self.view,
            "column": self.column,
            "function": self.path,
            "native": False,
            "us_per_row": self.us_per_row,
            "note": self.note,
        }

    @property
    def line(self) -> str:
        """One line for people."""
        cost = f"cost unknown: {self.note}" if self.us_per_row is None else f"{self.us_per_row:.3f} us a row"
        return f"{self.view}: {self.column} by {self.path}: native: no, {cost}, measured here on made-up values"


def show_function(session: Session, path: str) -> None:
    """Prints the digest that a YAML definition pins a function by; its module lies on the path or in this folder."""
    with imports_below(Path.cwd()):
        digest = source_digest(function_of_path(path))
    if session.form is Format.TABLE:
        session.out.write(f"{digest}\n")
    else:
        print_document({"function": path, "digest": digest}, session.form, session.out)


def function_costs(definitions: DefinitionSet, registry: RegistryClient, folder: Path) -> list[FunctionCost]:
    """Cost of every function of the set, whose modules may lie in a folder.

    Raises FailedPrecondition where one has another source than its digest says, or does not go row by row.
    """
    views = [view for view in definitions.feature_views if view.functions]
    with imports_below(folder):
        return [cost for view in views for cost in _costs(view, _Types(definitions, registry))]


def print_costs(session: Session, costs: Iterable[FunctionCost]) -> None:
    """Lines for people; documents hold the costs themselves."""
    for cost in costs:
        session.out.write(f"{cost.line}\n")


def _costs(view: FeatureView, types: "_Types") -> Iterator[FunctionCost]:
    known = types.of(view)
    for one in view.functions:
        if not set(one.columns) <= known.keys():
            continue  # the plan refuses it
        (loaded,) = loaded_functions([one], known, None)
        cost = measured(loaded)
        yield FunctionCost(view.name, one.name, one.path, cost.us_per_row, cost.note)


@dataclass(frozen=True, slots=True)
class _Types:
    """Types of what functions may take: of the set first, then of the registry; what neither has is left out."""

    definitions: DefinitionSet
    registry: RegistryClient

    def of(self, view: FeatureView) -> dict[str, ValueType]:
        """Columns of the events of a view."""
        source = self._source(view.source)
        found = {column.name: column.type for column in source.columns} if source else {}
        for at, entry in enumerate(view.lookups):
            below = self._view(entry.feature_view if entry.view.version else entry.view.name)
            features = below.features if below else ()
            found |= {entry.output_prefix + feature.name: feature.type for feature in features}
            found[KNOWN_TIME.format(at + 1)] = TIME
        return found

    def _source(self, name: str) -> Source | None:
        own = next((one for one in self.definitions.sources if one.name == name), None)
        record = None if own else self._registered(DefinitionKind.SOURCE, name)
        return record.definition if isinstance(record, RegisteredSource) else own

    def _view(self, name: str) -> FeatureView | None:
        own = next((one for one in self.definitions.feature_views if one.name == name), None)
        record = None if own else self._registered(DefinitionKind.FEATURE_VIEW, name)
        return record.definition if isinstance(record, RegisteredView) else own

    def _registered(self, kind: DefinitionKind, name: str) -> object:
        try:
            return self.registry.get(kind, name)
        except NotFound:
            return None
