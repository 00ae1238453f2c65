"""The blocking client of the registry."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headrace.client.unary import UnaryClient
from headrace.convert.definitions import set_to_pb
from headrace.convert.registry import (
    change_from_pb,
    registered_entity_from_pb,
    registered_model_from_pb,
    registered_on_demand_view_from_pb,
    registered_service_from_pb,
    registered_source_from_pb,
    registered_view_from_pb,
)
from headrace.definitions.changes import Change, DefinitionKind
from headrace.definitions.registered import Registered
from headrace.definitions.sets import DefinitionSet
from protos.control.v1 import registry_service_pb2 as pb

CALL_TIMEOUT_S_DEFAULT: Final = 30.0  # an apply of thousands of definitions is one transaction
_PAGE_SIZE: Final = 1_000  # the most that a page of the contract holds
_SERVICE: Final = "/headrace.control.v1.RegistryService/"


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes in the order they are made, and the revision that they were compared with or made."""

    changes: tuple[Change, ...]
    registry_revision: int


@dataclass(frozen=True, slots=True)
class _Kind:
    """Messages of one kind. Any: generated classes of six unrelated types with the same field names."""

    method: str
    list_method: str
    field: str
    list_field: str
    read: Callable[[Any], Registered]


_KINDS: Final = {
    DefinitionKind.SOURCE: _Kind("GetSource", "ListSources", "source", "sources", registered_source_from_pb),
    DefinitionKind.ENTITY: _Kind("GetEntity", "ListEntities", "entity", "entities", registered_entity_from_pb),
    DefinitionKind.FEATURE_VIEW: _Kind(
        "GetFeatureView", "ListFeatureViews", "feature_view", "feature_views", registered_view_from_pb
    ),
    DefinitionKind.ON_DEMAND_VIEW: _Kind(
        "GetOnDemandView", "ListOnDemandViews", "on_demand_view", "on_demand_views", registered_on_demand_view_from_pb
    ),
    DefinitionKind.FEATURE_SERVICE: _Kind(
        "GetFeatureService", "ListFeatureServices", "feature_service", "feature_services", registered_service_from_pb
    ),
    DefinitionKind.MODEL: _Kind("GetModel", "ListModels", "model", "models", registered_model_from_pb),
}


class RegistryClient(UnaryClient):
    """Plans, applies and looks up definitions over one channel; safe to share between threads."""

    service = _SERVICE

    def plan(self, definitions: DefinitionSet, timeout_s: float = CALL_TIMEOUT_S_DEFAULT) -> Plan:
        """What applying the definitions would change."""
        request = pb.PlanDefinitionsRequest(definitions=set_to_pb(definitions))
        answer = pb.PlanDefinitionsResponse.FromString(self._unary("PlanDefinitions", request, timeout_s))
        return _plan(answer.changes, answer.registry_revision)

    def apply(
        self, definitions: DefinitionSet, base_revision: int = 0, timeout_s: float = CALL_TIMEOUT_S_DEFAULT
    ) -> Plan:
        """Makes all changes or none; with a base revision, only while the registry still has it."""
        request = pb.ApplyDefinitionsRequest(
            definitions=set_to_pb(definitions), base_revision=base_revision, request_id=str(uuid.uuid4())
        )
        answer = pb.ApplyDefinitionsResponse.FromString(self._unary("ApplyDefinitions", request, timeout_s))
        return _plan(answer.changes, answer.registry_revision)

    def retire(self, kind: DefinitionKind, name: str, timeout_s: float = CALL_TIMEOUT_S_DEFAULT) -> int:
        """Retires one version, "name@v1"; returns the revision after it."""
        request = pb.RetireDefinitionRequest(
            definition_kind=pb.DefinitionKind.ValueType(kind), name=name, request_id=str(uuid.uuid4())
        )
        answer = pb.RetireDefinitionResponse.FromString(self._unary("RetireDefinition", request, timeout_s))
        return answer.registry_revision

    def get(self, kind: DefinitionKind, name: str, timeout_s: float = CALL_TIMEOUT_S_DEFAULT) -> Registered:
        """One definition by name; without a version, the newest that is not retired."""
        messages = _KINDS[kind]
        request = getattr(pb, f"{messages.method}Request")(name=name)
        raw = self._unary(messages.method, request, timeout_s)
        answer = getattr(pb, f"{messages.method}Response").FromString(raw)
        return messages.read(getattr(answer, messages.field))

    def list(
        self, kind: DefinitionKind, name_prefix: str = "", timeout_s: float = CALL_TIMEOUT_S_DEFAULT
    ) -> Iterator[Registered]:
        """All definitions of a kind in the order of names and versions, page by page."""
        messages = _KINDS[kind]
        token = ""
        while True:
            request = getattr(pb, f"{messages.list_method}Request")(
                page_size=_PAGE_SIZE, page_token=token, name_prefix=name_prefix
            )
            raw = self._unary(messages.list_method, request, timeout_s)
            answer = getattr(pb, f"{messages.list_method}Response").FromString(raw)
            yield from map(messages.read, getattr(answer, messages.list_field))
            token = answer.next_page_token
            if not token:
                return


def _plan(changes: Sequence[pb.Change], revision: int) -> Plan:
    return Plan(tuple(map(change_from_pb, changes)), revision)
