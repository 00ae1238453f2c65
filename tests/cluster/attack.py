"""Attacks on a running server: raw request bytes, the judgement of refusals, and a good client beside them."""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import grpc

from headrace.errors import HeadraceError
from headrace.status import from_rpc_error
from protos.common.v1 import value_pb2
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.cluster import dataset
from tests.cluster.calls import Caller, code_of
from tests.cluster.history import LOG, Request, Write
from tests.cluster.processes import FeatureServer

ONLINE: Final = "/headrace.feature.v1.OnlineFeatureService/"
SHARDS: Final = "/headrace.feature.v1.ShardService/"
REFUSALS: Final = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"}
CALL_LIMIT_S: Final = 10.0
GROWTH_BYTES_MAX: Final = 300 << 20  # allocators keep what the largest message took


@dataclass(slots=True)
class Bystander:
    """A good client beside the attack: how many of its reads were answered, and what else came."""

    answered_count: int = 0
    failures: str = ""
    slowest_s: float = 0.0


@contextmanager
def bystander_of(server: FeatureServer) -> Iterator[Bystander]:
    """Reads all through each attack; afterwards the same process must serve, within its memory."""
    pid, resident, events = server.server.pid, server.server.resident_bytes(), len(server.server.events())
    seen = Bystander()
    stop = threading.Event()

    def read() -> None:
        with Caller(server.address) as caller:
            while not stop.is_set():
                began = time.monotonic()
                try:
                    caller.read([1, 2, 3])
                except grpc.RpcError as error:
                    seen.failures += f"{code_of(error)} "
                seen.answered_count += 1
                seen.slowest_s = max(seen.slowest_s, time.monotonic() - began)

    thread = threading.Thread(target=read)
    thread.start()
    yield seen
    stop.set()
    thread.join()
    assert server.server.exit_code() is None, server.server.tail()
    assert server.server.pid == pid
    assert (seen.failures, seen.answered_count > 0) == ("", True)
    assert seen.slowest_s < CALL_LIMIT_S
    assert server.server.resident_bytes() - resident < GROWTH_BYTES_MAX
    with Caller(server.address) as caller:
        assert {shard.state for shard in caller.shards()} == {"SERVING"}
    failures = [event for event in server.server.events()[events:] if event["level"] == "error"]
    assert not failures, failures[:2]


def send(caller: Caller, method: str, data: bytes) -> HeadraceError | None:
    """The refusal of raw request bytes, None where they were answered."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = caller.channel.unary_unary(
        method, request_serializer=None, response_deserializer=None
    )
    try:
        call(data, timeout=CALL_LIMIT_S)
    except grpc.RpcError as error:
        return from_rpc_error(error)
    return None


def require_refusals(errors: Iterable[HeadraceError | None]) -> int:
    """Every refusal is the caller's mistake with a reason; returns how many there were."""
    refusals = [error for error in errors if error is not None]
    wrong = [f"{error.code} {error.reason}: {error}" for error in refusals if not _is_clear(error)]
    assert not wrong, wrong[:5]
    return len(refusals)


def _is_clear(error: HeadraceError) -> bool:
    return error.code in REFUSALS and error.reason not in ("", "TRANSPORT") and str(error) != ""


def row(**changes: Any) -> pb.FeatureRow:  # Any: values of several message types
    """A good row, with fields put in the place of its own."""
    request = dataset.write_request(Request("", LOG, (Write(50, dataset.event_time_us(1, 0), 1),)), 8)
    good = request.rows[0]
    for name, value in changes.items():
        if name == "event_time":
            good.event_time.CopyFrom(value)
        elif name == "key":
            good.entity_keys[0].CopyFrom(value)
        else:
            good.values[name].CopyFrom(value)
    return good


def write_rows(rows: Sequence[pb.FeatureRow]) -> bytes:
    """A write of hand-made rows."""
    return pb.WriteFeaturesRequest(feature_view=dataset.VIEW, rows=rows).SerializeToString()


def floats(*values: float) -> value_pb2.Value:
    """A list value."""
    items = [value_pb2.Value(float_value=value) for value in values]
    return value_pb2.Value(list_value=value_pb2.ValueList(values=items))


def timestamp(moment: datetime) -> Any:  # Any: generated class without a stub of its own here
    """A protobuf timestamp."""
    made = pb.FeatureRow().event_time
    made.FromDatetime(moment)
    return made
