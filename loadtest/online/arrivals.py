"""Open-loop arrivals: when calls are due, whatever the server does."""

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

USER_RATE: Final = 10.0  # calls a second of one simulated user at most; more users, not faster ones, make more load
RAMP_STEPS: Final = 10
SPIKE_FACTOR: Final = 5  # of the base rate, for the middle fifth of the run
SPIKE_STAGES: Final = 5


class Shape(StrEnum):
    """How the rate moves over a run."""

    STEADY = "steady"
    RAMP = "ramp"
    SPIKE = "spike"


@dataclass(frozen=True, slots=True)
class Load:
    """A shape with its rate and length. The rate of a ramp is its end, that of a spike its base."""

    shape: Shape
    rate: float
    duration_s: float

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.duration_s <= 0:
            raise ValueError(f"rate and duration must be positive, and are {self.rate} and {self.duration_s}")

    @property
    def user_rate(self) -> float:
        """Calls a second of one user: the rate split over as many users as it needs."""
        return self.rate / max(1, round(self.rate / USER_RATE))

    def rate_at(self, elapsed_s: float) -> float:
        """Calls a second that should arrive at a moment of the run; 0 after its end."""
        if elapsed_s >= self.duration_s:
            return 0.0
        share = elapsed_s / self.duration_s
        if self.shape is Shape.RAMP:
            return self.rate * (int(share * RAMP_STEPS) + 1) / RAMP_STEPS
        if self.shape is Shape.SPIKE and int(share * SPIKE_STAGES) == SPIKE_STAGES // 2:
            return self.rate * SPIKE_FACTOR
        return self.rate

    def users_at(self, elapsed_s: float) -> int:
        """Simulated users that make that rate."""
        return max(1, round(self.rate_at(elapsed_s) / self.user_rate))


class Arrivals:
    """Due times of one user's calls: a Poisson process from a seed, in seconds on the caller's clock."""

    def __init__(self, rate: float, start_s: float, seed: int) -> None:
        self._random = random.Random(seed)
        self._rate = rate
        self._due_s = start_s

    def next_due_s(self) -> float:
        """When the next call is due; never moved by how long calls take."""
        self._due_s += self._random.expovariate(self._rate)
        return self._due_s
