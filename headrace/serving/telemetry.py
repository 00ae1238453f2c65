"""Traces and metrics of one server: OpenTelemetry providers, OTLP export, a Prometheus endpoint on loopback."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Metric,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, start_http_server

from headrace.errors import FailedPrecondition
from headrace.serving.call_metrics import CallMetrics

LOOPBACK: Final = "127.0.0.1"
SAMPLE_ONE_IN: Final = 1_000  # calls without a trace of their own; a span costs about as much as a whole hot call
EXPORT_INTERVAL_MS: Final = 15_000
EXPORT_TIMEOUT_MS: Final = 2_000  # a collector that is gone must not hold up the end of the server
SPAN_QUEUE_MAX: Final = 2_048  # spans waiting for export; more are dropped, never waited for

_SCOPE: Final = InstrumentationScope("headrace")
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TRACEPARENT: Final = "traceparent"
_SAMPLED: Final = "headrace-sampled"  # set by the native loop, which takes it off what comes from outside
_SAMPLED_FLAG: Final = 1


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """Where telemetry goes; nothing leaves the process by default. Port 0 takes a free one, None serves none."""

    service_name: str
    metrics_port: int | None = None
    otlp_endpoint: str = ""
    sample_one_in: int = SAMPLE_ONE_IN


class Telemetry:
    """Owns the providers. `span_processors` are added for tests and other exporters."""

    def __init__(self, config: TelemetryConfig, span_processors: Sequence[SpanProcessor] = ()) -> None:
        self.calls = CallMetrics(time.time_ns)
        self._resource = Resource.create({"service.name": config.service_name})
        self._registry = CollectorRegistry()
        readers: list[MetricReader] = [_PrometheusReader(self._with_calls, self._registry)]
        processors = list(span_processors)
        if config.otlp_endpoint:
            exporter = OTLPMetricExporter(
                endpoint=config.otlp_endpoint, insecure=True, timeout=EXPORT_TIMEOUT_MS / 1_000
            )
            readers.append(_PeriodicReader(self._with_calls, exporter))
            spans = OTLPSpanExporter(endpoint=config.otlp_endpoint, insecure=True, timeout=EXPORT_TIMEOUT_MS / 1_000)
            processors.append(BatchSpanProcessor(spans, max_queue_size=SPAN_QUEUE_MAX))
        self._meter_provider = MeterProvider(readers, self._resource, shutdown_on_exit=False)
        self._meter = self._meter_provider.get_meter(_SCOPE.name)
        start_s = time.time()
        # A reader hands over nothing, and so none of the calls, while no instrument is registered.
        self.gauge("process.start_time", "When the process started, since the epoch.", lambda: [(start_s, {})], "s")
        self._tracer_provider = TracerProvider(resource=self._resource, shutdown_on_exit=False)
        for processor in processors:
            self._tracer_provider.add_span_processor(processor)
        self.tracer: Tracer = self._tracer_provider.get_tracer(_SCOPE.name)
        self.is_tracing = bool(processors)
        self.sample_one_in = config.sample_one_in
        self._unsampled = 0
        self.metrics_port, self._http = _serve_metrics(config.metrics_port, self._registry)

    def sampled_context(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> Context | None:
        """Parent context of a span for this call, or None where the call is not sampled. Decided at the head."""
        for key, value in metadata or ():
            if key == _TRACEPARENT:
                text = value if isinstance(value, str) else value.decode("ascii", "replace")
                return _PROPAGATOR.extract({_TRACEPARENT: text}) if _is_sampled(text) else None
            if key == _SAMPLED:
                return Context()
        self._unsampled += 1
        if self._unsampled < self.sample_one_in:
            return None
        self._unsampled = 0
        return Context()

    def gauge(
        self, name: str, description: str, read: Callable[[], Iterable[tuple[float, Mapping[str, str]]]], unit: str = ""
    ) -> None:
        """Registers an observed value; `read` gives values with their attributes."""
        self._meter.create_observable_gauge(name, [_observed(read)], unit, description)

    def counter(
        self, name: str, description: str, read: Callable[[], Iterable[tuple[float, Mapping[str, str]]]], unit: str = ""
    ) -> None:
        """Registers an observed total that never falls."""
        self._meter.create_observable_counter(name, [_observed(read)], unit, description)

    def close(self) -> None:
        """Sends what waits and stops the exporters and the endpoint."""
        self._tracer_provider.shutdown()
        self._meter_provider.shutdown(EXPORT_TIMEOUT_MS)
        if self._http is not None:
            server, thread = self._http
            server.shutdown()
            server.server_close()
            thread.join(EXPORT_TIMEOUT_MS / 1_000)

    def _with_calls(self, data: MetricsData | None) -> MetricsData:
        metrics: Sequence[Metric] = self.calls.metrics()
        scope = ScopeMetrics(_SCOPE, metrics, "")
        resources = list(data.resource_metrics) if data is not None else []
        return MetricsData([*resources, ResourceMetrics(self._resource, [scope], "")])


class _PrometheusReader(PrometheusMetricReader):
    """Adds the calls to what Prometheus reads."""

    def __init__(self, extend: Callable[[MetricsData | None], MetricsData], registry: CollectorRegistry) -> None:
        self._extend = extend
        super().__init__(disable_target_info=True, scope_info_enabled=False, registry=registry)

    def _receive_metrics(
        self,
        metrics_data: MetricsData | None,
        timeout_millis: float = 10_000,
        **kwargs: Any,  # as the base class has it
    ) -> None:
        super()._receive_metrics(self._extend(metrics_data), timeout_millis, **kwargs)


class _PeriodicReader(PeriodicExportingMetricReader):
    """Adds the calls to what is pushed."""

    def __init__(self, extend: Callable[[MetricsData | None], MetricsData], exporter: OTLPMetricExporter) -> None:
        self._extend = extend
        super().__init__(exporter, EXPORT_INTERVAL_MS, EXPORT_TIMEOUT_MS)

    def _receive_metrics(
        self,
        metrics_data: MetricsData | None,
        timeout_millis: float = 10_000,
        **kwargs: Any,  # as the base class has it
    ) -> None:
        super()._receive_metrics(self._extend(metrics_data), timeout_millis, **kwargs)


def _is_sampled(traceparent: str) -> bool:
    try:
        return bool(int(traceparent[-2:], 16) & _SAMPLED_FLAG)
    except ValueError:
        return False


def _observed(
    read: Callable[[], Iterable[tuple[float, Mapping[str, str]]]],
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def callback(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, attributes) for value, attributes in read()]

    return callback


def _serve_metrics(port: int | None, registry: CollectorRegistry) -> tuple[int, tuple[Any, threading.Thread] | None]:
    if port is None:
        return 0, None
    try:
        server, thread = start_http_server(port, LOOPBACK, registry)
    except OSError as error:
        raise FailedPrecondition(
            f"metrics port {port} cannot be bound: {error.strerror}; choose another with --metrics-port",
            reason="PORT_IN_USE",
            field="metrics_port",
            metadata={"port": str(port)},
        ) from error
    return server.server_port, (server, thread)
