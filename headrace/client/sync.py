"""The blocking client."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import grpc

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
from headrace.client.closing import Closing
from headrace.client.entities import EntityValues
from headrace.client.handles import RenewedHandles, renewal
from headrace.client.ingest import BatchedWrite, WritableTable, WriteResult
from headrace.client.request_data import RequestData
from headrace.client.retries import RETRY_POLICY_DEFAULT, Retries, RetryBudget, RetryPolicy
from headrace.client.tls import Tls, channel_credentials
from headrace.client.transport import Exchange, Transport
from headrace.errors import CallerError

T = TypeVar("T")


class Client(Closing):
    """Reads and writes features over one channel; safe to share between threads. Close it, or use it in a with block.

    target is "host:port". The channel is TLS with `tls`, the file of the authority of the server's certificate or a Tls
    that also shows one, or with credentials of gRPC. token is sent as a bearer token.
    """

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
        self._clock = clock
        self._handles = RenewedHandles()
        retries = Retries(retry_policy, RetryBudget(), clock, uniform)
        self._transport = Transport(target, token, channel_credentials(tls, credentials), retries, sleep)

    def get_online_features(
        self,
        service: Selection = None,
        *,
        features: Sequence[str] = (),
        entities: Mapping[str, EntityValues],
        request_data: RequestData = None,
        options: ReadOptions = READ_DEFAULTS,
        timeout_s: float = READ_TIMEOUT_S_DEFAULT,
    ) -> FeatureBatch:
        """Features of a batch of entities, by service name, by what `prepare` returned or by a list of features.

        A handle that the server forgot, by a restart or a change of the registry, is prepared anew within the timeout.
        """
        deadline = self._clock() + timeout_s
        selection = self._handles.current(service)
        try:
            return self._call(read_call(selection, features, entities, options, request_data), timeout_s)
        except CallerError as error:
            call = renewal(error, selection)
            if call is None or not isinstance(selection, PreparedFeatures):
                raise
        prepared = self._call(call, deadline - self._clock())
        renewed = self._handles.renew(selection, prepared)
        return self._call(read_call(renewed, (), entities, options, request_data), deadline - self._clock())

    def prepare(
        self,
        service: str | None = None,
        *,
        features: Sequence[str] = (),
        timeout_s: float = READ_TIMEOUT_S_DEFAULT,
    ) -> PreparedFeatures:
        """A selection resolved once, with its columns and join keys."""
        return self._call(prepare_call(service, features), timeout_s)

    def write_features(
        self,
        feature_view: str,
        table: WritableTable,
        *,
        durability: Durability = Durability.LOG,
        timeout_s: float = WRITE_TIMEOUT_S_DEFAULT,
        on_progress: Callable[[int], None] | None = None,
    ) -> WriteResult:
        """Rows of one view version: a column per join key, "event_time" with a zone, a column per feature."""
        write = BatchedWrite(feature_view, table, durability.message, on_progress)
        return self._transport.stream(INGEST, lambda exchange: _stream(write, exchange), timeout_s)

    def delete_entity(
        self,
        entity: str,
        keys: Mapping[str, EntityValues],
        *,
        durability: Durability = Durability.LOG,
        timeout_s: float = WRITE_TIMEOUT_S_DEFAULT,
    ) -> EraseResult:
        """Erases every row of the named keys, in all views of the entity."""
        return self._call(delete_call(entity, keys, durability), timeout_s)

    def close(self) -> None:
        """Closes the channel; calls in flight fail."""
        self._transport.close()

    def _call(self, call: Call[T], timeout_s: float) -> T:
        return call.decode(self._transport.unary(SERVICE + call.method, call.request, timeout_s))


def _stream(write: BatchedWrite, exchange: Exchange) -> WriteResult:
    for answer in exchange(write.requests()):
        write.acknowledge(answer)
    return write.result()
