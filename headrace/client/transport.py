"""One blocking channel that takes the steps of a call."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import grpc

from headrace.client.channel import CHANNEL_OPTIONS, metadata
from headrace.client.retries import Attempt, Pause, Retries, Steps, check_timeout
from headrace.client.tls import open_channel
from headrace.errors import HeadraceError
from headrace.status import from_rpc_error

T = TypeVar("T")
Exchange = Callable[[Iterator[bytes]], Iterator[bytes]]  # from the requests of a stream to its answers


class Transport:
    """Sends request bytes and returns answer bytes; safe to share between threads."""

    def __init__(
        self,
        target: str,
        token: str | None,
        credentials: grpc.ChannelCredentials | None,
        retries: Retries,
        sleep: Callable[[float], None],
    ) -> None:
        self._metadata = metadata(token)
        self._retries = retries
        self._sleep = sleep
        self._channel = open_channel(target, CHANNEL_OPTIONS, credentials)
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    def unary(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """Answer of one call; raises an error of our tree when it fails for good."""
        call = self._methods.get(method)
        if call is None:
            call = self._methods[method] = self._channel.unary_unary(method)
        return self._drive(timeout_s, lambda left_s: call(request, timeout=left_s, metadata=self._metadata))

    def stream(self, method: str, run: Callable[[Exchange], T], timeout_s: float) -> T:
        """What `run` returns for a stream; it is called again for each attempt."""
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(method)

        def send(left_s: float) -> T:
            return run(lambda requests: call(requests, timeout=left_s, metadata=self._metadata))

        return self._drive(timeout_s, send)

    def answers(self, method: str, request: bytes, timeout_s: float) -> Iterator[bytes]:
        """Answers of one call as they come, without a retry; closing the iterator ends the call."""
        call: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(method)
        stream = call(request, timeout=check_timeout(timeout_s), metadata=self._metadata)
        try:
            yield from stream
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            stream.cancel()

    def close(self) -> None:
        """Closes the channel; calls in flight fail."""
        self._channel.close()

    def _drive(self, timeout_s: float, send: Callable[[float], T]) -> T:
        steps: Steps[T] = self._retries.steps(check_timeout(timeout_s))
        outcome: T | HeadraceError | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result
            outcome = None
            if isinstance(step, Pause):
                self._sleep(step.delay_s)
            else:
                outcome = _attempt(step, send)


def _attempt(step: Attempt, send: Callable[[float], T]) -> T | HeadraceError:
    try:
        return send(step.timeout_s)
    except grpc.RpcError as error:
        translated = from_rpc_error(error)
        translated.__cause__ = error
        return translated
