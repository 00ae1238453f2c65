"""Registered definitions, states and changes from and to their messages."""

from datetime import UTC, datetime

import pytest

from headrace.convert.registry import change_from_pb, change_to_pb, state_from_pb, state_to_pb
from headrace.definitions import (
    Change,
    ChangeKind,
    DefinitionKind,
    RegisteredEntity,
    RegisteredModel,
    RegisteredService,
    RegisteredSource,
    RegisteredView,
    RegistryState,
    Stamp,
    State,
    registry_state,
)
from headrace.names import VersionRef
from protos.control.v1 import definitions_pb2 as pb
from protos.control.v1 import registry_service_pb2 as rpc_pb
from tests.unit.headrace.definitions.samples import SERVICE, VIEW, entity, model, service, source, view

STAMP = Stamp(datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC), "0123456789abcdef")


def some_state() -> RegistryState:
    return registry_state(
        7,
        9,
        [
            RegisteredModel(model(), STAMP, 1, State.ACTIVE),
            RegisteredService(service(), STAMP, 1, State.ACTIVE),
            RegisteredView(view(), STAMP, 10, State.ACTIVE, 8, 9, bytes(range(32))),
            RegisteredView(view(), STAMP, 2, State.ACTIVE, 6, 7, bytes(32)),
            RegisteredView(view(), STAMP, 11, State.RETIRED, 3, 4, bytes(32)),
            RegisteredSource(source(), STAMP, 1),
            RegisteredEntity(entity(), STAMP, 2),
        ],
    )


def test_state_comes_back_through_its_wire_bytes() -> None:
    message = rpc_pb.WatchRegistryResponse.FromString(state_to_pb(some_state()).SerializeToString())
    found = state_from_pb(message)
    assert found == some_state()
    assert found.views[VIEW][0].stamp == STAMP
    assert found.views[VIEW][0].definition.etag == STAMP.etag, "an edit carries the etag that it began from"


def test_empty_state_comes_back() -> None:
    assert state_from_pb(state_to_pb(RegistryState())) == RegistryState()


def test_versions_are_in_order_and_the_newest_active_one_is_found() -> None:
    state = some_state()
    assert [record.version for record in state.views[VIEW]] == [2, 10, 11]
    newest = state.view(VersionRef(VIEW))
    assert newest is not None and newest.version == 10
    retired = state.view(VersionRef(VIEW, 11))
    assert retired is not None and retired.state is State.RETIRED
    assert state.view(VersionRef(VIEW, 3)) is None
    assert state.service(VersionRef(SERVICE, 1)) is not None
    assert state.model(VersionRef(SERVICE)) is None


@pytest.mark.parametrize("kind", ChangeKind)
def test_change_comes_back(kind: ChangeKind) -> None:
    change = Change(DefinitionKind.FEATURE_VIEW, VIEW, 2, kind, ("feature 'a' is added", "ttl changes"))
    assert change_from_pb(change_to_pb(change)) == change


def test_numbers_are_those_of_the_contract() -> None:
    def numbers(enum: type[rpc_pb.ChangeKind], prefix: str) -> dict[str, int]:
        return {name.removeprefix(prefix): number for name, number in enum.items() if number}

    assert numbers(rpc_pb.ChangeKind, "CHANGE_KIND_") == {kind.name: int(kind) for kind in ChangeKind}
    kinds = {name.removeprefix("DEFINITION_KIND_"): number for name, number in rpc_pb.DefinitionKind.items() if number}
    assert kinds == {kind.name: int(kind) for kind in DefinitionKind}
    states = {name.removeprefix("STATE_"): number for name, number in pb.State.items() if number}
    assert states == {state.name: int(state) for state in State}
