"""Waits for the health service of a server."""

import time
from collections.abc import Callable
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.errors import Unavailable

CHECK_TIMEOUT_S: Final = 1.0  # of one question; a server that takes longer is not healthy
CHECK_INTERVAL_S: Final = 0.05


def await_serving(
    target: str,
    limit_s: float,
    *,
    service: str = "",
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Returns when the service says SERVING; raises Unavailable when it does not within the limit."""
    deadline = clock() + limit_s
    with grpc.insecure_channel(target) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        while not _is_serving(check, service):
            if clock() >= deadline:
                raise Unavailable(
                    f"the server at {target} is not healthy after {limit_s:.0f} s; look into its log",
                    reason="SERVER_NOT_HEALTHY",
                    metadata={"target": target, "service": service},
                )
            sleep(CHECK_INTERVAL_S)


def _is_serving(check: "Callable[..., health_pb2.HealthCheckResponse]", service: str) -> bool:
    try:
        answer = check(health_pb2.HealthCheckRequest(service=service), timeout=CHECK_TIMEOUT_S)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
