"""Answers the reads that the native loop hands to the interpreter, with what the gRPC handler answers."""

import base64
import time
from collections.abc import Callable
from typing import Final, TypeAlias
from urllib.parse import quote

from feature_server.domain.reads import Reads
from headrace.errors import DeadlineExceeded, HeadraceError, InternalError, ResourceExhausted
from headrace.serving.auth import Authenticator
from headrace.serving.call_metrics import OK, MethodMeter
from headrace.serving.logging import EventLog
from headrace.status import to_status

READ_METHOD: Final = "/headrace.feature.v1.OnlineFeatureService/GetOnlineFeatures"
FULL_RETRY_MS: Final = 10  # a full queue is some hundred milliseconds of work for two cores; most leave before

Refusal: TypeAlias = tuple[int, bytes, bytes]
"""Code, grpc-message and grpc-status-details-bin as they stand in trailers."""

# What stands for itself in grpc-message: printable ASCII but the per cent sign.
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class MissReads:
    """Calls the read of the domain, measures it, and turns errors into trailers."""

    def __init__(
        self,
        reads: Reads,
        authenticator: Authenticator,
        meter: MethodMeter,
        log: EventLog,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reads = reads
        self._authenticator = authenticator
        self._meter = meter
        self._log = log
        self._monotonic = monotonic

    def answer(
        self, request: bytes, authorization: bytes, identity: bytes, begun_s: float, deadline_s: float | None
    ) -> bytes | Refusal:
        """The response, or why there is none. Raises nothing."""
        code = OK
        try:
            return self._read(request, authorization, identity, deadline_s)
        except HeadraceError as error:
            refused = refusal(error)
            code = refused[0]
            return refused
        except Exception as error:  # noqa: BLE001 - the outermost servicer answers everything
            self._log.failure("call_failed", error, method=READ_METHOD)
            refused = refusal(
                InternalError(f"{READ_METHOD} failed inside the server; its log has the reason", reason="INTERNAL")
            )
            code = refused[0]
            return refused
        finally:
            self._meter.record(self._monotonic() - begun_s, code)

    def _read(self, request: bytes, authorization: bytes, identity: bytes, deadline_s: float | None) -> bytes:
        def remaining() -> float | None:
            return None if deadline_s is None else deadline_s - self._monotonic()

        if deadline_s is not None and self._monotonic() >= deadline_s:
            raise DeadlineExceeded("the deadline was over before the work began", reason="DEADLINE_EXCEEDED")
        principal = self._authenticator.authenticate(authorization.decode("utf-8", "replace"), identity)
        return self._reads.get(principal, request, remaining)


def refusal(error: HeadraceError) -> Refusal:
    """An error as gRPC's trailers tell it."""
    status = to_status(error)
    details = base64.b64encode(status.SerializeToString()).rstrip(b"=")
    return status.code, quote(error.message, safe=_PLAIN).encode("ascii"), details


def no_memory() -> Refusal:
    """The refusal of a read whose answer finds no memory among those that wait for their readers."""
    return refusal(
        ResourceExhausted(
            "too many answers wait for their readers; try again later",
            reason="CONNECTION_MEMORY",
            retry_after_ms=FULL_RETRY_MS,
        )
    )


def full() -> Refusal:
    """The refusal of a read for which the queue has no room."""
    return refusal(
        ResourceExhausted(
            "too many reads wait for rows that are not in memory; try again later",
            reason="TOO_MANY_READS",
            retry_after_ms=FULL_RETRY_MS,
        )
    )
