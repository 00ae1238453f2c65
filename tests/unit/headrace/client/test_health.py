"""Waiting for a server that becomes healthy, or does not."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from headrace.client.health import await_serving
from headrace.errors import Unavailable


def test_server_that_becomes_healthy_is_awaited() -> None:
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pauses: list[float] = []

    def sleep(delay_s: float) -> None:
        pauses.append(delay_s)
        servicer.set("", health_pb2.HealthCheckResponse.SERVING)

    await_serving(f"127.0.0.1:{port}", 10.0, sleep=sleep)
    assert len(pauses) == 1
    server.stop(None).wait()


def test_no_server_is_an_error_at_the_limit() -> None:
    now = iter(range(100))
    with pytest.raises(Unavailable, match="not healthy after 3 s") as caught:
        await_serving("127.0.0.1:1", 3.0, clock=lambda: float(next(now)), sleep=lambda delay_s: None)
    assert caught.value.reason == "SERVER_NOT_HEALTHY"
