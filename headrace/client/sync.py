"""The blocking client."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

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
from headrace.client.channel import CHANNEL_OPTIONS, INGEST, SERVICE, metadata
from headrace.client.entities import EntityValues
from headrace.client.ingest import BatchedWrite, WritableTable, WriteResult
from headrace.client.retries import Attempt, Pause, Retries, RetryBudget, RetryPolicy, Steps, check_timeout
from headrace.client.wire import malformed
from headrace.errors import HeadraceError
from headrace.status import from_rpc_error

T = TypeVar("T")


class Client:
    """Reads and writes features over one channel; safe to share between threads. Close it, or use it in a with block.

    target is "host:port". With credentials the channel is TLS; token is sent as a bearer token.
    """

    def __init__(
        self,
        target: str,
        *,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        retry_policy: RetryPolicy = RetryPolicy(),  # noqa: B008  (frozen)
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._metadata = metadata(token)
        self._retries = Retries(retry_policy, RetryBudget(), clock, uniform)
        self._sleep = sleep
        self._channel = (
            grpc.insecure_channel(target, CHANNEL_OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, CHANNEL_OPTIONS)
        )
        methods = ("GetOnlineFeatures", "PrepareFeatureSet", "DeleteEntity")
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {
            name: self._channel.unary_unary(SERVICE + name) for name in methods
        }
        self._ingest: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(INGEST)

    def get_online_features(
        self,
        service: Selection = None,
        *,
        features: Sequence[str] = (),
        entities: Mapping[str, EntityValues],
        options: ReadOptions = READ_DEFAULTS,
        timeout_s: float = READ_TIMEOUT_S_DEFAULT,
    ) -> FeatureBatch:
        """Features of a batch of entities, by service name, by what `prepare` returned or by a list of features."""
        return self._call(read_call(service, features, entities, options), timeout_s)

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
        steps: Steps[WriteResult] = self._retries.steps(check_timeout(timeout_s))
        return self._drive(steps, lambda left_s: self._stream(write, left_s))

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
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, call: Call[T], timeout_s: float) -> T:
        method = self._methods[call.method]
        steps: Steps[bytes] = self._retries.steps(check_timeout(timeout_s))
        answer = self._drive(steps, lambda left_s: method(call.request, timeout=left_s, metadata=self._metadata))
        return call.decode(answer)

    def _drive(self, steps: Steps[T], send: Callable[[float], T]) -> T:
        outcome: T | HeadraceError | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Pause):
                self._sleep(step.delay_s)
                outcome = None
            else:
                outcome = self._attempt(step, send)

    @staticmethod
    def _attempt(step: Attempt, send: Callable[[float], T]) -> T | HeadraceError:
        try:
            return send(step.timeout_s)
        except grpc.RpcError as error:
            translated = from_rpc_error(error)
            translated.__cause__ = error
            return translated

    def _stream(self, write: BatchedWrite, left_s: float) -> WriteResult:
        for answer in self._ingest(write.requests(), timeout=left_s, metadata=self._metadata):
            write.acknowledge(answer)
        result = write.result()
        if result is None:
            raise malformed("a write stream ended before its last batch was acknowledged")
        return result
