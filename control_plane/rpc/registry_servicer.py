"""gRPC edge of the registry: converts, calls one domain method, converts back."""

# ruff: noqa: N802 - gRPC names the methods

from collections.abc import Callable, Iterator
from typing import Final

import grpc

from control_plane.domain.pages import PageRequest
from control_plane.domain.registry import Registry
from headrace.convert import registry as convert
from headrace.convert.definitions import set_from_pb
from headrace.definitions.changes import DefinitionKind
from headrace.definitions.registered import RegistryState
from headrace.errors import InvalidArgument
from headrace.serving.principal import Principal
from protos.control.v1 import registry_service_pb2 as pb
from protos.control.v1 import registry_service_pb2_grpc as rpc

SERVICE: Final = pb.DESCRIPTOR.services_by_name["RegistryService"]


def message_bytes(state: RegistryState) -> int:
    """Size of the message that carries a state to its watchers."""
    return convert.state_to_pb(state).ByteSize()


class RegistryServicer(rpc.RegistryServiceServicer):
    """RegistryService over a registry; `principal` gives the caller of the running call."""

    def __init__(
        self, registry: Registry, principal: Callable[[], Principal], wake_watchers: Callable[[], None]
    ) -> None:
        self._registry = registry
        self._principal = principal
        self._wake_watchers = wake_watchers

    def PlanDefinitions(
        self, request: pb.PlanDefinitionsRequest, context: grpc.ServicerContext
    ) -> pb.PlanDefinitionsResponse:
        """Changes that applying would make."""
        changes, revision = self._registry.plan_definitions(self._principal(), set_from_pb(request.definitions))
        return pb.PlanDefinitionsResponse(changes=map(convert.change_to_pb, changes), registry_revision=revision)

    def ApplyDefinitions(
        self, request: pb.ApplyDefinitionsRequest, context: grpc.ServicerContext
    ) -> pb.ApplyDefinitionsResponse:
        """Makes the changes."""
        wanted = set_from_pb(request.definitions)
        changes, revision = self._registry.apply_definitions(
            self._principal(), wanted, request.base_revision, request.request_id
        )
        return pb.ApplyDefinitionsResponse(changes=map(convert.change_to_pb, changes), registry_revision=revision)

    def RetireDefinition(
        self, request: pb.RetireDefinitionRequest, context: grpc.ServicerContext
    ) -> pb.RetireDefinitionResponse:
        """Retires one version."""
        revision = self._registry.retire_definition(
            self._principal(), _kind(request.definition_kind), request.name, request.request_id
        )
        return pb.RetireDefinitionResponse(registry_revision=revision)

    def WatchRegistry(
        self, request: pb.WatchRegistryRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchRegistryResponse]:
        """Every newest state until the caller leaves."""
        context.add_callback(self._wake_watchers)
        states = self._registry.watch(self._principal(), request.held_revision, context.is_active)
        yield from map(convert.state_to_pb, states)

    def GetSource(self, request: pb.GetSourceRequest, context: grpc.ServicerContext) -> pb.GetSourceResponse:
        """One source."""
        source = self._registry.get_source(self._principal(), request.name)
        return pb.GetSourceResponse(source=convert.registered_source_to_pb(source))

    def ListSources(self, request: pb.ListSourcesRequest, context: grpc.ServicerContext) -> pb.ListSourcesResponse:
        """A page of sources."""
        page = self._registry.list_sources(self._principal(), _page(request))
        sources = map(convert.registered_source_to_pb, page.items)
        return pb.ListSourcesResponse(sources=sources, next_page_token=page.next_page_token)

    def GetEntity(self, request: pb.GetEntityRequest, context: grpc.ServicerContext) -> pb.GetEntityResponse:
        """One entity."""
        entity = self._registry.get_entity(self._principal(), request.name)
        return pb.GetEntityResponse(entity=convert.registered_entity_to_pb(entity))

    def ListEntities(self, request: pb.ListEntitiesRequest, context: grpc.ServicerContext) -> pb.ListEntitiesResponse:
        """A page of entities."""
        page = self._registry.list_entities(self._principal(), _page(request))
        entities = map(convert.registered_entity_to_pb, page.items)
        return pb.ListEntitiesResponse(entities=entities, next_page_token=page.next_page_token)

    def GetFeatureView(
        self, request: pb.GetFeatureViewRequest, context: grpc.ServicerContext
    ) -> pb.GetFeatureViewResponse:
        """One view version."""
        view = self._registry.get_view(self._principal(), request.name)
        return pb.GetFeatureViewResponse(feature_view=convert.registered_view_to_pb(view))

    def ListFeatureViews(
        self, request: pb.ListFeatureViewsRequest, context: grpc.ServicerContext
    ) -> pb.ListFeatureViewsResponse:
        """A page of view versions."""
        page = self._registry.list_views(self._principal(), _page(request))
        views = map(convert.registered_view_to_pb, page.items)
        return pb.ListFeatureViewsResponse(feature_views=views, next_page_token=page.next_page_token)

    def GetOnDemandView(
        self, request: pb.GetOnDemandViewRequest, context: grpc.ServicerContext
    ) -> pb.GetOnDemandViewResponse:
        """One on-demand view version."""
        view = self._registry.get_on_demand_view(self._principal(), request.name)
        return pb.GetOnDemandViewResponse(on_demand_view=convert.registered_on_demand_view_to_pb(view))

    def ListOnDemandViews(
        self, request: pb.ListOnDemandViewsRequest, context: grpc.ServicerContext
    ) -> pb.ListOnDemandViewsResponse:
        """A page of on-demand view versions."""
        page = self._registry.list_on_demand_views(self._principal(), _page(request))
        views = map(convert.registered_on_demand_view_to_pb, page.items)
        return pb.ListOnDemandViewsResponse(on_demand_views=views, next_page_token=page.next_page_token)

    def GetFeatureService(
        self, request: pb.GetFeatureServiceRequest, context: grpc.ServicerContext
    ) -> pb.GetFeatureServiceResponse:
        """One service version."""
        service = self._registry.get_service(self._principal(), request.name)
        return pb.GetFeatureServiceResponse(feature_service=convert.registered_service_to_pb(service))

    def ListFeatureServices(
        self, request: pb.ListFeatureServicesRequest, context: grpc.ServicerContext
    ) -> pb.ListFeatureServicesResponse:
        """A page of service versions."""
        page = self._registry.list_services(self._principal(), _page(request))
        services = map(convert.registered_service_to_pb, page.items)
        return pb.ListFeatureServicesResponse(feature_services=services, next_page_token=page.next_page_token)

    def GetModel(self, request: pb.GetModelRequest, context: grpc.ServicerContext) -> pb.GetModelResponse:
        """One model version."""
        model = self._registry.get_model(self._principal(), request.name)
        return pb.GetModelResponse(model=convert.registered_model_to_pb(model))

    def ListModels(self, request: pb.ListModelsRequest, context: grpc.ServicerContext) -> pb.ListModelsResponse:
        """A page of model versions."""
        page = self._registry.list_models(self._principal(), _page(request))
        models = map(convert.registered_model_to_pb, page.items)
        return pb.ListModelsResponse(models=models, next_page_token=page.next_page_token)


def _page(
    request: pb.ListSourcesRequest
    | pb.ListEntitiesRequest
    | pb.ListFeatureViewsRequest
    | pb.ListOnDemandViewsRequest
    | pb.ListFeatureServicesRequest
    | pb.ListModelsRequest,
) -> PageRequest:
    return PageRequest(request.page_size, request.page_token, request.name_prefix)


def _kind(number: int) -> DefinitionKind:
    try:
        return DefinitionKind(number)
    except ValueError as error:
        raise InvalidArgument(
            f"definition_kind is {number}; it must be FEATURE_VIEW, ON_DEMAND_VIEW, FEATURE_SERVICE or MODEL",
            reason="UNKNOWN_VALUE",
            field="definition_kind",
            metadata={"definition_kind": str(number)},
        ) from error
