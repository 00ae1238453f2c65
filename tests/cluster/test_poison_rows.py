"""Row 17 of the fault table: rows of the wrong type, shape, key or time, by hand and as Arrow, at a running server."""

import io
import random
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc
import numpy as np
import pyarrow as pa
import pytest

from headrace.status import from_rpc_error
from protos.common.v1 import value_pb2
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.cluster import dataset, hostile
from tests.cluster.attack import CALL_LIMIT_S, ONLINE, floats, require_refusals, row, send, timestamp, write_rows
from tests.cluster.calls import Caller

pytestmark = pytest.mark.usefixtures("bystander")

LENGTH_2_GIB: Final = (1 << 31) - 1

Value = value_pb2.Value
POISON: Final = {
    "text for a number": {"seq": Value(string_value="1")},
    "number for text": {"echo": Value(int_value=1)},
    "float for a whole number": {"seq": Value(float_value=1.0)},
    "list for a single value": {"seq": floats(1.0)},
    "single value for a list": {"vector": Value(float_value=1.0)},
    "list too short": {"vector": floats(1.0, 2.0)},
    "list too long": {"vector": floats(*range(5))},
    "list with a null": {"vector": Value(list_value=value_pb2.ValueList(values=[Value()] * 4))},
    "list of lists": {"vector": Value(list_value=value_pb2.ValueList(values=[floats(1.0)] * 4))},
    "feature that is unknown": {"seqs": Value(int_value=1)},
    "key of another type": {"key": Value(string_value="50")},
    "key that is null": {"key": Value()},
    "event time in the far future": {"event_time": timestamp(datetime.now(UTC) + timedelta(days=4_000))},
}


@pytest.mark.parametrize("name", POISON)
def test_poison_row_is_refused_whole(caller: Caller, name: str) -> None:
    """Fault: a row of the wrong type, shape or time in a batch with good ones.

    Outcome: INVALID_ARGUMENT with a reason and the field; no row of the batch is stored.
    """
    good = row(key=Value(int_value=51))
    refusal = send(caller, ONLINE + "WriteFeatures", write_rows([good, row(**POISON[name])]))
    assert refusal is not None and refusal.code in ("INVALID_ARGUMENT", "NOT_FOUND"), refusal
    assert require_refusals([refusal]) == 1
    assert refusal.field, refusal
    assert caller.read([51])[0][0].seq is None


def test_missing_event_time_and_key_are_refused(caller: Caller) -> None:
    """Fault: a row without its time, without its key, with two keys. Outcome: INVALID_ARGUMENT each."""
    without_time, without_key, two_keys = row(), row(), row()
    without_time.ClearField("event_time")
    without_key.ClearField("entity_keys")
    two_keys.entity_keys.append(Value(int_value=1))
    bad = [without_time, without_key, two_keys]
    assert require_refusals(send(caller, ONLINE + "WriteFeatures", write_rows([one])) for one in bad) == 3


def test_nan_and_infinities_are_kept(caller: Caller) -> None:
    """Fault: NaN, infinities and minus zero as values. Outcome: stored and read back bit for bit."""
    values = (float("nan"), float("inf"), float("-inf"), -0.0)
    assert (
        send(caller, ONLINE + "WriteFeatures", write_rows([row(key=Value(int_value=60), vector=floats(*values))]))
        is None
    )
    answer = caller.online.GetOnlineFeatures(dataset.read_request([60]), timeout=CALL_LIMIT_S)
    vector = answer.columns[dataset.FEATURES.index("vector")]
    assert vector.statuses[0] & 0x0F == pb.VALUE_STATE_PRESENT
    assert struct.pack("<4f", *values) == vector.values


def arrow_batch(**columns: pa.Array) -> bytes:
    """Arrow IPC stream of three good rows, with columns put in the place of their own or added; None leaves one out."""
    moments = [dataset.event_time_us(seq, 0) for seq in (1, 2, 3)]
    good = {
        "item_id": pa.array([70, 71, 72], pa.int64()),
        "event_time": pa.array(moments, pa.timestamp("us", tz="UTC")),
        "seq": pa.array([1, 2, 3], pa.int64()),
        "echo": pa.array(["70:1", "71:2", "72:3"]),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12), pa.float32()), 4),
        "payload": pa.array([b"a", b"b", b"c"]),
    } | columns
    table = pa.table({name: column for name, column in good.items() if column is not None})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def write_arrow(data: bytes) -> bytes:
    """A write of an Arrow IPC stream."""
    return pb.WriteFeaturesRequest(feature_view=dataset.VIEW, arrow_ipc=data).SerializeToString()


ARROW_POISON: Final = {
    "no bytes of Arrow": b"not arrow at all" * 10,
    "length of 2 GiB": b"\xff\xff\xff\xff" + struct.pack("<i", LENGTH_2_GIB) + bytes(64),
    "negative length": b"\xff\xff\xff\xff" + struct.pack("<i", -5) + bytes(64),
    "no key column": arrow_batch(item_id=None),
    "no event time": arrow_batch(event_time=None),
    "unknown column": arrow_batch(extra=pa.array([1, 2, 3])),
    "naive time": arrow_batch(event_time=pa.array([1, 2, 3], pa.timestamp("us"))),
    "null event time": arrow_batch(event_time=pa.array([1, None, 3], pa.timestamp("us", tz="UTC"))),
    "null key": arrow_batch(item_id=pa.array([1, None, 3], pa.int64())),
    "text key": arrow_batch(item_id=pa.array(["1", "2", "3"])),
    "list of another size": arrow_batch(
        vector=pa.FixedSizeListArray.from_arrays(pa.array(np.arange(9), pa.float32()), 3)
    ),
    "list with a null": arrow_batch(
        vector=pa.FixedSizeListArray.from_arrays(pa.array([None, *range(11)], pa.float32()), 4)
    ),
    "struct for a number": arrow_batch(seq=pa.array([{"a": 1}] * 3)),
    "dictionary of text": arrow_batch(
        echo=pa.array(["a", "b", "a"]).dictionary_encode(), payload=None, extra=pa.nulls(3)
    ),
}


@pytest.mark.parametrize("name", ARROW_POISON)
def test_poison_arrow_is_refused_whole(caller: Caller, name: str) -> None:
    """Fault: Arrow bytes that are none, or of another shape.

    Outcome: INVALID_ARGUMENT with a reason; nothing is stored.
    """
    refusal = send(caller, ONLINE + "WriteFeatures", write_arrow(ARROW_POISON[name]))
    assert refusal is not None and require_refusals([refusal]) == 1
    assert caller.read([70])[0][0].seq is None


def test_arrow_cut_at_every_byte_is_refused(caller: Caller) -> None:
    """Fault: the Arrow stream ends at any byte. Outcome: refused, or taken where only its end mark is missing."""
    data = arrow_batch(item_id=pa.array([80, 81, 82], pa.int64()))
    errors = [send(caller, ONLINE + "WriteFeatures", write_arrow(data[:end])) for end in range(len(data))]
    assert require_refusals(errors) > len(data) - 64


def test_arrow_with_a_flipped_byte_is_refused_or_taken(caller: Caller, source: random.Random) -> None:
    """Fault: any byte of the Arrow stream changes, buffer positions among them.

    Outcome: a clear refusal, or a write.
    """
    data = arrow_batch(item_id=pa.array([90, 91, 92], pa.int64()))
    errors = []
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= source.choice((0x01, 0x80, 0xFF))
        errors.append(send(caller, ONLINE + "WriteFeatures", write_arrow(bytes(damaged))))
    assert require_refusals(errors) > 0


def test_streams_of_poison_end_with_a_refusal(caller: Caller) -> None:
    """Fault: a stream of writes whose third message is malformed. Outcome: two answers, then a clear refusal."""
    good = hostile.field(1, write_rows([row(key=Value(int_value=120))]))
    call: Callable[..., Any] = caller.channel.stream_stream(
        ONLINE + "IngestFeatures", request_serializer=None, response_deserializer=None
    )
    answers = call(iter([good, good, b"\xff\xff\xff", good]), timeout=CALL_LIMIT_S)
    received = []
    with pytest.raises(grpc.RpcError) as caught:
        received.extend(answers)
    assert require_refusals([from_rpc_error(caught.value)]) == 1
    assert len(received) <= 2
