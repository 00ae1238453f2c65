"""Changes: what a plan would do to the registry."""

from dataclasses import dataclass
from enum import IntEnum


class DefinitionKind(IntEnum):
    """Kind of a definition; the numbers are those of the contracts."""

    SOURCE = 1
    ENTITY = 2
    FEATURE_VIEW = 3
    FEATURE_SERVICE = 4
    MODEL = 5
    ON_DEMAND_VIEW = 6

    @property
    def label(self) -> str:
        """Words for a message: `feature view`."""
        return self.name.lower().replace("_", " ").replace("on demand", "on-demand")


class ChangeKind(IntEnum):
    """What applying a definition does; the numbers are those of the contracts."""

    UNCHANGED = 1
    CREATE = 2
    NEW_VERSION = 3
    UPDATE = 4
    REFUSED = 5


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a plan; `version` is that after the change, 0 for sources and entities."""

    definition_kind: DefinitionKind
    name: str
    version: int
    change_kind: ChangeKind
    details: tuple[str, ...] = ()
