"""Converts registered definitions, changes and whole registry states from and to their messages."""

from typing import TypeVar

from headrace.convert.definitions import (
    entity_from_pb,
    entity_to_pb,
    model_from_pb,
    model_to_pb,
    on_demand_view_from_pb,
    on_demand_view_to_pb,
    service_from_pb,
    service_to_pb,
    source_from_pb,
    source_to_pb,
    view_from_pb,
    view_to_pb,
)
from headrace.convert.values import timestamp_from_pb, timestamp_to_pb
from headrace.definitions.changes import Change, ChangeKind, DefinitionKind
from headrace.definitions.registered import (
    Registered,
    RegisteredEntity,
    RegisteredModel,
    RegisteredOnDemandView,
    RegisteredService,
    RegisteredSource,
    RegisteredView,
    RegistryState,
    Stamp,
    State,
    registry_state,
)
from protos.control.v1 import definitions_pb2 as pb
from protos.control.v1 import registry_service_pb2 as rpc_pb

_Message = TypeVar("_Message", pb.Source, pb.Entity, pb.FeatureView, pb.OnDemandView, pb.FeatureService, pb.Model)


def state_to_pb(state: RegistryState) -> rpc_pb.WatchRegistryResponse:
    """Message of the whole registry."""
    definitions = pb.DefinitionSet(
        sources=map(registered_source_to_pb, state.sources.values()),
        entities=map(registered_entity_to_pb, state.entities.values()),
        feature_views=(registered_view_to_pb(view) for views in state.views.values() for view in views),
        on_demand_views=(
            registered_on_demand_view_to_pb(view) for views in state.on_demand_views.values() for view in views
        ),
        feature_services=(registered_service_to_pb(item) for items in state.services.values() for item in items),
        models=(registered_model_to_pb(model) for models in state.models.values() for model in models),
    )
    return rpc_pb.WatchRegistryResponse(
        registry_revision=state.revision, definitions=definitions, highest_id=state.highest_id
    )


def state_from_pb(message: rpc_pb.WatchRegistryResponse) -> RegistryState:
    """State of a message; raises InvalidArgument where a definition in it is wrong."""
    definitions = message.definitions
    records: list[Registered] = [
        *map(registered_source_from_pb, definitions.sources),
        *map(registered_entity_from_pb, definitions.entities),
        *map(registered_view_from_pb, definitions.feature_views),
        *map(registered_on_demand_view_from_pb, definitions.on_demand_views),
        *map(registered_service_from_pb, definitions.feature_services),
        *map(registered_model_from_pb, definitions.models),
    ]
    return registry_state(message.registry_revision, message.highest_id, records)


def registered_source_to_pb(record: RegisteredSource) -> pb.Source:
    """Message of a registered source."""
    message = _stamped(source_to_pb(record.definition), record.stamp)
    message.source_id = record.source_id
    return message


def registered_source_from_pb(message: pb.Source) -> RegisteredSource:
    """Registered source of a message."""
    return RegisteredSource(source_from_pb(message), _stamp(message.metadata), message.source_id)


def registered_entity_to_pb(record: RegisteredEntity) -> pb.Entity:
    """Message of a registered entity."""
    message = _stamped(entity_to_pb(record.definition), record.stamp)
    message.entity_id = record.entity_id
    return message


def registered_entity_from_pb(message: pb.Entity) -> RegisteredEntity:
    """Registered entity of a message."""
    return RegisteredEntity(entity_from_pb(message), _stamp(message.metadata), message.entity_id)


def registered_view_to_pb(record: RegisteredView) -> pb.FeatureView:
    """Message of a registered view version."""
    message = _stamped(view_to_pb(record.definition), record.stamp)
    message.version = record.version
    message.state = pb.State.ValueType(record.state)
    message.view_id = record.view_id
    message.schema_id = record.schema_id
    message.transform_digest = record.transform_digest
    return message


def registered_view_from_pb(message: pb.FeatureView) -> RegisteredView:
    """Registered view version of a message."""
    return RegisteredView(
        definition=view_from_pb(message),
        stamp=_stamp(message.metadata),
        version=message.version,
        state=State(message.state),
        view_id=message.view_id,
        schema_id=message.schema_id,
        transform_digest=message.transform_digest,
    )


def registered_on_demand_view_to_pb(record: RegisteredOnDemandView) -> pb.OnDemandView:
    """Message of a registered on-demand view version."""
    message = _stamped(on_demand_view_to_pb(record.definition), record.stamp)
    message.version = record.version
    message.state = pb.State.ValueType(record.state)
    message.transform_digest = record.transform_digest
    return message


def registered_on_demand_view_from_pb(message: pb.OnDemandView) -> RegisteredOnDemandView:
    """Registered on-demand view version of a message."""
    return RegisteredOnDemandView(
        definition=on_demand_view_from_pb(message),
        stamp=_stamp(message.metadata),
        version=message.version,
        state=State(message.state),
        transform_digest=message.transform_digest,
    )


def registered_service_to_pb(record: RegisteredService) -> pb.FeatureService:
    """Message of a registered service version."""
    message = _stamped(service_to_pb(record.definition), record.stamp)
    message.version = record.version
    message.state = pb.State.ValueType(record.state)
    return message


def registered_service_from_pb(message: pb.FeatureService) -> RegisteredService:
    """Registered service version of a message."""
    return RegisteredService(service_from_pb(message), _stamp(message.metadata), message.version, State(message.state))


def registered_model_to_pb(record: RegisteredModel) -> pb.Model:
    """Message of a registered model version."""
    message = _stamped(model_to_pb(record.definition), record.stamp)
    message.version = record.version
    message.state = pb.State.ValueType(record.state)
    return message


def registered_model_from_pb(message: pb.Model) -> RegisteredModel:
    """Registered model version of a message."""
    return RegisteredModel(model_from_pb(message), _stamp(message.metadata), message.version, State(message.state))


def change_to_pb(change: Change) -> rpc_pb.Change:
    """Message of a change."""
    return rpc_pb.Change(
        definition_kind=rpc_pb.DefinitionKind.ValueType(change.definition_kind),
        name=change.name,
        version=change.version,
        change_kind=rpc_pb.ChangeKind.ValueType(change.change_kind),
        details=change.details,
    )


def change_from_pb(message: rpc_pb.Change) -> Change:
    """Change of a message."""
    return Change(
        definition_kind=DefinitionKind(message.definition_kind),
        name=message.name,
        version=message.version,
        change_kind=ChangeKind(message.change_kind),
        details=tuple(message.details),
    )


def _stamped(message: _Message, stamp: Stamp) -> _Message:
    message.metadata.create_time.CopyFrom(timestamp_to_pb(stamp.create_time))
    message.metadata.update_time.CopyFrom(timestamp_to_pb(stamp.update_time))
    message.metadata.etag = stamp.etag
    return message


def _stamp(metadata: pb.Metadata) -> Stamp:
    return Stamp(
        create_time=timestamp_from_pb(metadata.create_time, "metadata.create_time"),
        update_time=timestamp_from_pb(metadata.update_time, "metadata.update_time"),
        etag=metadata.etag,
    )
