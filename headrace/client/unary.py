"""What clients of unary calls share: one channel, its retries, and its end."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import grpc

from headrace.client.closing import Closing
from headrace.client.retries import RETRY_POLICY_DEFAULT, Retries, RetryBudget, RetryPolicy
from headrace.client.tls import Tls, channel_credentials
from headrace.client.transport import Transport


class UnaryClient(Closing):
    """Calls the methods of `service`, a path such as "/package.v1.Service/", over one channel."""

    service: ClassVar[str]

    def __init__(
        self,
        target: str,
        *,
        token: str | None = None,
        tls: Tls | str | Path | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        retry_policy: RetryPolicy = RETRY_POLICY_DEFAULT,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        retries = Retries(retry_policy, RetryBudget(), clock, uniform)
        self._transport = Transport(target, token, channel_credentials(tls, credentials), retries, sleep)
        self._clock = clock
        self._sleep = sleep

    def close(self) -> None:
        """Closes the channel; calls in flight fail."""
        self._transport.close()

    def _unary(self, method: str, request: Any, timeout_s: float) -> bytes:  # Any: a generated message
        return self._transport.unary(self.service + method, request.SerializeToString(), timeout_s)
