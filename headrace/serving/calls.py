"""Puts a servicer behind gRPC: errors become statuses, calls are measured and traced, in one place for every server."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from time import perf_counter
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode, use_span

from headrace.errors import DeadlineExceeded, HeadraceError, InternalError, InvalidArgument
from headrace.serving.call_metrics import CODE_NAMES, OK, MethodMeter
from headrace.serving.logging import EventLog
from headrace.serving.telemetry import Telemetry
from headrace.status import to_status

Behaviour: TypeAlias = Callable[[Any, grpc.ServicerContext], Any]  # Any: requests differ per method

_CODES: Final = {name: number for number, name in enumerate(CODE_NAMES)}


class _Outcome:
    """What happens at the end of a call of one method."""

    def __init__(self, method: str, meter: MethodMeter, telemetry: Telemetry, log: EventLog) -> None:
        self.method = method
        self.meter = meter
        self.telemetry = telemetry
        self._log = log

    def refuse(self, error: Exception, context: grpc.ServicerContext, end: Callable[[int], None]) -> None:
        """Answers an error. What is not of our tree is our bug: it is logged whole and told as INTERNAL."""
        if not isinstance(error, HeadraceError):
            self._log.failure("call_failed", error, method=self.method)
            error = InternalError(f"{self.method} failed inside the server; its log has the reason", reason="INTERNAL")
        end(_CODES.get(error.code, _CODES["UNKNOWN"]))
        context.abort_with_status(rpc_status.to_status(to_status(error)))


def add_service(
    server: grpc.Server,
    service: ServiceDescriptor,
    servicer: object,
    telemetry: Telemetry,
    log: EventLog,
    *,
    raw: Mapping[str, Callable[[bytes, grpc.ServicerContext], bytes]] | None = None,
) -> None:
    """Serves every method of a service by the servicer's method of that name, or by `raw` from bytes to bytes.

    A method raises errors of headrace/errors.py; a streaming one may be a generator.
    """
    raw = raw or {}
    handlers = {}
    for method in service.methods:
        behaviour = raw.get(method.name) or getattr(servicer, method.name)
        outcome = _outcome(service, method, telemetry, log)
        handlers[method.name] = _handler(method, behaviour, outcome, is_raw=method.name in raw)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))


def _outcome(service: ServiceDescriptor, method: MethodDescriptor, telemetry: Telemetry, log: EventLog) -> _Outcome:
    name = f"/{service.full_name}/{method.name}"
    shape = ("client_stream", "bidi_stream") if method.client_streaming else ("unary", "server_stream")
    meter = telemetry.calls.meter(name, shape[method.server_streaming])
    return _Outcome(name, meter, telemetry, log)


def _handler(
    method: MethodDescriptor, behaviour: Behaviour, outcome: _Outcome, is_raw: bool
) -> "grpc.RpcMethodHandler[Any, Any]":
    # Requests are parsed inside the wrappers: gRPC would answer bytes that are no message without our reason.
    serialize = None if is_raw else _serialize
    if not is_raw:
        behaviour = _parsing(behaviour, method)
    if method.server_streaming:
        streaming = _streaming(behaviour, outcome)
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(streaming, None, serialize)
        return grpc.unary_stream_rpc_method_handler(streaming, None, serialize)
    unary = _unary(behaviour, outcome)
    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(unary, None, serialize)
    return grpc.unary_unary_rpc_method_handler(unary, None, serialize)


def _parsing(behaviour: Behaviour, method: MethodDescriptor) -> Behaviour:
    message_class = message_factory.GetMessageClass(method.input_type)

    def parse(data: bytes) -> Message:
        try:
            return message_class.FromString(data)
        except DecodeError as error:
            raise InvalidArgument(
                f"the bytes are no {method.input_type.name}: encode them with the published contract",
                reason="MALFORMED_REQUEST",
            ) from error

    def unary(request: bytes, context: grpc.ServicerContext) -> Any:
        return behaviour(parse(request), context)

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        return behaviour(map(parse, requests), context)

    return stream if method.client_streaming else unary


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _unary(behaviour: Behaviour, outcome: _Outcome) -> Behaviour:
    # This wrapper is on the path of every hot read: it binds what it needs and makes no objects.
    record = outcome.meter.record
    telemetry = outcome.telemetry
    is_tracing = telemetry.is_tracing

    def call(request: Any, context: grpc.ServicerContext) -> Any:
        start_s = perf_counter()
        try:
            if context.time_remaining() <= 0:
                raise _expired()
            parent = telemetry.sampled_context(context.invocation_metadata()) if is_tracing else None
            if parent is None:
                response = behaviour(request, context)
            else:
                response = _traced(behaviour, request, context, outcome, parent)
        except Exception as error:  # noqa: BLE001 - the outermost servicer answers everything
            outcome.refuse(error, context, lambda code: record(perf_counter() - start_s, code))
        else:
            record(perf_counter() - start_s)
            return response

    return call


def _expired() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline was over before the work began", reason="DEADLINE_EXCEEDED")


def _streaming(behaviour: Behaviour, outcome: _Outcome) -> Behaviour:
    meter = outcome.meter

    def call(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        start_s = perf_counter()
        meter.start()
        code = _CODES["CANCELLED"]  # when the caller leaves, the generator is closed where it stands

        def end(number: int) -> None:
            nonlocal code
            code = number

        try:
            yield from _responses(behaviour, request, context, outcome)
            code = OK
        except Exception as error:  # noqa: BLE001 - the outermost servicer answers everything
            outcome.refuse(error, context, end)
        finally:
            meter.finish(perf_counter() - start_s, code)

    return call


def _responses(
    behaviour: Behaviour, request: Any, context: grpc.ServicerContext, outcome: _Outcome
) -> Iterable[Message]:
    telemetry = outcome.telemetry
    parent = telemetry.sampled_context(context.invocation_metadata()) if telemetry.is_tracing else None
    if parent is None:
        yield from behaviour(request, context)
        return
    with telemetry.tracer.start_as_current_span(outcome.method.lstrip("/"), parent, SpanKind.SERVER):
        yield from behaviour(request, context)


def _traced(
    behaviour: Behaviour, request: Any, context: grpc.ServicerContext, outcome: _Outcome, parent: Context
) -> Any:
    name = outcome.method.lstrip("/")
    attributes = {"rpc.system.name": "grpc", "rpc.method": name}
    span = outcome.telemetry.tracer.start_span(name, parent, SpanKind.SERVER, attributes)
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            response = behaviour(request, context)
        except HeadraceError as error:
            span.set_attribute("rpc.response.status_code", error.code)
            span.set_attribute("error.type", error.reason)
            span.set_status(StatusCode.ERROR, error.reason)
            raise
        span.set_attribute("rpc.response.status_code", "OK")
        return response
