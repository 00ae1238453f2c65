"""Definitions from and to their messages."""

from collections.abc import Callable

import pytest
from hypothesis import given

from headrace.convert.definitions import set_from_pb, set_to_pb
from headrace.definitions import DefinitionSet, Fallback, SourceKind
from headrace.definitions.documents import set_document
from headrace.definitions.transform import canonical_json
from headrace.errors import InvalidArgument
from protos.common.v1 import value_pb2
from protos.control.v1 import definitions_pb2 as pb
from tests.unit.headrace.definitions.samples import sets, source, view, whole_set


@given(sets())
def test_set_comes_back_through_its_wire_bytes(wanted: DefinitionSet) -> None:
    message = pb.DefinitionSet.FromString(set_to_pb(wanted).SerializeToString())
    found = set_from_pb(message)
    assert found == wanted
    assert canonical_json(set_document(found)) == canonical_json(set_document(wanted))


def test_etag_travels_with_its_definition() -> None:
    message = set_to_pb(DefinitionSet(sources=[source(etag="abc")]))
    assert set_from_pb(message).sources[0].etag == "abc"


@pytest.mark.parametrize(("kind", "enum"), [(Fallback, pb.Fallback), (SourceKind, pb.SourceKind)])
def test_numbers_are_those_of_the_contract(kind: type[Fallback | SourceKind], enum: type[pb.Fallback]) -> None:
    names = {name.rpartition(f"{kind.__name__.upper()}_")[2]: number for name, number in enum.items() if number}
    names = {name.removeprefix("SOURCE_KIND_").removeprefix("FALLBACK_"): number for name, number in names.items()}
    assert names == {member.name: int(member) for member in kind}


def test_unset_fallback_is_none() -> None:
    message = set_to_pb(whole_set())
    message.feature_views[0].fallback = pb.FALLBACK_UNSPECIFIED
    assert set_from_pb(message).feature_views[0].fallback is Fallback.NONE


@pytest.mark.parametrize("offline", [True, False])
def test_offline_comes_back_through_its_wire_bytes(offline: bool) -> None:
    message = set_to_pb(whole_set(feature_views=[view(offline=offline)]))
    sent = pb.DefinitionSet.FromString(message.SerializeToString())
    assert sent.feature_views[0].HasField("offline") is not offline, "what is the default is not said"
    assert set_from_pb(sent).feature_views[0].offline is offline
    sent.feature_views[0].offline = offline
    assert set_from_pb(sent).feature_views[0].offline is offline


def test_unset_offline_is_true() -> None:
    message = set_to_pb(whole_set(feature_views=[view(offline=False)]))
    message.feature_views[0].ClearField("offline")
    assert set_from_pb(message).feature_views[0].offline is True


def no_kind(message: pb.DefinitionSet) -> None:
    message.sources[0].kind = pb.SOURCE_KIND_UNSPECIFIED


def unknown_kind(message: pb.DefinitionSet) -> None:
    message.sources[0].kind = 77  # type: ignore[assignment]


def no_column_type(message: pb.DefinitionSet) -> None:
    message.sources[0].columns[1].ClearField("value_type")


def no_owner(message: pb.DefinitionSet) -> None:
    message.entities[0].ClearField("metadata")


def float_key(message: pb.DefinitionSet) -> None:
    message.entities[0].join_keys[0].scalar_type = value_pb2.SCALAR_TYPE_F64


def no_transform(message: pb.DefinitionSet) -> None:
    message.feature_views[0].features[0].ClearField("transform")


def no_column(message: pb.DefinitionSet) -> None:
    message.feature_views[0].features[0].transform.latest.column = ""


def wrong_default(message: pb.DefinitionSet) -> None:
    message.feature_views[0].features[0].default_value.int_value = 1


def precise_ttl(message: pb.DefinitionSet) -> None:
    message.feature_views[0].ttl_duration.nanos = 1


def zero_ttl(message: pb.DefinitionSet) -> None:
    message.feature_views[0].ttl_duration.SetInParent()


def bad_reference(message: pb.DefinitionSet) -> None:
    message.feature_services[0].entries[0].feature_view = "x"


def unpinned_model(message: pb.DefinitionSet) -> None:
    message.models[0].feature_service = "flights.ml.delay"


@pytest.mark.parametrize(
    ("spoil", "reason", "field"),
    [
        (no_kind, "UNKNOWN_VALUE", "sources[0].kind"),
        (unknown_kind, "UNKNOWN_VALUE", "sources[0].kind"),
        (no_column_type, "UNKNOWN_TYPE", "sources[0].columns[1].value_type"),
        (no_owner, "REQUIRED", "entities[0].owner"),
        (float_key, "WRONG_TYPE", "entities[0].join_keys[0].type"),
        (no_transform, "REQUIRED", "feature_views[0].features[0].transform"),
        (no_column, "REQUIRED", "feature_views[0].features[0].transform.latest.column"),
        (wrong_default, "WRONG_TYPE", "feature_views[0].features[0].default_value"),
        (precise_ttl, "TOO_PRECISE", "feature_views[0].ttl_duration"),
        (zero_ttl, "OUT_OF_RANGE", "feature_views[0].ttl"),
        (bad_reference, "INVALID_NAME", "feature_services[0].entries[0].feature_view"),
        (unpinned_model, "VERSION_REQUIRED", "models[0].feature_service"),
    ],
)
def test_wrong_message_is_refused_with_its_path(
    spoil: Callable[[pb.DefinitionSet], None], reason: str, field: str
) -> None:
    message = set_to_pb(whole_set())
    spoil(message)
    with pytest.raises(InvalidArgument) as caught:
        set_from_pb(message)
    assert (caught.value.reason, caught.value.field) == (reason, f"definitions.{field}")
