"""The client for asyncio."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from headrace.client.aio_transport import AsyncExchange, AsyncTransport
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
from headrace.client.channel import INGEST, SERVICE
from headrace.client.entities import EntityValues
from headrace.client.handles import RenewedHandles, renewal
from headrace.client.ingest import BatchedWrite, WritableTable, WriteResult
from headrace.client.request_data import RequestData
from headrace.client.retries import RETRY_POLICY_DEFAULT, Retries, RetryBudget, RetryPolicy
from headrace.client.tls import Tls, channel_credentials
from headrace.errors import CallerError

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio, method for method; make it inside the running loop and close it, or use `async with`."""

    def __init__(
        self,
        target: str,
        *,
        token: str | None = None,
        tls: Tls | str | Path | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        retry_policy: RetryPolicy = RETRY_POLICY_DEFAULT,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._handles = RenewedHandles()
        retries = Retries(retry_policy, RetryBudget(), clock, uniform)
        self._transport = AsyncTransport(target, token, channel_credentials(tls, credentials), retries, sleep)

    async def get_online_features(
        self,
        service: Selection = None,
        *,
        features: Sequence[str] = (),
        entities: Mapping[str, EntityValues],
        request_data: RequestData = None,
        options: ReadOptions = READ_DEFAULTS,
        timeout_s: float = READ_TIMEOUT_S_DEFAULT,
    ) -> FeatureBatch:
        """See Client.get_online_features."""
        deadline = self._clock() + timeout_s
        selection = self._handles.current(service)
        try:
            return await self._call(read_call(selection, features, entities, options, request_data), timeout_s)
        except CallerError as error:
            call = renewal(error, selection)
            if call is None or not isinstance(selection, PreparedFeatures):
                raise
        prepared = await self._call(call, deadline - self._clock())
        renewed = self._handles.renew(selection, prepared)
        return await self._call(read_call(renewed, (), entities, options, request_data), deadline - self._clock())

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
        return await self._transport.stream(INGEST, lambda exchange: _stream(write, exchange), timeout_s)

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
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, call: Call[T], timeout_s: float) -> T:
        return call.decode(await self._transport.unary(SERVICE + call.method, call.request, timeout_s))


async def _stream(write: BatchedWrite, exchange: AsyncExchange) -> WriteResult:
    for request in write.requests():
        answer = await exchange(request)
        if answer is None:
            break
        write.acknowledge(answer)
    return write.result()
