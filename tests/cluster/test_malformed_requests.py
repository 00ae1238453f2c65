"""Rows 18 and 19 of the fault table: oversized, cut, nested and flooded requests at a running server."""

import random
from typing import Final

import pytest

from protos.common.v1 import value_pb2
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.cluster import dataset, hostile
from tests.cluster.attack import CALL_LIMIT_S, ONLINE, SHARDS, require_refusals, row, send, write_rows
from tests.cluster.calls import Caller
from tests.cluster.history import LOG, Request, Write
from tests.cluster.processes import FeatureServer

pytestmark = pytest.mark.usefixtures("bystander")

UNARY: Final = (
    *(ONLINE + name for name in ("GetOnlineFeatures", "PrepareFeatureSet", "WriteFeatures", "DeleteEntity")),
    *(SHARDS + name for name in ("BatchGetRows", "ListShards")),
)
MESSAGE_BYTES_MAX: Final = 64 << 20  # what the server takes
DEFAULT_MESSAGE_BYTES: Final = 4 << 20  # what gRPC takes unless told otherwise
LENGTH_2_GIB: Final = (1 << 31) - 1
MUTATIONS: Final = 400
Value = value_pb2.Value


def good_requests() -> dict[str, bytes]:
    """A valid request of each unary method."""
    keys = [pb.EntityColumn(join_key="item_id", int64_values=[1_000_000_001])]
    return {
        UNARY[0]: dataset.read_request([1, 2]).SerializeToString(),
        UNARY[1]: pb.PrepareFeatureSetRequest(features=[f"{dataset.VIEW}:seq"]).SerializeToString(),
        UNARY[2]: write_rows([row(key=Value(int_value=100))]),
        UNARY[3]: pb.DeleteEntityRequest(entity=dataset.ENTITY, entity_columns=keys).SerializeToString(),
        UNARY[4]: hostile.field(2, b"0123456789") * 3,
        UNARY[5]: b"\x08\x05",
    }


@pytest.mark.parametrize("method", UNARY)
def test_request_cut_at_every_byte_is_refused_or_answered(caller: Caller, method: str) -> None:
    """Fault: the request ends at any byte. Outcome: one clear refusal, or the answer to what is left."""
    data = good_requests()[method]
    require_refusals(send(caller, method, data[:end]) for end in range(len(data)))


@pytest.mark.parametrize("method", UNARY)
def test_mutated_request_is_refused_or_answered(caller: Caller, method: str, source: random.Random) -> None:
    """Fault: bytes of the request are changed, doubled, removed at random. Outcome: a clear refusal, or an answer."""
    data = good_requests()[method]
    require_refusals(send(caller, method, _mutated(data, source)) for _ in range(MUTATIONS))


def _mutated(data: bytes, source: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(changed) or 1)
        match source.randrange(4):
            case 0:
                changed[at : at + 1] = source.randbytes(1)
            case 1:
                changed[at:at] = changed[at : at + source.randint(1, 16)]
            case 2:
                del changed[at : at + source.randint(1, 8)]
            case _:
                changed[at:at] = hostile.varint(source.getrandbits(64))
    return bytes(changed)


@pytest.mark.parametrize("method", UNARY)
def test_deep_nesting_is_refused(caller: Caller, method: str) -> None:
    """Fault: messages nested 10,000 deep, in known fields and in unknown ones.

    Outcome: refused within the limit, or answered where nothing reads the field.
    """
    known = hostile.field(3, hostile.field(3, hostile.field(2, hostile.nested((7, 1), 5_000))))
    unknown = hostile.nested((2_000,), 10_000)
    require_refusals(send(caller, method, data) for data in (known, unknown, good_requests()[method] + unknown))


@pytest.mark.parametrize("method", UNARY)
def test_unknown_fields_and_long_varints_are_bounded(caller: Caller, method: str) -> None:
    """Fault: 200,000 unknown fields; varints of eleven bytes; lengths of 2 GiB and of 2^63.

    Outcome: answered or refused within the limit.
    """
    good = good_requests()[method]
    attacks = [
        good + hostile.unknown_fields(200_000),
        good + b"\x08" + b"\xff" * 11,
        good + hostile.field(4, hostile.field(5, b"\xff" * 4_001)),
        good + b"\x22" + hostile.varint(LENGTH_2_GIB),
        good + b"\x22" + hostile.varint(1 << 63),
        good + b"\x0b" * 100_000,
    ]
    require_refusals(send(caller, method, data) for data in attacks)


@pytest.mark.parametrize("size", [DEFAULT_MESSAGE_BYTES - 1, DEFAULT_MESSAGE_BYTES, DEFAULT_MESSAGE_BYTES + 1])
def test_row_near_four_mebibytes_is_kept_or_refused(caller: Caller, size: int) -> None:
    """Fault: a message of 4 MiB and one byte less and more, all of it one row.

    Outcome: the same clear answer on both sides of gRPC's default; what is acknowledged is read back whole.
    """
    write = Write(110, dataset.event_time_us(size, 0), size)
    probe = dataset.write_request(Request("", LOG, (write,)), size - 200)
    message = dataset.write_request(Request("", LOG, (write,)), size - 200 + size - probe.ByteSize())
    assert message.ByteSize() == size
    refusal = send(caller, ONLINE + "WriteFeatures", message.SerializeToString())
    if refusal is None:
        assert caller.read([110])[0][0].seq == size
    else:
        require_refusals([refusal])


def test_message_past_the_limit_is_refused(caller: Caller) -> None:
    """Fault: a message of 64 MiB and one byte. Outcome: RESOURCE_EXHAUSTED."""
    refusal = send(caller, ONLINE + "WriteFeatures", bytes(MESSAGE_BYTES_MAX + 1))
    assert refusal is not None and refusal.code == "RESOURCE_EXHAUSTED"


def test_message_at_the_limit_is_refused_clearly(caller: Caller) -> None:
    """Fault: 64 MiB of unknown fields, of empty rows, of one string. Outcome: a clear refusal or an answer."""
    field_bytes = len(hostile.unknown_fields(1))
    attacks = [
        hostile.unknown_fields(MESSAGE_BYTES_MAX // field_bytes),
        hostile.field(3, b"") * (MESSAGE_BYTES_MAX // 8),
        hostile.field(1, b"x" * (MESSAGE_BYTES_MAX - 16)),
    ]
    require_refusals(send(caller, ONLINE + "WriteFeatures", data) for data in attacks[1:])
    require_refusals(send(caller, ONLINE + "GetOnlineFeatures", data) for data in attacks)


@pytest.mark.parametrize("length", [MESSAGE_BYTES_MAX + 1, LENGTH_2_GIB, (1 << 32) - 1])
def test_announced_length_is_not_reserved(attacked: FeatureServer, length: int) -> None:
    """Fault: a bare HTTP/2 connection announces a message of 2 GiB and more. Outcome: the call ends at once."""
    answer = hostile.announce(attacked.address, ONLINE + "WriteFeatures", length, CALL_LIMIT_S)
    assert answer, "the connection was cut without a word"


@pytest.mark.parametrize(
    "data",
    [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(4_096), hostile.PREFACE + b"\xff" * 4_096],
    ids=["nothing", "http1", "zeros", "bad frames"],
)
def test_connection_without_http2_is_closed(attacked: FeatureServer, data: bytes) -> None:
    """Fault: connections that do not speak HTTP/2. Outcome: they end without harm to others."""
    hostile.speak(attacked.address, data, CALL_LIMIT_S)


def test_too_many_rows_keys_and_features_are_refused(caller: Caller) -> None:
    """Fault: one row, key, feature, position over each bound. Outcome: a clear refusal that names the bound."""
    read = dataset.read_request(range(10_001))
    features = pb.GetOnlineFeaturesRequest(
        features=[f"{dataset.VIEW}:seq"] * 2_001,
        entity_columns=[pb.EntityColumn(join_key="item_id", int64_values=[1])],
    )
    tokens = dataset.read_request([1])
    tokens.options.min_offsets.extend(pb.WriteToken(shard=0) for _ in range(1_025))
    unequal = dataset.read_request([1])
    unequal.entity_columns.append(pb.EntityColumn(join_key="item_id", int64_values=[1, 2]))
    for message in (read, features, tokens, unequal):
        assert require_refusals([send(caller, ONLINE + "GetOnlineFeatures", message.SerializeToString())]) == 1
    many = write_rows([row()] * 10_001)
    assert require_refusals([send(caller, ONLINE + "WriteFeatures", many)]) == 1
