"""A real server on loopback: errors, metrics, traces, health and refusals."""

import hashlib
import io
import json
import os
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace.errors import HeadraceError, InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from headrace.serving.auth import Authenticator, OpenAuthenticator, TokenAuthenticator
from headrace.serving.calls import add_service
from headrace.serving.logging import EventLog
from headrace.serving.permissions import method_permissions
from headrace.serving.principal import LOCAL
from headrace.serving.server import Health, add_health_and_reflection, bind, build_server, check_bind, drain
from headrace.serving.telemetry import Telemetry, TelemetryConfig
from headrace.status import from_rpc_error
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as pb_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["OnlineFeatureService"]
TIMEOUT_S = 10.0
NICENESS = b"niceness"  # a request for it
READ = "/headrace.feature.v1.OnlineFeatureService/GetOnlineFeatures"


def thread_niceness() -> int:
    """Of the calling thread, on Linux; elsewhere of the process."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id() if sys.platform == "linux" else 0)


class Servicer:
    """Answers each method in a way that a test looks for."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def PrepareFeatureSet(self, request: pb.PrepareFeatureSetRequest, context: object) -> pb.PrepareFeatureSetResponse:
        if request.feature_service == "bug":
            raise RuntimeError("secret of the inside")
        if request.feature_service == "none":
            raise NotFound("no such service", reason="UNKNOWN_FEATURE_SERVICE", metadata={"name": "none"})
        return pb.PrepareFeatureSetResponse(feature_service=self._authenticator.current_principal().name)

    def WriteFeatures(self, request: pb.WriteFeaturesRequest, context: object) -> pb.WriteFeaturesResponse:
        raise InvalidArgument("bad column", reason="UNKNOWN_COLUMN", field="rows[0]")

    def IngestFeatures(
        self, requests: Iterator[pb.IngestFeaturesRequest], context: object
    ) -> Iterator[pb.IngestFeaturesResponse]:
        for request in requests:
            if request.write.feature_view == "bad":
                raise InvalidArgument("bad view", reason="INVALID_NAME", field="feature_view")
            yield pb.IngestFeaturesResponse()

    def ImportFeatures(self, request: pb.ImportFeaturesRequest, context: object) -> Iterator[pb.ImportFeaturesResponse]:
        yield pb.ImportFeaturesResponse(done=True)

    def DeleteEntity(self, request: pb.DeleteEntityRequest, context: object) -> pb.DeleteEntityResponse:
        return pb.DeleteEntityResponse(entity_count=1)


class Running:
    """A server with its telemetry and log."""

    def __init__(self, authenticator: Authenticator, *, metrics_port: int | None = None, niceness: int = 0) -> None:
        self.stream = io.StringIO()
        self.spans = InMemorySpanExporter()
        config = TelemetryConfig("test", metrics_port=metrics_port, sample_one_in=1_000_000)
        self.telemetry = Telemetry(config, [SimpleSpanProcessor(self.spans)])
        self.health = Health()
        permissions = method_permissions(pb.DESCRIPTOR)
        self.server = build_server(authenticator, permissions, "127.0.0.1", worker_count=2, niceness=niceness)
        log = EventLog("test", time.time, self.stream)
        raw: dict[str, Callable[[bytes, object], bytes]] = {
            "GetOnlineFeatures": lambda request, context: (
                b"%d" % thread_niceness() if request == NICENESS else request[::-1]
            )
        }
        add_service(self.server, SERVICE, Servicer(authenticator), self.telemetry, log, raw=raw)
        add_health_and_reflection(self.server, self.health, [SERVICE.full_name])
        self.port = bind(self.server, "127.0.0.1", 0)
        self.server.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub = pb_grpc.OnlineFeatureServiceStub(self.channel)

    def close(self) -> None:
        self.channel.close()
        drain(self.server, self.health)
        self.telemetry.close()


@pytest.fixture
def running() -> Iterator[Running]:
    server = Running(OpenAuthenticator(), metrics_port=0)
    yield server
    server.close()


def failure(call: object) -> HeadraceError:
    with pytest.raises(grpc.RpcError) as caught:
        call()  # type: ignore[operator]
    return from_rpc_error(caught.value)


def test_raw_method_gets_and_gives_bytes(running: Running) -> None:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = running.channel.unary_unary(READ)
    assert call(b"abc", timeout=TIMEOUT_S) == b"cba"


@pytest.mark.parametrize("niceness", [0, 3])
def test_handlers_yield_the_processor_and_no_other_thread_does(niceness: int) -> None:
    before = thread_niceness()
    running = Running(OpenAuthenticator(), niceness=niceness)
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = running.channel.unary_unary(READ)
    try:
        found = int(call(NICENESS, timeout=TIMEOUT_S))
    finally:
        running.close()
    assert found == before + (niceness if sys.platform == "linux" else 0)
    assert thread_niceness() == before


def test_error_of_the_tree_keeps_reason_field_and_metadata(running: Running) -> None:
    error = failure(lambda: running.stub.WriteFeatures(pb.WriteFeaturesRequest(), timeout=TIMEOUT_S))
    assert (type(error), error.reason, error.field) == (InvalidArgument, "UNKNOWN_COLUMN", "rows[0]")


def test_unexpected_exception_answers_internal_without_its_text_and_is_logged(running: Running) -> None:
    request = pb.PrepareFeatureSetRequest(feature_service="bug")
    error = failure(lambda: running.stub.PrepareFeatureSet(request, timeout=TIMEOUT_S))
    assert error.code == "INTERNAL"
    assert "secret" not in error.message
    events = [json.loads(line) for line in running.stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["call_failed"]
    assert "secret of the inside" in events[0]["stack"]


@pytest.mark.parametrize("method", ["DeleteEntity", "ImportFeatures", "IngestFeatures"])
def test_bytes_that_are_no_message_are_refused_with_a_reason(running: Running, method: str) -> None:
    path = f"/{SERVICE.full_name}/{method}"
    channel: Any = running.channel  # Any: calls without a type of message
    calls: dict[str, Callable[[], object]] = {
        "DeleteEntity": lambda: channel.unary_unary(path)(b"\xff\xff", timeout=TIMEOUT_S),
        "ImportFeatures": lambda: next(channel.unary_stream(path)(b"\xff\xff", timeout=TIMEOUT_S)),
        "IngestFeatures": lambda: next(channel.stream_stream(path)(iter([b"\xff\xff"]), timeout=TIMEOUT_S)),
    }
    error = failure(calls[method])
    assert (type(error), error.reason) == (InvalidArgument, "MALFORMED_REQUEST")


def test_stream_error_comes_after_its_good_answers(running: Running) -> None:
    writes = [pb.WriteFeaturesRequest(feature_view=name) for name in ("good", "bad", "good")]
    answers = running.stub.IngestFeatures(
        iter(pb.IngestFeaturesRequest(write=write) for write in writes), timeout=TIMEOUT_S
    )
    assert next(answers) == pb.IngestFeaturesResponse()
    assert failure(lambda: next(answers)).reason == "INVALID_NAME"


def test_prometheus_endpoint_tells_calls_by_method_and_code(running: Running) -> None:
    running.stub.DeleteEntity(pb.DeleteEntityRequest(), timeout=TIMEOUT_S)
    failure(lambda: running.stub.WriteFeatures(pb.WriteFeaturesRequest(), timeout=TIMEOUT_S))
    url = f"http://127.0.0.1:{running.telemetry.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        text = answer.read().decode()
    ok = 'rpc_server_call_duration_seconds_count{rpc_method="headrace.feature.v1.OnlineFeatureService/DeleteEntity",'
    assert f'{ok}rpc_response_status_code="OK",rpc_system_name="grpc"}} 1.0' in text
    assert 'grpc_code="INVALID_ARGUMENT",grpc_method="WriteFeatures"' in text
    assert 'grpc_server_started_total{grpc_method="ImportFeatures"' in text


def test_sampled_traceparent_makes_a_span_with_its_trace(running: Running) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    metadata = (("traceparent", f"00-{trace}-b7ad6b7169203331-01"),)
    running.stub.DeleteEntity(pb.DeleteEntityRequest(), timeout=TIMEOUT_S, metadata=metadata)
    (span,) = running.spans.get_finished_spans()
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == trace
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"


def test_unsampled_and_malformed_traceparent_make_no_span(running: Running) -> None:
    for header in ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "zz", ""):
        metadata = (("traceparent", header),)
        running.stub.DeleteEntity(pb.DeleteEntityRequest(), timeout=TIMEOUT_S, metadata=metadata)
    assert running.spans.get_finished_spans() == ()


def test_every_call_is_local_without_tokens(running: Running) -> None:
    answer = running.stub.PrepareFeatureSet(pb.PrepareFeatureSetRequest(), timeout=TIMEOUT_S)
    assert answer.feature_service == LOCAL.name


def test_second_server_on_the_port_is_refused(running: Running) -> None:
    other = build_server(OpenAuthenticator(), {}, "127.0.0.1")
    with pytest.raises(HeadraceError) as caught:
        bind(other, "127.0.0.1", running.port)
    assert caught.value.reason == "PORT_IN_USE"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_host_beyond_loopback_is_refused_without_tokens(host: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_bind(host, has_auth=False)
    assert caught.value.reason == "BIND_WITHOUT_AUTH"
    check_bind(host, has_auth=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_loopback_needs_no_tokens(host: str) -> None:
    check_bind(host, has_auth=False)


TOKENS = """
tokens:
  - sha256: "{reader}"
    principal: models.reader
    permissions: [FEATURE_READ]
"""


def bearer(token: str) -> tuple[tuple[str, str | bytes], ...]:
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = tmp_path_factory.mktemp("tokens") / "tokens.yaml"
    path.write_text(TOKENS.format(reader=hashlib.sha256(b"reader-token").hexdigest()))
    log = EventLog("test", time.time, io.StringIO())
    server = Running(TokenAuthenticator(path, time.monotonic, log))
    yield server
    server.close()


def test_token_gives_its_principal(guarded: Running) -> None:
    request = pb.PrepareFeatureSetRequest()
    answer = guarded.stub.PrepareFeatureSet(request, timeout=TIMEOUT_S, metadata=bearer("reader-token"))
    assert answer.feature_service == "models.reader"


def test_missing_and_unknown_tokens_are_unauthenticated(guarded: Running) -> None:
    request = pb.PrepareFeatureSetRequest()
    missing = failure(lambda: guarded.stub.PrepareFeatureSet(request, timeout=TIMEOUT_S))
    assert (type(missing), missing.reason) == (Unauthenticated, "TOKEN_REQUIRED")
    unknown = failure(lambda: guarded.stub.PrepareFeatureSet(request, timeout=TIMEOUT_S, metadata=bearer("x")))
    assert (type(unknown), unknown.reason) == (Unauthenticated, "TOKEN_UNKNOWN")


def test_permission_that_is_not_held_is_denied_on_unary_and_stream(guarded: Running) -> None:
    metadata = bearer("reader-token")
    request = pb.DeleteEntityRequest()
    error = failure(lambda: guarded.stub.DeleteEntity(request, timeout=TIMEOUT_S, metadata=metadata))
    assert (type(error), error.metadata["permission"]) == (PermissionDenied, "FEATURE_ERASE")
    writes = iter([pb.IngestFeaturesRequest()])
    answers = guarded.stub.IngestFeatures(writes, timeout=TIMEOUT_S, metadata=metadata)
    assert failure(lambda: next(answers)).metadata["permission"] == "FEATURE_WRITE"


def test_health_is_open_and_changes_on_drain(guarded: Running) -> None:
    stub = health_pb2_grpc.HealthStub(guarded.channel)
    guarded.health.set("shard/3", is_serving=True)
    asked = health_pb2.HealthCheckRequest(service="shard/3")
    assert stub.Check(asked, timeout=TIMEOUT_S).status == health_pb2.HealthCheckResponse.SERVING
    guarded.health.drain()
    guarded.health.set("shard/3", is_serving=True)
    assert stub.Check(asked, timeout=TIMEOUT_S).status == health_pb2.HealthCheckResponse.NOT_SERVING
