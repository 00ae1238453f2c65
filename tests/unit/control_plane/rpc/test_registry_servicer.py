"""RegistryService over a real server and a real database."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from control_plane.domain.registry import Registry
from control_plane.domain.watchers import Watchers
from control_plane.rpc.registry_servicer import RegistryServicer
from headrace.convert.definitions import set_to_pb
from headrace.convert.registry import state_from_pb
from headrace.definitions import DefinitionSet
from headrace.errors import (
    FailedPrecondition,
    HeadraceError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from headrace.serving.auth import OpenAuthenticator
from headrace.serving.calls import add_service
from headrace.serving.logging import EventLog
from headrace.serving.permissions import method_permissions
from headrace.serving.principal import LOCAL, Principal
from headrace.serving.server import bind, build_server
from headrace.serving.telemetry import Telemetry, TelemetryConfig
from headrace.status import from_rpc_error
from protos.control.v1 import registry_service_pb2 as pb
from protos.control.v1 import registry_service_pb2_grpc as rpc
from tests.unit.headrace.definitions.samples import (
    ENTITY,
    MODEL,
    SERVICE,
    SOURCE,
    VIEW,
    count,
    delay,
    source,
    view,
    whole_set,
)

LIMIT_S = 30.0
SERVICE_DESCRIPTOR = pb.DESCRIPTOR.services_by_name["RegistryService"]


@pytest.fixture
def watchers() -> Watchers:
    return Watchers(count_max=2)


@pytest.fixture
def callers() -> list[Principal]:
    """The last one is who calls."""
    return [LOCAL]


@pytest.fixture
def stub(registry: Registry, watchers: Watchers, callers: list[Principal]) -> Iterator[rpc.RegistryServiceStub]:
    server = build_server(OpenAuthenticator(), method_permissions(pb.DESCRIPTOR), "127.0.0.1")
    servicer = RegistryServicer(registry, lambda: callers[-1], watchers.wake)
    telemetry = Telemetry(TelemetryConfig("test"))
    add_service(server, SERVICE_DESCRIPTOR, servicer, telemetry, EventLog("test", time.time))
    port = bind(server, "127.0.0.1", 0)
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield rpc.RegistryServiceStub(channel)
    watchers.close()
    server.stop(None).wait()
    telemetry.close()


def call(method: Callable[..., Any], request: Any) -> Any:
    try:
        return method(request, timeout=LIMIT_S)
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


def apply(stub: rpc.RegistryServiceStub, wanted: DefinitionSet) -> pb.ApplyDefinitionsResponse:
    response = call(stub.ApplyDefinitions, pb.ApplyDefinitionsRequest(definitions=set_to_pb(wanted)))
    assert isinstance(response, pb.ApplyDefinitionsResponse)
    return response


def watch(stub: rpc.RegistryServiceStub, held_revision: int = 0) -> Any:
    return stub.WatchRegistry(pb.WatchRegistryRequest(held_revision=held_revision), timeout=LIMIT_S)


def wait_until(is_true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not is_true():
        assert time.monotonic() < end_s, "the condition did not come true"
        threading.Event().wait(0.005)


def test_plan_then_apply_then_every_kind_is_found(stub: rpc.RegistryServiceStub) -> None:
    planned = call(stub.PlanDefinitions, pb.PlanDefinitionsRequest(definitions=set_to_pb(whole_set())))
    applied = apply(stub, whole_set())
    assert list(planned.changes) == list(applied.changes)
    assert (planned.registry_revision, applied.registry_revision) == (0, 1)
    assert {change.change_kind for change in applied.changes} == {pb.CHANGE_KIND_CREATE}
    assert call(stub.GetSource, pb.GetSourceRequest(name=SOURCE)).source.source_id == 1
    assert call(stub.GetEntity, pb.GetEntityRequest(name=ENTITY)).entity.entity_id == 2
    found = call(stub.GetFeatureView, pb.GetFeatureViewRequest(name=VIEW)).feature_view
    assert (found.version, found.view_id, found.schema_id, len(found.transform_digest)) == (1, 3, 4, 32)
    entries = call(stub.GetFeatureService, pb.GetFeatureServiceRequest(name=SERVICE)).feature_service.entries
    assert [(entry.feature_view, list(entry.features)) for entry in entries] == [(f"{VIEW}@v1", ["dep_delay"])]
    assert call(stub.GetModel, pb.GetModelRequest(name=f"{MODEL}@v1")).model.metadata.owner == "flights"


def test_lists_page_over_every_kind(stub: rpc.RegistryServiceStub) -> None:
    apply(stub, whole_set())
    apply(stub, DefinitionSet(feature_views=[view(features=[delay(), count()])]))
    first = call(stub.ListFeatureViews, pb.ListFeatureViewsRequest(page_size=1))
    second = call(stub.ListFeatureViews, pb.ListFeatureViewsRequest(page_token=first.next_page_token))
    assert [item.version for item in [*first.feature_views, *second.feature_views]] == [1, 2]
    assert second.next_page_token == ""
    assert len(call(stub.ListSources, pb.ListSourcesRequest()).sources) == 1
    assert len(call(stub.ListEntities, pb.ListEntitiesRequest(name_prefix="weather.")).entities) == 0
    assert len(call(stub.ListFeatureServices, pb.ListFeatureServicesRequest()).feature_services) == 1
    assert len(call(stub.ListModels, pb.ListModelsRequest()).models) == 1


def test_retire_is_refused_with_every_pin_then_done(stub: rpc.RegistryServiceStub) -> None:
    apply(stub, whole_set())
    of_service = pb.RetireDefinitionRequest(definition_kind=pb.DEFINITION_KIND_FEATURE_SERVICE, name=f"{SERVICE}@v1")
    with pytest.raises(FailedPrecondition) as caught:
        call(stub.RetireDefinition, of_service)
    assert caught.value.metadata["pinned_by"] == f"model {MODEL}@v1"
    of_model = pb.RetireDefinitionRequest(definition_kind=pb.DEFINITION_KIND_MODEL, name=f"{MODEL}@v1")
    assert call(stub.RetireDefinition, of_model).registry_revision == 2
    assert call(stub.RetireDefinition, of_service).registry_revision == 3


@pytest.mark.parametrize(
    ("method", "request_", "error", "reason", "field"),
    [
        ("GetSource", pb.GetSourceRequest(name="x"), InvalidArgument, "INVALID_NAME", "name"),
        ("GetSource", pb.GetSourceRequest(name="a.b.c"), NotFound, "SOURCE_NOT_FOUND", ""),
        ("GetEntity", pb.GetEntityRequest(), InvalidArgument, "INVALID_NAME", "name"),
        ("GetFeatureView", pb.GetFeatureViewRequest(name="a.b.c@v"), InvalidArgument, "INVALID_NAME", "name"),
        ("GetFeatureService", pb.GetFeatureServiceRequest(name="a.b.c"), NotFound, "FEATURE_SERVICE_NOT_FOUND", ""),
        ("GetModel", pb.GetModelRequest(name="a.b.c@v2"), NotFound, "MODEL_NOT_FOUND", ""),
        ("ListModels", pb.ListModelsRequest(page_size=-1), InvalidArgument, "OUT_OF_RANGE", "page_size"),
        ("ListModels", pb.ListModelsRequest(page_token="x"), InvalidArgument, "INVALID_PAGE_TOKEN", "page_token"),
        ("RetireDefinition", pb.RetireDefinitionRequest(), InvalidArgument, "UNKNOWN_VALUE", "definition_kind"),
        (
            "ApplyDefinitions",
            pb.ApplyDefinitionsRequest(request_id="x"),
            InvalidArgument,
            "INVALID_REQUEST_ID",
            "request_id",
        ),
        (
            "ApplyDefinitions",
            pb.ApplyDefinitionsRequest(base_revision=-1),
            InvalidArgument,
            "OUT_OF_RANGE",
            "base_revision",
        ),
        (
            "ApplyDefinitions",
            pb.ApplyDefinitionsRequest(definitions=set_to_pb(DefinitionSet(feature_views=[view()]))),
            FailedPrecondition,
            "UNKNOWN_REFERENCE",
            "",
        ),
    ],
)
def test_wrong_request_is_answered_with_reason_and_field(
    stub: rpc.RegistryServiceStub,
    method: str,
    request_: object,
    error: type[HeadraceError],
    reason: str,
    field: str,
) -> None:
    with pytest.raises(error) as caught:
        call(getattr(stub, method), request_)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert call(stub.ListModels, pb.ListModelsRequest()).next_page_token == "", "the server keeps serving"


def test_wrong_definition_is_answered_with_its_path(stub: rpc.RegistryServiceStub) -> None:
    definitions = set_to_pb(whole_set())
    definitions.feature_views[0].features[0].value_type.scalar_type = 99  # type: ignore[assignment]
    for method, request in (
        (stub.PlanDefinitions, pb.PlanDefinitionsRequest(definitions=definitions)),
        (stub.ApplyDefinitions, pb.ApplyDefinitionsRequest(definitions=definitions)),
    ):
        with pytest.raises(InvalidArgument) as caught:
            call(method, request)
        assert caught.value.field == "definitions.feature_views[0].features[0].value_type"


def test_caller_without_permission_is_refused_before_names_are_looked_up(
    stub: rpc.RegistryServiceStub, callers: list[Principal]
) -> None:
    callers.append(Principal("nobody", frozenset()))
    with pytest.raises(PermissionDenied):
        call(stub.GetSource, pb.GetSourceRequest(name="a.b.c"))
    with pytest.raises(PermissionDenied):
        call(stub.ApplyDefinitions, pb.ApplyDefinitionsRequest(request_id="no uuid"))
    with pytest.raises(grpc.RpcError) as caught:
        next(watch(stub))
    assert isinstance(from_rpc_error(caught.value), PermissionDenied)


def test_watch_sends_the_whole_registry_at_once_and_after_each_change(stub: rpc.RegistryServiceStub) -> None:
    states = watch(stub)
    assert state_from_pb(next(states)).revision == 0
    apply(stub, whole_set())
    state = state_from_pb(next(states))
    assert (state.revision, state.highest_id) == (1, 4)
    assert state.views[VIEW][0].definition == view()
    apply(stub, DefinitionSet(sources=[source(tags={"a": "b"})]))
    assert state_from_pb(next(states)).sources[SOURCE].definition.tags == {"a": "b"}
    states.cancel()


def test_watch_past_a_held_revision_starts_with_the_next(stub: rpc.RegistryServiceStub, watchers: Watchers) -> None:
    apply(stub, whole_set())
    states = watch(stub, held_revision=1)
    wait_until(lambda: watchers.count == 1)
    apply(stub, DefinitionSet(sources=[source(tags={"a": "b"})]))
    assert next(states).registry_revision == 2
    states.cancel()


def test_watcher_that_leaves_makes_room(stub: rpc.RegistryServiceStub, watchers: Watchers) -> None:
    held = [watch(stub), watch(stub)]
    for states in held:
        next(states)
    refused = watch(stub)
    with pytest.raises(grpc.RpcError) as caught:
        next(refused)
    error = from_rpc_error(caught.value)
    assert isinstance(error, ResourceExhausted) and error.retry_after_ms is not None
    held[0].cancel()
    wait_until(lambda: watchers.count == 1)
    assert next(watch(stub)).registry_revision == 0


def test_watch_ends_when_the_server_stops(stub: rpc.RegistryServiceStub, watchers: Watchers) -> None:
    states = watch(stub)
    next(states)
    watchers.close()
    with pytest.raises(grpc.RpcError) as caught:
        next(states)
    error = from_rpc_error(caught.value)
    assert isinstance(error, Unavailable)
    assert (error.reason, error.retry_after_ms) == ("STOPPING", 1_000)


def test_every_method_of_the_contract_declares_a_permission() -> None:
    table = method_permissions(pb.DESCRIPTOR)
    assert set(table.values()) == {"REGISTRY_READ", "REGISTRY_WRITE"}
    writes = {method.rpartition("/")[2] for method, permission in table.items() if permission == "REGISTRY_WRITE"}
    assert writes == {"ApplyDefinitions", "RetireDefinition"}
