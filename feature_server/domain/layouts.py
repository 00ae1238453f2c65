"""What the registry's views and entities are to a server: ids, key types and row schemas."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from core_ext.row_codec import Schema
from feature_server.domain.computed_layouts import ComputedLayout, computed_layout
from headrace.definitions.on_demand import OnDemandView
from headrace.definitions.on_demand_plans import OnDemandPlan, plans_of_state
from headrace.definitions.registered import RegisteredEntity, RegisteredView, RegistryState, State
from headrace.definitions.transforms import Latest
from headrace.definitions.views import FeatureView
from headrace.errors import HeadraceError
from headrace.types import Scalar, ValueType


@dataclass(frozen=True, slots=True)
class EntityLayout:
    """Keys of one entity, in the order of the canonical key bytes."""

    name: str
    entity_id: int
    key_names: tuple[str, ...]
    key_scalars: tuple[Scalar, ...]

    @property
    def key_types(self) -> tuple[int, ...]:
        """Element types of the keys as the codec takes them."""
        return tuple(int(scalar) for scalar in self.key_scalars)


@dataclass(frozen=True, slots=True)
class ViewLayout:
    """Rows of one view version. `columns` gives the place of each feature in the schema.

    `computed` is None where a row of the source is the row that is answered. `refusal` says why a version is known but
    cannot be computed here.
    """

    ref: str
    view_id: int
    entity: EntityLayout
    schema: Schema
    definition: FeatureView
    transform_digest: bytes
    columns: Mapping[str, int]
    is_active: bool
    computed: ComputedLayout | None = None
    refusal: HeadraceError | None = None

    @property
    def key_names(self) -> tuple[str, ...]:
        """Join keys of the entity."""
        return self.entity.key_names

    @property
    def stored_schema(self) -> Schema:
        """Layout of stored rows; that of answers has every column."""
        return self.schema if self.computed is None else self.computed.view.stored

    def has_own_value(self, name: str) -> bool:
        """Whether a feature has a value where no row is stored: windows, and what is derived beside them."""
        feature = self.definition.feature(name)
        has_windows = self.computed is not None and self.computed.windows is not None
        return has_windows and feature is not None and not isinstance(feature.transform, Latest)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Features in schema order."""
        return tuple(self.columns)

    @property
    def value_types(self) -> tuple[ValueType, ...]:
        """Types in schema order."""
        return tuple(feature.type for feature in self.definition.features)


@dataclass(frozen=True, slots=True)
class OnDemandLayout:
    """One on-demand view version: no rows, only what computes it. `keys` are its join keys.

    `refusal` says why a version is known but cannot be computed here; then `plan` is None.
    """

    ref: str
    definition: OnDemandView
    transform_digest: bytes
    is_active: bool
    keys: Mapping[str, Scalar]
    plan: OnDemandPlan | None
    refusal: HeadraceError | None = None

    @property
    def columns(self) -> Mapping[str, int]:
        """Place of each feature."""
        return {feature.name: place for place, feature in enumerate(self.definition.features)}

    @property
    def key_names(self) -> tuple[str, ...]:
        """Join keys, in the order of the sources."""
        return tuple(self.keys)


def entity_layout(record: RegisteredEntity) -> EntityLayout:
    """Layout of a registered entity."""
    keys = record.definition.join_keys
    names, scalars = tuple(key.name for key in keys), tuple(key.type.scalar for key in keys)
    return EntityLayout(record.definition.name, record.entity_id, names, scalars)


def view_layouts(state: RegistryState, modules: Collection[str] = ()) -> dict[str, ViewLayout]:
    """Layout of every view version, retired ones included: their rows can still be erased.

    Functions of views are imported from `modules` alone.
    """
    entities = {name: entity_layout(record) for name, record in state.entities.items()}
    records = [record for versions in state.views.values() for record in versions]
    return {
        str(record.ref): _view_layout(record, entities[record.definition.entity], state, modules) for record in records
    }


def _view_layout(
    record: RegisteredView, entity: EntityLayout, state: RegistryState, modules: Collection[str]
) -> ViewLayout:
    features = record.definition.features
    types = [(int(item.type.scalar), int(item.type.shape), item.type.list_size) for item in features]
    computed, refusal = None, None
    if not record.definition.is_plain:
        try:
            computed = computed_layout(record, state, modules)
        except HeadraceError as error:
            refusal = error
    return ViewLayout(
        ref=str(record.ref),
        view_id=record.view_id,
        entity=entity,
        schema=Schema(record.schema_id, types) if computed is None else computed.view.answered,
        definition=record.definition,
        transform_digest=record.transform_digest,
        columns={feature.name: place for place, feature in enumerate(features)},
        is_active=record.state is State.ACTIVE,
        computed=computed,
        refusal=refusal,
    )


def on_demand_layouts(state: RegistryState) -> dict[str, OnDemandLayout]:
    """Layout of every on-demand view version."""
    plans, found = plans_of_state(state), {}
    for record in (record for versions in state.on_demand_views.values() for record in versions):
        plan, refusal = None, None
        try:
            plan = plans.plan_of(record)
        except HeadraceError as error:
            refusal = error
        found[str(record.ref)] = OnDemandLayout(
            ref=str(record.ref),
            definition=record.definition,
            transform_digest=record.transform_digest,
            is_active=record.state is State.ACTIVE,
            keys={} if plan is None else {name: kind.scalar for name, kind in plan.keys.items()},
            plan=plan,
            refusal=refusal,
        )
    return found
