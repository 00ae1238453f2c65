"""Columns of an answer, as a selection names them."""

from dataclasses import dataclass

from feature_server.domain.layouts import OnDemandLayout, ViewLayout
from feature_server.domain.slot_bytes import slot_bytes
from headrace.names import VersionRef, parse_version_ref
from headrace.types import Scalar, ValueType


@dataclass(frozen=True, slots=True)
class SelectedColumn:
    """A feature that is stored. `key_columns` are the request columns that carry the view's entity key."""

    name: str
    view: ViewLayout
    feature: str
    key_columns: tuple[str, ...]

    @property
    def place(self) -> int:
        """Column of the view's schema."""
        return self.view.columns[self.feature]

    @property
    def value_type(self) -> ValueType:
        """Type of the values."""
        return self.view.value_types[self.place]

    @property
    def reference(self) -> str:
        """The feature, "view@v3:feature"."""
        return f"{self.view.ref}:{self.feature}"

    @property
    def key_scalars(self) -> tuple[Scalar, ...]:
        """Types of the key columns."""
        return self.view.entity.key_scalars

    @property
    def keyed(self) -> str:
        """What the key columns name."""
        return self.view.entity.name

    @property
    def default(self) -> bytes | None:
        """Typed default as slot bytes."""
        value = self.view.definition.features[self.place].default
        return None if value is None else slot_bytes(value, self.value_type)


@dataclass(frozen=True, slots=True)
class SelectedOnDemand:
    """A feature of an on-demand view; `key_columns` are the request columns of the view's join keys."""

    name: str
    view: OnDemandLayout
    feature: str
    key_columns: tuple[str, ...]

    @property
    def ref(self) -> VersionRef:
        """The view."""
        return parse_version_ref(self.view.ref)

    @property
    def value_type(self) -> ValueType:
        """Type of the values."""
        return self.view.definition.features[self.view.columns[self.feature]].type

    @property
    def reference(self) -> str:
        """The feature, "view@v3:feature"."""
        return f"{self.view.ref}:{self.feature}"

    @property
    def key_scalars(self) -> tuple[Scalar, ...]:
        """Types of the key columns."""
        return tuple(self.view.keys.values())

    @property
    def keyed(self) -> str:
        """What the key columns name."""
        return self.view.ref


AnyColumn = SelectedColumn | SelectedOnDemand
AnyLayout = ViewLayout | OnDemandLayout


def select_column(name: str, view: AnyLayout, feature: str, key_columns: tuple[str, ...]) -> AnyColumn:
    """Column of a feature of any view."""
    if isinstance(view, ViewLayout):
        return SelectedColumn(name, view, feature, key_columns)
    return SelectedOnDemand(name, view, feature, key_columns)
