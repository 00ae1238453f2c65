"""Definition sets: what one person or repository holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.definitions.base import Definition
from headrace.definitions.checks import check_items, invalid
from headrace.definitions.entities import Entity
from headrace.definitions.models import Model
from headrace.definitions.on_demand import OnDemandView
from headrace.definitions.services import FeatureService
from headrace.definitions.sources import Source
from headrace.definitions.views import FeatureView

DEFINITION_COUNT_MAX: Final = 10_000  # of each kind in one set, so that a plan stays one message


@dataclass(frozen=True, slots=True)
class DefinitionSet:
    """Definitions of every kind. A name stands once in the whole set; what it refers to may lie in the registry."""

    sources: Sequence[Source] = ()
    entities: Sequence[Entity] = ()
    feature_views: Sequence[FeatureView] = ()
    feature_services: Sequence[FeatureService] = ()
    models: Sequence[Model] = ()
    on_demand_views: Sequence[OnDemandView] = ()

    def __post_init__(self) -> None:
        for field, kind in KINDS.items():
            object.__setattr__(self, field, check_items(getattr(self, field), kind, field, DEFINITION_COUNT_MAX))
        seen: dict[str, str] = {}
        for path, definition in self.located():
            if definition.name in seen:
                raise invalid(
                    f"name {definition.name!r} stands twice, at {seen[definition.name]} and {path}; "
                    "a name belongs to one definition of one kind",
                    "DUPLICATE_NAME",
                    f"{path}.name",
                    name=definition.name,
                )
            seen[definition.name] = path

    def located(self) -> Iterator[tuple[str, Definition]]:
        """Every definition with its path, such as `feature_views[2]`."""
        for field in KINDS:
            for index, definition in enumerate(getattr(self, field)):
                yield f"{field}[{index}]", definition

    def __len__(self) -> int:
        return sum(len(getattr(self, field)) for field in KINDS)


KINDS: Final[dict[str, type[Definition]]] = {
    "sources": Source,
    "entities": Entity,
    "feature_views": FeatureView,
    "on_demand_views": OnDemandView,
    "feature_services": FeatureService,
    "models": Model,
}
