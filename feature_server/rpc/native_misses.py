"""Answers the reads that the native loop hands to the interpreter, with what the gRPC handler answers."""

import base64
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias
from urllib.parse import quote

from feature_server.domain.reads import Asked, Reads
from headrace.errors import DeadlineExceeded, HeadraceError, InternalError, ResourceExhausted
from headrace.serving.auth import Authenticator
from headrace.serving.call_metrics import OK, MethodMeter
from headrace.serving.logging import EventLog
from headrace.status import to_status

READ_METHOD: Final = "/headrace.feature.v1.OnlineFeatureService/GetOnlineFeatures"
FULL_RETRY_MS: Final = 10  # a full queue is some hundred milliseconds of work for two cores; most leave before

Refusal: TypeAlias = tuple[int, bytes, bytes]
"""Code, grpc-message and grpc-status-details-bin as they stand in trailers."""

Missed: TypeAlias = tuple[bytes, bytes, bytes, float, float | None]
"""Request, authorization header, identity of a certificate, when it was handed over, and when its deadline is."""

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

    def answer(self, turn: Sequence[Missed]) -> list[bytes | Refusal]:
        """The response to each read, or why there is none. Raises nothing."""
        return [self._told(read, outcome) for read, outcome in zip(turn, self._outcomes(turn), strict=True)]

    def _outcomes(self, turn: Sequence[Missed]) -> list[bytes | HeadraceError]:
        try:
            begun = [self._begun(read) for read in turn]
            answers = iter(self._reads.get_turn([asked for asked in begun if not isinstance(asked, HeadraceError)]))
            return [asked if isinstance(asked, HeadraceError) else next(answers) for asked in begun]
        except Exception as error:  # noqa: BLE001 - the outermost servicer answers everything
            if len(turn) > 1:  # only the read that brings the fault out fails by it
                return [self._outcomes([read])[0] for read in turn]
            self._log.failure("call_failed", error, method=READ_METHOD)
            return [InternalError(f"{READ_METHOD} failed inside the server; its log has the reason", reason="INTERNAL")]

    def _begun(self, read: Missed) -> Asked | HeadraceError:
        request, authorization, identity, _, deadline_s = read

        def remaining() -> float | None:
            return None if deadline_s is None else deadline_s - self._monotonic()

        if deadline_s is not None and self._monotonic() >= deadline_s:
            return DeadlineExceeded("the deadline was over before the work began", reason="DEADLINE_EXCEEDED")
        try:
            principal = self._authenticator.authenticate(authorization.decode("utf-8", "replace"), identity)
        except HeadraceError as error:
            return error
        return principal, request, remaining

    def _told(self, read: Missed, outcome: bytes | HeadraceError) -> bytes | Refusal:
        told = refusal(outcome) if isinstance(outcome, HeadraceError) else outcome
        begun_s = read[3]
        self._meter.record(self._monotonic() - begun_s, OK if isinstance(told, bytes) else told[0])
        return told


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
