"""`Transport` for asyncio."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import grpc
import grpc.aio

from headrace.client.channel import CHANNEL_OPTIONS, metadata
from headrace.client.retries import Attempt, Pause, Retries, Steps, check_timeout
from headrace.errors import HeadraceError, InternalError, Unavailable
from headrace.status import from_rpc_error

T = TypeVar("T")
AsyncExchange = Callable[[bytes], Awaitable[bytes | None]]
_BROKEN_STREAM: Final = "Internal error from Core"  # what grpc.aio says of a write to a stream that is gone


class AsyncTransport:
    """Sends request bytes and returns answer bytes, within one event loop."""

    def __init__(
        self,
        target: str,
        token: str | None,
        credentials: grpc.ChannelCredentials | None,
        retries: Retries,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._metadata = metadata(token)
        self._retries = retries
        self._sleep = sleep
        self._channel = (
            grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, CHANNEL_OPTIONS)
        )
        self._methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    async def unary(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """See Transport.unary."""
        call = self._methods.get(method)
        if call is None:
            call = self._methods[method] = self._channel.unary_unary(method)

        async def send(left_s: float) -> bytes:
            answer: bytes = await call(request, timeout=left_s, metadata=self._metadata)
            return answer

        return await self._drive(timeout_s, send)

    async def stream(self, method: str, run: Callable[[AsyncExchange], Awaitable[T]], timeout_s: float) -> T:
        """What `run` returns, given a function from one request to its answer, None after the last one.

        One request at a time: a write that meets an ending stream makes grpc.aio forget why it ended.
        """
        method_call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(method)

        async def send(left_s: float) -> T:
            call = method_call(timeout=left_s, metadata=self._metadata)

            async def exchange(request: bytes) -> bytes | None:
                await call.write(request)
                answer = await call.read()
                return answer if isinstance(answer, bytes) else None

            try:
                result = await run(exchange)
                await call.done_writing()
                return result
            finally:
                call.cancel()  # no effect on a call that is over

        return await self._drive(timeout_s, send)

    async def close(self) -> None:
        """Closes the channel; calls in flight fail."""
        await self._channel.close()

    async def _drive(self, timeout_s: float, send: Callable[[float], Awaitable[T]]) -> T:
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
                await self._sleep(step.delay_s)
            else:
                outcome = await _attempt(step, send)


async def _attempt(step: Attempt, send: Callable[[float], Awaitable[T]]) -> T | HeadraceError:
    try:
        return await send(step.timeout_s)
    except grpc.RpcError as error:
        translated = from_rpc_error(error)
        if isinstance(translated, InternalError) and translated.message == _BROKEN_STREAM:
            translated = Unavailable("the connection broke in the middle of a stream", reason="STREAM_BROKEN")
        translated.__cause__ = error
        return translated
