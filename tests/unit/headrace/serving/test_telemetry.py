"""Telemetry that leaves the process: a collector by OTLP, sampling, a taken port."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from headrace.errors import HeadraceError
from headrace.serving.call_metrics import CODE_NAMES, LATENCY_BOUNDS_S
from headrace.serving.telemetry import Telemetry, TelemetryConfig

TIMEOUT_S = 10.0


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[str] = []
        self.metrics: dict[str, object] = {}
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Export(self, request: object, context: object) -> object:
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            for resource in request.resource_spans:
                self.spans += [span.name for scope in resource.scope_spans for span in scope.spans]
            return trace_service_pb2.ExportTraceServiceResponse()
        assert isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest)
        for measured in request.resource_metrics:
            self.metrics |= {metric.name: metric for scope in measured.scope_metrics for metric in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def close(self) -> None:
        self._server.stop(0).wait(TIMEOUT_S)


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.close()


def test_spans_and_call_histograms_reach_a_collector(collector: Collector) -> None:
    telemetry = Telemetry(TelemetryConfig("test", otlp_endpoint=f"http://127.0.0.1:{collector.port}"))
    telemetry.calls.meter("/a.B/C", "unary").record(0.0007)
    telemetry.tracer.start_span("a.B/C").end()
    telemetry.close()
    assert collector.spans == ["a.B/C"]
    histogram = collector.metrics["rpc.server.call.duration"].histogram.data_points[0]  # type: ignore[attr-defined]
    assert histogram.count == 1
    assert list(histogram.explicit_bounds) == list(LATENCY_BOUNDS_S)
    assert histogram.bucket_counts[LATENCY_BOUNDS_S.index(0.0008)] == 1


def test_one_in_n_calls_without_a_trace_is_sampled() -> None:
    telemetry = Telemetry(TelemetryConfig("test", sample_one_in=3))
    assert [telemetry.sampled_context(()) is not None for _ in range(6)] == [False, False, True] * 2
    telemetry.close()


def test_taken_metrics_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(HeadraceError) as caught:
            Telemetry(TelemetryConfig("test", metrics_port=taken.getsockname()[1]))
    assert caught.value.reason == "PORT_IN_USE"


def test_concurrent_records_are_all_counted() -> None:
    telemetry = Telemetry(TelemetryConfig("test"))
    meter = telemetry.calls.meter("/a.B/C", "unary")

    def record() -> None:
        for _ in range(2_000):
            meter.record(0.001)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    started, ended = meter.snapshot()
    assert started == 8_000
    assert [(name, sum(counts)) for name, counts, _ in ended] == [("OK", 8_000)]
    telemetry.close()


def test_codes_are_in_the_order_of_their_numbers() -> None:
    assert CODE_NAMES[0] == "OK"
    assert CODE_NAMES[16] == "UNAUTHENTICATED"
