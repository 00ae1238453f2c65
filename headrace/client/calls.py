"""Requests and answers of the online service as pure functions, for every transport alike."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from functools import lru_cache
from typing import Final, Generic, TypeVar

from headrace.client.batch import FeatureBatch, OutputColumn, Outputs, PreparedFeatures, value_type_of
from headrace.client.entities import EntityValues, encode_entities
from headrace.client.ingest import WriteToken, merge_tokens
from headrace.client.request_data import RequestData, encode_request_data
from headrace.errors import InvalidArgument
from headrace.types import Scalar
from protos.feature.v1 import online_feature_service_pb2 as pb

READ_TIMEOUT_S_DEFAULT: Final = 1.0  # a model waits for it; far above the p99 target of 10 ms
WRITE_TIMEOUT_S_DEFAULT: Final = 60.0  # a whole stream of batches
HANDLES_MAX: Final = 1_000  # whose request heads are kept; a model server reads a few
_ERASED_COLUMNS_FIELD: Final = pb.DeleteEntityRequest.DESCRIPTOR.fields_by_name["entity_columns"].number

T = TypeVar("T")


class ValueState(IntEnum):
    """State of one value, the low nibble of its status byte; see the contract."""

    PRESENT = pb.VALUE_STATE_PRESENT
    NULL = pb.VALUE_STATE_NULL
    MISSING = pb.VALUE_STATE_MISSING
    EXPIRED = pb.VALUE_STATE_EXPIRED
    UNAVAILABLE = pb.VALUE_STATE_UNAVAILABLE


class Durability(IntEnum):
    """When a write is acknowledged: in memory, after a process crash is survived, or after a power cut is."""

    MEMORY = pb.DURABILITY_MEMORY
    LOG = pb.DURABILITY_LOG
    FSYNC = pb.DURABILITY_FSYNC

    @property
    def message(self) -> "pb.Durability.ValueType":
        """Wire form."""
        return pb.Durability.Value(f"DURABILITY_{self.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Options of one read; see ReadOptions in the contract."""

    include_event_times: bool = False
    include_expired: bool = False
    fail_when_partial: bool = False
    max_staleness: timedelta | None = None
    min_offsets: Sequence[WriteToken] = ()

    def message(self) -> pb.ReadOptions:
        """Wire form."""
        policy = pb.PARTIAL_POLICY_FAIL if self.fail_when_partial else pb.PARTIAL_POLICY_UNSPECIFIED
        message = pb.ReadOptions(
            include_event_times=self.include_event_times,
            include_expired=self.include_expired,
            partial_policy=policy,
            min_offsets=[pb.WriteToken(shard=t.shard, epoch=t.epoch, offset=t.offset) for t in self.min_offsets],
        )
        if self.max_staleness is not None:
            message.max_staleness_duration.FromTimedelta(self.max_staleness)
        return message


READ_DEFAULTS: Final = ReadOptions()
Selection = str | PreparedFeatures | None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One unary call: the method, the request and how to read the answer."""

    method: str
    request: bytes
    decode: Callable[[bytes], T]


@dataclass(frozen=True, slots=True)
class EraseResult:
    """What an erasure reached."""

    tokens: tuple[WriteToken, ...]
    entity_count: int


def read_call(
    service: Selection,
    features: Sequence[str],
    entities: Mapping[str, EntityValues],
    options: ReadOptions,
    request_data: RequestData = None,
) -> Call[FeatureBatch]:
    """GetOnlineFeatures for a service, a prepared selection or a list of features."""
    prepared = service if isinstance(service, PreparedFeatures) else None
    if (service is not None) == bool(features):
        raise _one_selection()
    if prepared is not None:
        head = _default_head(prepared.handle) if options is READ_DEFAULTS else _head(prepared.handle, options)
    else:
        head = pb.GetOnlineFeaturesRequest(
            feature_service=_name(service), features=features, options=options.message()
        ).SerializeToString()
    columns = encode_entities(entities, prepared.join_keys if prepared else {})
    columns += encode_request_data(request_data, prepared.request_fields if prepared else {})
    outputs = prepared.columns if prepared else ()
    return Call(
        "GetOnlineFeatures",
        # Fields of a message may come in any order, so the columns need no copy through protobuf objects.
        head + columns,
        lambda answer: FeatureBatch(answer, outputs),
    )


def _head(handle: bytes, options: ReadOptions) -> bytes:
    return pb.GetOnlineFeaturesRequest(handle=handle, options=options.message()).SerializeToString()


@lru_cache(HANDLES_MAX)
def _default_head(handle: bytes) -> bytes:
    return _head(handle, READ_DEFAULTS)


def prepare_call(service: str | None, features: Sequence[str]) -> Call[PreparedFeatures]:
    """PrepareFeatureSet for a service or a list of features."""
    if (service is not None) == bool(features):
        raise _one_selection()
    request = pb.PrepareFeatureSetRequest(feature_service=service or "", features=features)
    return Call("PrepareFeatureSet", request.SerializeToString(), _decode_prepared)


def delete_call(entity: str, keys: Mapping[str, EntityValues], durability: Durability) -> Call[EraseResult]:
    """DeleteEntity for the keys of one entity."""
    request = pb.DeleteEntityRequest(entity=entity, durability=durability.message, request_id=str(uuid.uuid4()))
    columns = encode_entities(keys, {}, _ERASED_COLUMNS_FIELD)
    return Call("DeleteEntity", request.SerializeToString() + columns, _decode_erased)


def _name(service: Selection) -> str:
    return service if isinstance(service, str) else ""


def _decode_prepared(answer: bytes) -> PreparedFeatures:
    message = pb.PrepareFeatureSetResponse.FromString(answer)
    return PreparedFeatures(
        handle=message.handle,
        columns=Outputs(OutputColumn(c.name, c.feature, value_type_of(c.value_type)) for c in message.columns),
        join_keys={key.name: Scalar(key.scalar_type) for key in message.join_keys},
        registry_revision=message.registry_revision,
        feature_service=message.feature_service,
        request_fields={field.name: value_type_of(field.value_type) for field in message.request_fields},
    )


def _decode_erased(answer: bytes) -> EraseResult:
    message = pb.DeleteEntityResponse.FromString(answer)
    tokens: dict[int, WriteToken] = {}
    merge_tokens(tokens, message.tokens)
    return EraseResult(tuple(tokens.values()), message.entity_count)


def _one_selection() -> InvalidArgument:
    return InvalidArgument(
        "name exactly one selection: a service, a prepared handle or features=[...]",
        reason="SELECTION",
        field="service",
    )
