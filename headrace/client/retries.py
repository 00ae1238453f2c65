"""Deadline, backoff and retry budget of a call as steps that any transport can take."""

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, TypeVar

from headrace.errors import DeadlineExceeded, HeadraceError, Unavailable

BUDGET_TOKENS_MAX: Final = 10.0  # the throttle of gRPC's retry design: maxTokens
BUDGET_TOKEN_RATIO: Final = 0.1  # the same: tokens that a success gives back
ATTEMPTS_MAX: Final = 5  # the same: a longer chain only feeds an overload

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a call that met an unavailable server is tried again."""

    attempts_max: int = 4
    backoff_first_s: float = 0.02
    backoff_factor: float = 2.0
    backoff_max_s: float = 1.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not 1 <= self.attempts_max <= ATTEMPTS_MAX:
            raise ValueError(f"attempts_max is 1 to {ATTEMPTS_MAX}, not {self.attempts_max}")


RETRY_POLICY_DEFAULT: Final = RetryPolicy()


class RetryBudget:
    """Tokens that all calls of a client share: retries stop while more than half of them are spent."""

    def __init__(self) -> None:
        self._tokens = BUDGET_TOKENS_MAX
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """Gives a part of a token back."""
        with self._lock:
            self._tokens = min(BUDGET_TOKENS_MAX, self._tokens + BUDGET_TOKEN_RATIO)

    def failed(self) -> bool:
        """Takes a token; whether a retry is still allowed."""
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1)
            return self._tokens > BUDGET_TOKENS_MAX / 2


@dataclass(frozen=True, slots=True)
class Attempt:
    """Send the call now, with this much time."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next attempt."""

    delay_s: float


Step = Attempt | Pause
Steps = Generator[Step, T | HeadraceError | None, T]


@dataclass(frozen=True, slots=True)
class Retries:
    """Policy, budget, clock and randomness of one client."""

    policy: RetryPolicy
    budget: RetryBudget
    clock: Callable[[], float]
    random: Callable[[], float]

    def steps(self, timeout_s: float) -> "Steps[T]":
        """Yields what to do next and takes what came of an attempt; returns the answer or raises the last error."""
        deadline = self.clock() + timeout_s
        attempt = 0
        while True:
            attempt += 1
            outcome = yield Attempt(deadline - self.clock())
            assert outcome is not None, "an attempt is answered by what came of it"
            if not isinstance(outcome, HeadraceError):
                self.budget.succeeded()
                return outcome
            delay_s = self._delay_s(outcome, attempt)
            if delay_s is None or self.clock() + delay_s >= deadline:
                raise outcome
            yield Pause(delay_s)

    def _delay_s(self, error: HeadraceError, attempt: int) -> float | None:
        """Only an unavailable server is safe to ask again: it says that nothing was lost by not answering."""
        if not isinstance(error, Unavailable):
            return None
        if not self.budget.failed() or attempt >= self.policy.attempts_max:
            return None
        backoff_s = self.policy.backoff_first_s * self.policy.backoff_factor ** (attempt - 1)
        spread = 1 + self.policy.jitter * (2 * self.random() - 1)
        asked_s = (error.retry_after_ms or 0) / 1000
        return max(min(backoff_s, self.policy.backoff_max_s) * spread, asked_s)


def check_timeout(timeout_s: float) -> float:
    """The timeout, refused when it leaves no time at all."""
    if not timeout_s > 0:
        raise DeadlineExceeded(
            f"timeout_s is {timeout_s}; give a positive number of seconds",
            reason="DEADLINE_PASSED",
            field="timeout_s",
            metadata={"timeout_s": str(timeout_s)},
        )
    return timeout_s
