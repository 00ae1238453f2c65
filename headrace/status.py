"""The one translator between HeadraceError and google.rpc.Status."""

from typing import Any, Final

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from headrace.convert.ring import ring_from_pb, ring_to_pb
from headrace.errors import BY_CODE, ERROR_DOMAIN, HeadraceError, InternalError, InvalidArgument
from headrace.ring.values import WRONG_EPOCH_REASON, WrongEpoch
from protos.ring.v1 import ring_pb2

RING_BYTES_MAX: Final = 8 << 10  # of a ring in trailers of 16 KiB; a larger one is asked for
_CODES: Final = {code.name: code.value[0] for code in grpc.StatusCode}
_NAMES: Final = {number: name for name, number in _CODES.items()}
_FOREIGN_REASON: Final = "TRANSPORT"


def to_status(error: HeadraceError) -> status_pb2.Status:
    """Status with one ErrorInfo, plus BadRequest where a field is named, RetryInfo where a retry helps, and the Ring
    that a request for another epoch should have been routed by.
    """
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata)
    details = [_packed(info)]
    if error.field and isinstance(error, InvalidArgument):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message, reason=error.reason
        )
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if error.retry_after_ms is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(error.retry_after_ms)
        details.append(_packed(retry))
    if isinstance(error, WrongEpoch):
        ring = ring_to_pb(error.ring)
        if ring.ByteSize() <= RING_BYTES_MAX:
            details.append(_packed(ring))
    return status_pb2.Status(code=_CODES.get(error.code, 2), message=error.message, details=details)


def from_rpc_error(error: grpc.RpcError) -> HeadraceError:
    """Error of our tree from what a call raised; a status without our ErrorInfo keeps its code."""
    # A blocking call raises itself, an asyncio call an AioRpcError; only their methods are alike.
    call: Any = error if hasattr(error, "trailing_metadata") else None
    status = None if call is None else rpc_status.from_call(call)
    if status is None:
        code = "UNKNOWN" if call is None else call.code().name
        detail = str(error) if call is None else call.details() or ""
        return BY_CODE.get(code, InternalError)(detail or code, reason=_FOREIGN_REASON, metadata={"code": code})
    return from_status(status)


def from_status(status: status_pb2.Status) -> HeadraceError:
    """Error of our tree from a status; details of other domains are ignored."""
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    ring = ring_pb2.Ring()
    field, retry_after_ms = "", None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            detail.Unpack(request)
            field = request.field_violations[0].field if request.field_violations else ""
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            detail.Unpack(retry)
            retry_after_ms = retry.retry_delay.ToMilliseconds()
        elif detail.Is(ring_pb2.Ring.DESCRIPTOR):
            detail.Unpack(ring)
    if info.reason == WRONG_EPOCH_REASON:
        return WrongEpoch(status.message, ring_from_pb(ring), dict(info.metadata))
    return BY_CODE.get(_NAMES.get(status.code, ""), InternalError)(
        status.message,
        reason=info.reason or _FOREIGN_REASON,
        field=field,
        metadata=dict(info.metadata),
        retry_after_ms=retry_after_ms,
    )


def _packed(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo | ring_pb2.Ring,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
