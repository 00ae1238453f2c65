"""What a page of metrics says of streams."""

import math
from contextlib import closing

import pytest

from control_plane.cli.cluster.stream_metrics import StreamState, freshness_text, lag_text, state_of, stream_state
from feature_server.pipeline.meters import Meters
from headrace.serving.telemetry import Telemetry, TelemetryConfig

NOW_US = 1_767_225_600_000_000


def test_state_is_read_from_the_meters_of_a_pipeline() -> None:
    meters = Meters()
    with closing(Telemetry(TelemetryConfig("test", 0))) as telemetry:
        meters.observe(telemetry)
        assert stream_state(f"127.0.0.1:{telemetry.metrics_port}") is None, "no event and no partition yet"
        stage = meters.stage("apply", "shop.web.orders")
        for delay_s in [0.01] * 98 + [0.3, 7.0]:
            stage.took(1, 0, NOW_US, NOW_US - int(delay_s * 1e6), NOW_US)
        stage.took(0, 3, NOW_US, NOW_US, NOW_US)
        assert stream_state(f"127.0.0.1:{telemetry.metrics_port}") == StreamState(0, 100, 3, 0.5)


def test_lag_is_of_all_partitions_and_freshness_may_be_beyond_all_bounds() -> None:
    page = """# TYPE headrace_pipeline_lag gauge
headrace_pipeline_lag{partition="0",reader="a",topic="t"} 5.0
headrace_pipeline_lag{partition="1",reader="a",topic="t"} 1200.0
# TYPE headrace_pipeline_freshness_total counter
headrace_pipeline_freshness_total{le="60.0",source="s",stage="apply"} 1.0
headrace_pipeline_freshness_total{le="inf",source="s",stage="apply"} 4.0
"""
    state = state_of(page)
    assert state == StreamState(1_205, 0, 0, math.inf)
    assert (lag_text(state), freshness_text(state)) == ("1,205", "over a minute")


@pytest.mark.parametrize("page", ["", "no metrics {", "# TYPE other gauge\nother 1.0\n"])
def test_page_without_streams_tells_nothing(page: str) -> None:
    assert state_of(page) is None
    assert (lag_text(None), freshness_text(None)) == ("-", "-")


def test_nobody_at_the_address_tells_nothing() -> None:
    assert stream_state("127.0.0.1:1") is None
