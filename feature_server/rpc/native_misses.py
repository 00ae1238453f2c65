"""Answers the reads that the native loop hands to the interpreter, with what the gRPC handler answers."""

import base64
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Protocol, TypeAlias
from urllib.parse import quote

from feature_server.domain.fetches import Pending
from feature_server.domain.reads import Asked, Reads
from feature_server.ring.waits import Waits
from headrace.errors import DeadlineExceeded, HeadraceError, InternalError, ResourceExhausted
from headrace.serving.auth import Authenticator
from headrace.serving.call_metrics import OK, MethodMeter
from headrace.serving.logging import EventLog
from headrace.status import to_status

READ_METHOD: Final = "/headrace.feature.v1.OnlineFeatureService/GetOnlineFeatures"
AGAIN_COUNT: Final = 2  # threads for rows that were evicted while peers were asked for others
FULL_RETRY_MS: Final = 10  # a full queue is some hundred milliseconds of work for two cores; most leave before

Refusal: TypeAlias = tuple[int, bytes, bytes]
"""Code, grpc-message and grpc-status-details-bin as they stand in trailers."""


class Missed(Protocol):
    """A read of the loop: core_ext.native_loop.MissedRead."""

    @property
    def request(self) -> bytes:
        """The message."""

    @property
    def authorization(self) -> bytes:
        """The header, or nothing."""

    @property
    def identity(self) -> bytes:
        """That of a certificate, or nothing."""

    @property
    def begun_s(self) -> float:
        """When it was handed over, by the monotonic clock."""

    @property
    def deadline_s(self) -> float | None:
        """By the same clock."""

    def give(self, outcome: bytes | Refusal) -> None:
        """Ends it."""


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
        self._waits = Waits()
        self._again = ThreadPoolExecutor(AGAIN_COUNT, "read-again")

    def answer(self, turn: Sequence[Missed]) -> None:
        """Gives each read its response, or why there is none; to those that wait for peers later. Raises nothing."""
        for read, outcome in zip(turn, self._outcomes(turn), strict=True):
            self._settle(read, outcome)

    def close(self) -> None:
        """Ends the reads that wait for peers."""
        self._waits.close()
        self._again.shutdown()

    def _settle(self, read: Missed, outcome: bytes | HeadraceError | Pending) -> None:
        if isinstance(outcome, Pending):
            self._waits.add(outcome.sent, partial(self._resume, read, outcome))
            return
        told = refusal(outcome) if isinstance(outcome, HeadraceError) else outcome
        self._meter.record(self._monotonic() - read.begun_s, OK if isinstance(told, bytes) else told[0])
        read.give(told)

    def _resume(self, read: Missed, pending: Pending, fault: Exception | None) -> None:
        """On the thread of the waits: what has to be fetched again goes to others, as storage may make it wait."""
        try:
            if fault is not None:
                raise fault
            outcome = self._reads.resume(pending)
            if outcome is None:
                self._again.submit(self._fetch_again, read, pending)
                return
        except Exception as error:  # noqa: BLE001 - the outermost servicer answers everything
            outcome = self._failed(error)
        self._settle(read, outcome)

    def _fetch_again(self, read: Missed, pending: Pending) -> None:
        try:
            outcome = self._reads.fetch_again(pending)
        except Exception as error:  # noqa: BLE001 - the outermost servicer answers everything
            outcome = self._failed(error)
        self._settle(read, outcome)

    def _outcomes(self, turn: Sequence[Missed]) -> list[bytes | HeadraceError | Pending]:
        try:
            begun = [self._begun(read) for read in turn]
            answers = iter(self._reads.get_turn([asked for asked in begun if not isinstance(asked, HeadraceError)]))
            return [asked if isinstance(asked, HeadraceError) else next(answers) for asked in begun]
        except Exception as error:  # noqa: BLE001 - the outermost servicer answers everything
            if len(turn) > 1:  # only the read that brings the fault out fails by it
                return [self._outcomes([read])[0] for read in turn]
            return [self._failed(error)]

    def _failed(self, error: Exception) -> InternalError:
        self._log.failure("call_failed", error, method=READ_METHOD)
        return InternalError(f"{READ_METHOD} failed inside the server; its log has the reason", reason="INTERNAL")

    def _begun(self, read: Missed) -> Asked | HeadraceError:
        deadline_s = read.deadline_s

        def remaining() -> float | None:
            return None if deadline_s is None else deadline_s - self._monotonic()

        if deadline_s is not None and self._monotonic() >= deadline_s:
            return DeadlineExceeded("the deadline was over before the work began", reason="DEADLINE_EXCEEDED")
        try:
            principal = self._authenticator.authenticate(read.authorization.decode("utf-8", "replace"), read.identity)
        except HeadraceError as error:
            return error
        return principal, read.request, remaining


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
