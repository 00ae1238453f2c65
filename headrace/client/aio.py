"""The client for asyncio."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from headrace.client.batch import FeatureBatch, PreparedFeatures
from headrace.client.calls import (
    READ_DEFAULTS,
    READ_TIMEOUT_S_DEFAULT,
    WRITE_TIMEOUT_S_DEFAULT,
    Call,
    Durability,
    EraseResult,
    ReadOptions,
    Selection,
    delete_call,
    prepare_call,
    read_call,
)
from headrace.client.channel import CHANNEL_OPTIONS, INGEST, SERVICE, metadata
from headrace.client.entities import EntityValues
from headrace.client.ingest import BatchedWrite, WritableTable, WriteResult
from headrace.client.retries import Attempt, Pause, Retries, RetryBudget, RetryPolicy, Steps, check_timeout
from headrace.client.wire import malformed
from headrace.errors import HeadraceError
from headrace.status import from_rpc_error

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio, method for method; make it inside the running loop and close it, or use `async with`."""

    def __init__(
        self,
        target: str,
        *,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        retry_policy: RetryPolicy = RetryPolicy(),  # noqa: B008  (frozen)
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._metadata = metadata(token)
        self._retries = Retries(retry_policy, RetryBudget(), clock, uniform)
        self._sleep = sleep
        self._channel = (
            grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, CHANNEL_OPTIONS)
        )
        methods = ("GetOnlineFeatures", "PrepareFeatureSet", "DeleteEntity")
        self._methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {
            name: self._channel.unary_unary(SERVICE + name) for name in methods
        }
        self._ingest: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(INGEST)

    async def get_online_features(
        self,
        service: Selection = None,
        *,
        features: Sequence[str] = (),
        entities: Mapping[str, EntityValues],
        options: ReadOptions = READ_DEFAULTS,
        timeout_s: float = READ_TIMEOUT_S_DEFAULT,
    ) -> FeatureBatch:
        """See Client.get_online_features."""
        return await self._call(read_call(service, features, entities, options), timeout_s)

    async def prepare(
        self,
        service: str | None = None,
        *,
        features: Sequence[str] = (),
        timeout_s: float = READ_TIMEOUT_S_DEFAULT,
    ) -> PreparedFeatures:
        """See Client.prepare."""
        return await self._call(prepare_call(service, features), timeout_s)

    async def write_features(
        self,
        feature_view: str,
        table: WritableTable,
        *,
        durability: Durability = Durability.LOG,
        timeout_s: float = WRITE_TIMEOUT_S_DEFAULT,
        on_progress: Callable[[int], None] | None = None,
    ) -> WriteResult:
        """See Client.write_features."""
        write = BatchedWrite(feature_view, table, durability.message, on_progress)
        steps: Steps[WriteResult] = self._retries.steps(check_timeout(timeout_s))
        return await self._drive(steps, lambda left_s: self._stream(write, left_s))

    async def delete_entity(
        self,
        entity: str,
        keys: Mapping[str, EntityValues],
        *,
        durability: Durability = Durability.LOG,
        timeout_s: float = WRITE_TIMEOUT_S_DEFAULT,
    ) -> EraseResult:
        """See Client.delete_entity."""
        return await self._call(delete_call(entity, keys, durability), timeout_s)

    async def close(self) -> None:
        """Closes the channel; calls in flight fail."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, call: Call[T], timeout_s: float) -> T:
        method = self._methods[call.method]

        async def send(left_s: float) -> bytes:
            answer: bytes = await method(call.request, timeout=left_s, metadata=self._metadata)
            return answer

        steps: Steps[bytes] = self._retries.steps(check_timeout(timeout_s))
        return call.decode(await self._drive(steps, send))

    async def _drive(self, steps: Steps[T], send: Callable[[float], Awaitable[T]]) -> T:
        outcome: T | HeadraceError | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Pause):
                await self._sleep(step.delay_s)
                outcome = None
            else:
                outcome = await self._attempt(step, send)

    @staticmethod
    async def _attempt(step: Attempt, send: Callable[[float], Awaitable[T]]) -> T | HeadraceError:
        try:
            return await send(step.timeout_s)
        except grpc.RpcError as error:
            translated = from_rpc_error(error)
            translated.__cause__ = error
            return translated

    async def _stream(self, write: BatchedWrite, left_s: float) -> WriteResult:
        async for answer in self._ingest(write.requests(), timeout=left_s, metadata=self._metadata):
            write.acknowledge(answer)
        result = write.result()
        if result is None:
            raise malformed("a write stream ended before its last batch was acknowledged")
        return result
