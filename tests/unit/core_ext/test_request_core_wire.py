"""The request core accepts what protobuf's own parser accepts and reads the same from it, mutated requests included."""

import random
from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from core_ext.request_core import Misses, Overlay, Plan, Refused, RequestCore, Unresolved
from core_ext.row_codec import Schema
from core_ext.row_table import RowTable
from core_ext.twin import request_core as twin
from core_ext.twin.requests import Refusal
from protos.feature.v1.online_feature_service_pb2 import GetOnlineFeaturesRequest
from tests.unit.core_ext.request_samples import (
    BYTES,
    F32,
    I64,
    SINGLE,
    STRING,
    KeyColumn,
    Sample,
    bytes_field,
    column_bytes,
    group,
    number_field,
    request_bytes,
    scrambled_request,
    varint,
)

READ_TIME_US = 1_700_000_000_000_000
HANDLE = bytes(range(32))
JOIN_KEYS = [("user", I64), ("city", STRING), ("blob", BYTES)]
LOOKUPS = [(1, [0]), (2, [1, 2])]
OUTPUTS = [("a", 0, 0, None), ("b", 1, 0, b"\0\0\x80?")]
TWIN_PLAN = twin.Plan(
    HANDLE,
    3,
    JOIN_KEYS,
    LOOKUPS,
    [twin.Group(number, 5 + number, 9, [(F32, SINGLE, 0)], 0, 0, 2) for number in range(2)],
    [twin.Output(*output) for output in OUTPUTS],
)
GROUPS = [(number, 5 + number, Schema(9, [(F32, SINGLE, 0)]), 0, 0, 2, None) for number in range(2)]
PLAN = Plan(HANDLE, 3, JOIN_KEYS, LOOKUPS, GROUPS, OUTPUTS)
TOKEN = bytes_field(6, number_field(1, 1) + number_field(2, 2) + number_field(3, -3))
STALENESS = bytes_field(5, number_field(1, 5) + number_field(2, 7))
SAMPLE = Sample(
    [
        KeyColumn("user", I64, [7, -8, 9], [0, 2]),
        KeyColumn("city", STRING, [b"a", "€".encode(), b"c"], [1]),
        KeyColumn("blob", BYTES, [b"\xff", b"b", b"c" * 20]),
    ],
    service="sé",
    options=[number_field(1, 1), number_field(2, 1), number_field(4, 1), STALENESS, TOKEN],
)
HANDLE_SAMPLE = Sample(SAMPLE.columns, handle=HANDLE, options=[number_field(3, 1)])
FEATURES_SAMPLE = Sample(SAMPLE.columns, features=["view@v1:a", "view@v1:b"])
SAMPLES = [SAMPLE, HANDLE_SAMPLE, FEATURES_SAMPLE]
ONE_ROW = [KeyColumn("user", I64, [7]), KeyColumn("city", STRING, [b"a"]), KeyColumn("blob", BYTES, [b"b"])]
BASE = request_bytes(Sample(ONE_ROW, service="s"))


class NothingStored(dict[bytes, twin.Row]):
    """Rows of a store that holds none."""

    def __missing__(self, key: bytes) -> None:
        return None


def outcome(request: bytes) -> bytes | tuple[str, str]:
    """The answer of a store without rows, or reason and field of the refusal."""
    core = RequestCore(RowTable(1 << 18), 8)
    try:
        found = core.serve(request, READ_TIME_US, PLAN)
        if isinstance(found, Misses):
            overlay = Overlay()
            overlay.add(found.storage_keys, [None] * len(found.storage_keys))
            found = core.serve(request, READ_TIME_US, PLAN, overlay)
    except Refused as refused:
        return refused.reason, refused.field
    assert isinstance(found, bytes)
    return found


def twin_outcome(request: bytes) -> bytes | tuple[str, str]:
    try:
        return twin.serve(request, TWIN_PLAN, NothingStored(), READ_TIME_US)
    except Refusal as refusal:
        return refusal.reason, refusal.field


def parsed(request: bytes) -> GetOnlineFeaturesRequest | None:
    """What protobuf reads, or None where it refuses."""
    try:
        return GetOnlineFeaturesRequest.FromString(request)
    except DecodeError:
        return None


def assert_agrees_with_protobuf(request: bytes) -> None:
    message, found = parsed(request), outcome(request)
    if message is None:
        assert isinstance(found, tuple), "protobuf refuses these bytes"
        return
    message.DiscardUnknownFields()
    straight = outcome(message.SerializeToString())
    if isinstance(found, bytes):
        assert straight == found
    else:
        assert found[0] not in ("MALFORMED_REQUEST", "ENTITY_KEY_NOT_UTF8"), "protobuf takes these bytes"
        assert isinstance(straight, tuple)


def mutated(rng: random.Random, request: bytes) -> bytes:
    """The request with one to five bytes changed, taken away or put in."""
    data = bytearray(request)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 5])):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            data[at : at + 1] = bytes([rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF, rng.randrange(256)])])
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[at : at + rng.choice([1, 2, 8])]
        elif kind == 3:
            data[at:at] = rng.choice([b"\x7b", b"\x7c", b"\x80", b"\xff" * 9, b"\x2a\x02\x01\x00", rng.randbytes(3)])
        else:
            other = rng.randrange(len(data) + 1)
            data[at:at] = data[other : other + rng.choice([1, 4, 16])]
    return bytes(data)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(SAMPLES), st.booleans())
def test_mutated_requests_are_read_as_protobuf_and_the_twin_do(seed: int, sample: Sample, scramble: bool) -> None:
    rng = random.Random(seed)
    start = scrambled_request(rng, sample) if scramble else request_bytes(sample)
    for _ in range(40):
        request = mutated(rng, start)
        assert_agrees_with_protobuf(request)
        assert outcome(request) == twin_outcome(request)


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_random_bytes_are_read_as_protobuf_and_the_twin_do(request: bytes) -> None:
    assert_agrees_with_protobuf(request)
    assert outcome(request) == twin_outcome(request)


@pytest.mark.parametrize("sample", SAMPLES, ids=["service", "handle", "features"])
def test_truncated_at_every_byte(sample: Sample) -> None:
    whole = request_bytes(sample)
    for end in range(len(whole)):
        assert_agrees_with_protobuf(whole[:end])
        assert outcome(whole[:end]) == twin_outcome(whole[:end])


@pytest.mark.parametrize("sample", SAMPLES, ids=["service", "handle", "features"])
def test_every_single_bit_flipped(sample: Sample) -> None:
    whole = request_bytes(sample)
    for bit in range(8 * len(whole)):
        request = bytearray(whole)
        request[bit // 8] ^= 1 << bit % 8
        assert_agrees_with_protobuf(bytes(request))


def in_column(body: bytes) -> bytes:
    user = bytes_field(4, column_bytes(ONE_ROW[0]) + body)
    return request_bytes(Sample(ONE_ROW[1:], service="s")) + user


def in_options(body: bytes) -> bytes:
    return BASE + bytes_field(6, body)


PLACES: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "request": (100, lambda body: BASE + body),
    "entity_column": (99, in_column),
    "options": (99, in_options),
    "staleness": (98, lambda body: in_options(bytes_field(5, body))),
    "min_offsets": (98, lambda body: in_options(bytes_field(6, body))),
}


@pytest.mark.parametrize("place", PLACES)
def test_groups_nest_as_deep_as_protobuf_lets_them(place: str) -> None:
    deepest, put = PLACES[place]
    for depth, is_accepted in ((deepest, True), (deepest + 1, False), (10_000, False)):
        request = put(varint(15 << 3 | 3) * depth + varint(15 << 3 | 4) * depth)
        assert (outcome(request) != ("MALFORMED_REQUEST", "")) == is_accepted
        assert (parsed(request) is not None) == is_accepted


@pytest.mark.parametrize(
    "body",
    [
        b"\xf8\x80\x80\x80\x00\x01",
        b"\xf8\x80\x80\x80\x80\x00\x01",
        varint((1 << 32) - 8) + b"\x01",
        varint((1 << 32) + (15 << 3)) + b"\x01",
        b"\x00\x01",
        b"\x03\x04",
        b"\x7b\x00\x01\x7c",
        b"\x7b\x7c",
        b"\x7b\x74",
        b"\x7c",
        b"\x7e\x00",
        b"\x7f\x00",
        b"\x7a\x81\x80\x80\x80\x00a",
        b"\x7a\x81\x80\x80\x80\x80\x00a",
        b"\x7a" + varint(1 << 31) + b"a",
        b"\x7a" + varint((1 << 32) + 1) + b"a",
        b"\x78" + b"\xff" * 9 + b"\x01",
        b"\x78" + b"\xff" * 9 + b"\x7f",
        b"\x78" + b"\xff" * 10 + b"\x01",
        b"\x0a\x01\xff",
        b"\x1a\x03\xed\xa0\x80",
    ],
    ids=lambda body: body.hex(),
)
def test_odd_fields_are_taken_or_refused_as_protobuf_does(body: bytes) -> None:
    for put in (lambda body: BASE + body, in_column, in_options):
        assert_agrees_with_protobuf(put(body))
        assert outcome(put(body)) == twin_outcome(put(body))


def test_numbers_are_cut_to_their_fields_as_protobuf_does() -> None:
    assert isinstance(outcome(BASE), bytes)
    plain = outcome(in_options(number_field(4, 1) + bytes_field(5, number_field(1, 1) + number_field(2, 1))))
    nanos = bytes_field(5, number_field(1, 1) + number_field(2, (7 << 32) + 1))
    assert outcome(in_options(number_field(4, (1 << 32) + 1) + nanos)) == plain
    assert outcome(in_column(bytes_field(5, varint(1 << 32)))) == outcome(in_column(bytes_field(5, b"\0")))


def test_of_an_option_sent_twice_the_last_one_counts() -> None:
    assert outcome(in_options(number_field(4, 99) + number_field(4, 1))) == outcome(in_options(number_field(4, 1)))
    split = [bytes_field(5, number_field(*part)) for part in ((1, -1), (1, 2), (2, 3))]
    merged_once = bytes_field(5, number_field(1, 2) + number_field(2, 3))
    assert outcome(in_options(b"".join(split))) == outcome(in_options(merged_once))


@pytest.mark.parametrize(
    "request_",
    [
        BASE + number_field(100, 1) * 500_000,
        BASE + varint(15 << 3 | 3) * 500_000,
        BASE + bytes_field(6, b"") * 300_000,
        in_column(bytes_field(5, b"\x80" * 1_000_000)),
        b"\x0a" + varint(2**31) + bytes(1_000_000),
        bytes_field(4, b"") * 300_000,
        bytes_field(3, b"") * 300_000 + bytes_field(4, bytes_field(3, b"") * 300_000),
        in_column(group(1, b"\x0a\x00" * 300_000)),
    ],
    ids=["unknown", "groups", "options", "varint", "length", "columns", "features", "group"],
)
@pytest.mark.timeout(20)
def test_floods_end_in_an_answer_or_a_refusal(request_: bytes) -> None:
    assert_agrees_with_protobuf(request_)


@pytest.mark.parametrize("sample", SAMPLES, ids=["service", "handle", "features"])
def test_an_unresolved_selection_names_what_was_asked_for(sample: Sample) -> None:
    request = scrambled_request(random.Random(1), sample)
    found = RequestCore(RowTable(1 << 18), 8).serve(request, READ_TIME_US)
    assert isinstance(found, Unresolved)
    assert (found.feature_service, found.handle, found.features) == (
        sample.service,
        sample.handle,
        list(sample.features),
    )


@settings(max_examples=100)
@given(st.integers(0, 2**32))
def test_wanted_offsets_are_those_that_protobuf_reads(seed: int) -> None:
    rng = random.Random(seed)
    request = request_bytes(SAMPLE)
    token = mutated(rng, number_field(1, rng.getrandbits(64)) + number_field(2, 2) + number_field(3, -3))
    request += bytes_field(6, bytes_field(6, token))
    message = parsed(request)
    if message is None:
        assert outcome(request) == ("MALFORMED_REQUEST", "")
        return
    found = RequestCore(RowTable(1 << 18), 8).serve(request, READ_TIME_US, PLAN)
    assert isinstance(found, Misses)
    offsets = message.options.min_offsets
    assert found.wants_offsets == [(token.shard, token.epoch, token.offset) for token in offsets]
