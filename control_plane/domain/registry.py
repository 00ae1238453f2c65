"""The registry: each method takes the principal, asks for its permission first, and does one thing."""

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

from control_plane.domain import lookup
from control_plane.domain.pages import Page, PageRequest, page_of
from control_plane.domain.plan import Plan, plan
from control_plane.domain.retire import retire
from control_plane.domain.storage import Answer, RegistryStore, RegistryTransaction, Revision
from control_plane.domain.watchers import Watchers
from headrace.definitions.changes import Change, DefinitionKind
from headrace.definitions.documents import set_document
from headrace.definitions.registered import (
    REGISTRY_MESSAGE_BYTES_MAX,
    RegisteredEntity,
    RegisteredModel,
    RegisteredOnDemandView,
    RegisteredService,
    RegisteredSource,
    RegisteredView,
    RegistryState,
)
from headrace.definitions.sets import DefinitionSet
from headrace.definitions.transform import canonical_json
from headrace.errors import Aborted, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from headrace.serving.principal import Principal

READ: Final = "REGISTRY_READ"
WRITE: Final = "REGISTRY_WRITE"
RESTART_MS: Final = 1_000  # after which a watcher of a stopping server asks again


class Registry:
    """Plans, applies, retires, finds, lists and watches definitions over one store.

    `message_bytes` measures a state as the message that watchers receive, so that no apply makes one they refuse.
    """

    def __init__(
        self,
        store: RegistryStore,
        watchers: Watchers,
        clock: Callable[[], datetime],
        message_bytes: Callable[[RegistryState], int],
    ) -> None:
        self._store = store
        self._watchers = watchers
        self._clock = clock
        self._message_bytes = message_bytes

    def plan_definitions(self, principal: Principal, wanted: DefinitionSet) -> tuple[Sequence[Change], int]:
        """Changes that applying a set would make, and the revision compared with."""
        principal.require(READ)
        state = self._store.read()
        return plan(state, wanted, self._clock()).changes, state.revision

    def apply_definitions(
        self, principal: Principal, wanted: DefinitionSet, base_revision: int = 0, request_id: str = ""
    ) -> tuple[Sequence[Change], int]:
        """Makes the changes in one transaction; returns them and the revision after, the same where nothing changed."""
        principal.require(WRITE)
        # Only an answer that is kept needs it, and it costs as much as a plan.
        digest = _digest("APPLY", [set_document(wanted), _etags(wanted), base_revision]) if request_id else ""

        def decide(state: RegistryState) -> Plan:
            _require_base(state, base_revision)
            made = plan(state, wanted, self._clock())
            made.require_possible()
            return made

        return self._write(principal, "APPLY", request_id, digest, decide)

    def retire_definition(self, principal: Principal, kind: DefinitionKind, name: str, request_id: str = "") -> int:
        """Retires one version; returns the revision after. A version that is retired stays so, without a revision."""
        principal.require(WRITE)
        digest = _digest("RETIRE", [kind.name, name])
        _, revision = self._write(
            principal, "RETIRE", request_id, digest, lambda state: retire(state, kind, name, self._clock())
        )
        return revision

    def watch(self, principal: Principal, held_revision: int, is_active: Callable[[], bool]) -> Iterator[RegistryState]:
        """Every newest state past the held one, until the caller leaves. Raises Unavailable when the server stops."""
        principal.require(READ)
        if held_revision < 0:
            raise InvalidArgument(
                f"held_revision is {held_revision}; it must not be negative",
                reason="OUT_OF_RANGE",
                field="held_revision",
            )
        held = held_revision or -1
        with self._watchers.enrolled():
            while is_active():
                ticket = self._watchers.ticket()
                state = self._store.read()
                _require_not_ahead(held, state)
                if state.revision > held:
                    yield state
                    held = state.revision
                if self._watchers.is_closed:
                    raise Unavailable(
                        "the server is stopping; watch again", reason="STOPPING", retry_after_ms=RESTART_MS
                    )
                self._watchers.wait(ticket)

    def get_source(self, principal: Principal, name: str) -> RegisteredSource:
        """One source; raises NotFound."""
        principal.require(READ)
        return lookup.find_source(self._store.read(), name)

    def get_entity(self, principal: Principal, name: str) -> RegisteredEntity:
        """One entity; raises NotFound."""
        principal.require(READ)
        return lookup.find_entity(self._store.read(), name)

    def get_view(self, principal: Principal, name: str) -> RegisteredView:
        """One view version; raises NotFound."""
        principal.require(READ)
        return lookup.find_view(self._store.read(), name)

    def get_on_demand_view(self, principal: Principal, name: str) -> RegisteredOnDemandView:
        """One on-demand view version; raises NotFound."""
        principal.require(READ)
        return lookup.find_on_demand_view(self._store.read(), name)

    def get_service(self, principal: Principal, name: str) -> RegisteredService:
        """One service version; raises NotFound."""
        principal.require(READ)
        return lookup.find_service(self._store.read(), name)

    def get_model(self, principal: Principal, name: str) -> RegisteredModel:
        """One model version; raises NotFound."""
        principal.require(READ)
        return lookup.find_model(self._store.read(), name)

    def list_sources(self, principal: Principal, request: PageRequest) -> Page[RegisteredSource]:
        """A page of sources."""
        principal.require(READ)
        return page_of(self._store.read().sources.values(), "sources", request)

    def list_entities(self, principal: Principal, request: PageRequest) -> Page[RegisteredEntity]:
        """A page of entities."""
        principal.require(READ)
        return page_of(self._store.read().entities.values(), "entities", request)

    def list_views(self, principal: Principal, request: PageRequest) -> Page[RegisteredView]:
        """A page of view versions."""
        principal.require(READ)
        views = self._store.read().views.values()
        return page_of((view for versions in views for view in versions), "feature_views", request)

    def list_on_demand_views(self, principal: Principal, request: PageRequest) -> Page[RegisteredOnDemandView]:
        """A page of on-demand view versions."""
        principal.require(READ)
        views = self._store.read().on_demand_views.values()
        return page_of((view for versions in views for view in versions), "on_demand_views", request)

    def list_services(self, principal: Principal, request: PageRequest) -> Page[RegisteredService]:
        """A page of service versions."""
        principal.require(READ)
        services = self._store.read().services.values()
        return page_of((service for versions in services for service in versions), "feature_services", request)

    def list_models(self, principal: Principal, request: PageRequest) -> Page[RegisteredModel]:
        """A page of model versions."""
        principal.require(READ)
        models = self._store.read().models.values()
        return page_of((model for versions in models for model in versions), "models", request)

    def _write(
        self,
        principal: Principal,
        action: str,
        request_id: str,
        digest: str,
        decide: Callable[[RegistryState], Plan],
    ) -> tuple[Sequence[Change], int]:
        """One transaction: repeats the kept answer, or decides, stores and keeps the answer."""
        key = _request_key(request_id)
        with self._store.transaction() as transaction:
            kept = _kept_answer(transaction, key, digest)
            if kept is not None:
                return kept.changes, kept.revision
            made = decide(transaction.state)
            now = self._clock()
            if made.records:
                self._require_room(made.after)
                transaction.store(made, Revision(made.after.revision, now, principal.name, action, made.changes))
            if key:
                transaction.keep_answer(key, Answer(digest, made.after.revision, made.changes), now)
        if made.records:
            self._watchers.wake()
        return made.changes, made.after.revision

    def _require_room(self, state: RegistryState) -> None:
        size = self._message_bytes(state)
        if size > REGISTRY_MESSAGE_BYTES_MAX:
            raise ResourceExhausted(
                f"the registry would take {size} bytes; at most {REGISTRY_MESSAGE_BYTES_MAX} reach its watchers",
                reason="REGISTRY_FULL",
                metadata={"bytes": str(size), "bytes_max": str(REGISTRY_MESSAGE_BYTES_MAX)},
            )


def _require_base(state: RegistryState, base_revision: int) -> None:
    if base_revision < 0:
        raise InvalidArgument(
            f"base_revision is {base_revision}; it must not be negative", reason="OUT_OF_RANGE", field="base_revision"
        )
    if base_revision and base_revision != state.revision:
        raise Aborted(
            f"the plan was made against revision {base_revision}, and the registry is at {state.revision}; plan again",
            reason="STALE_REVISION",
            field="base_revision",
            metadata={"base_revision": str(base_revision), "registry_revision": str(state.revision)},
        )


def _require_not_ahead(held_revision: int, state: RegistryState) -> None:
    # A caller that waited for a restored, older registry to catch up would then take other definitions for its own.
    if held_revision > state.revision:
        raise FailedPrecondition(
            f"revision {held_revision} is held, and the registry is at {state.revision}: it is an older copy; "
            "restore a newer one",
            reason="REGISTRY_BEHIND",
            field="held_revision",
            metadata={"held_revision": str(held_revision), "registry_revision": str(state.revision)},
        )


def _kept_answer(transaction: RegistryTransaction, request_id: str, digest: str) -> Answer | None:
    kept = transaction.answer(request_id) if request_id else None
    if kept is not None and kept.digest != digest:
        raise InvalidArgument(
            f"request_id {request_id!r} belongs to another request; give each request its own",
            reason="REQUEST_ID_REUSED",
            field="request_id",
            metadata={"request_id": request_id},
        )
    return kept


def _request_key(request_id: str) -> str:
    if not request_id:
        return ""
    try:
        return str(uuid.UUID(request_id))
    except ValueError as error:
        raise InvalidArgument("request_id is no UUID", reason="INVALID_REQUEST_ID", field="request_id") from error


def _etags(wanted: DefinitionSet) -> list[list[str]]:
    return [[definition.name, definition.etag] for _, definition in wanted.located() if definition.etag]


def _digest(action: str, content: object) -> str:
    return hashlib.sha256(canonical_json([action, content]).encode()).hexdigest()
