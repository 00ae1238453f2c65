"""Figures of a comparison: medians of alternating rounds, their spread, targets, and the one JSON object printed."""

import json
import math
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

ROUNDS_MIN: Final = 5  # fewer rounds do not give a median worth printing
Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; without a target it informs and cannot fail. A broken one fails whatever its value."""

    id: str
    rounds: tuple[float, ...]
    better: Better
    unit: str
    peer: str
    target: float | None = None
    note: str = ""
    context: dict[str, float | str] = field(default_factory=dict)
    broken: bool = False

    def __post_init__(self) -> None:
        if not self.rounds:
            raise ValueError(f"figure {self.id} has no rounds")

    @property
    def value(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the distance from the lower to the upper quartile, as a share of the median."""
        if len(self.rounds) < 2 or self.value == 0:
            return 0.0
        lower, _, upper = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return (upper - lower) / 2 / abs(self.value)

    @property
    def ok(self) -> bool:
        """Whether the target is met."""
        if self.broken or self.target is None:
            return not self.broken
        return self.value >= self.target if self.better == "higher" else self.value <= self.target

    def to_json(self) -> dict[str, object]:
        """The object that stands in the list of figures."""
        out: dict[str, object] = {"id": self.id, "value": rounded(self.value), "target": self.target}
        out |= {"better": self.better, "unit": self.unit, "peer": self.peer, "spread": rounded(self.spread)}
        out |= {"rounds": [rounded(one) for one in self.rounds], "ok": self.ok}
        return out | ({"note": self.note} if self.note else {}) | ({"context": self.context} if self.context else {})


@dataclass(frozen=True, slots=True)
class Missing:
    """A figure that could not be measured; it stays in the list and is not ok."""

    id: str
    target: float | None
    better: Better
    unit: str
    peer: str
    note: str
    required: bool = True

    @property
    def ok(self) -> bool:
        """False unless the scale does not ask for it."""
        return not self.required

    def to_json(self) -> dict[str, object]:
        """The object that stands in the list of figures."""
        out: dict[str, object] = {"id": self.id, "value": None, "target": self.target, "better": self.better}
        return out | {"unit": self.unit, "peer": self.peer, "rounds": [], "ok": self.ok, "note": self.note}


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one area and run."""

    area: str
    scale: dict[str, object]
    figures: tuple[Figure | Missing, ...]
    commit: str
    machine: str

    @property
    def ok(self) -> bool:
        """Whether every figure is."""
        return all(figure.ok for figure in self.figures)

    def to_json(self) -> str:
        """One line of JSON."""
        out: dict[str, object] = {"area": self.area, "commit": self.commit, "machine": self.machine}
        out |= {"scale": self.scale, "figures": [figure.to_json() for figure in self.figures], "ok": self.ok}
        return json.dumps(out, allow_nan=False)


def rounded(value: float) -> float:
    """Four significant digits: more would claim what the spread does not hold."""
    return float(f"{value:.4g}")


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, ...]:
    """One ratio per round, of the two that were measured in that round."""
    if len(numerators) != len(denominators):
        raise ValueError(f"{len(numerators)} rounds of one side and {len(denominators)} of the other")
    if any(one <= 0 for one in denominators):
        raise ValueError("a round of the denominator measured nothing")
    return tuple(mine / theirs for mine, theirs in zip(numerators, denominators, strict=True))


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of the samples do not exceed (nearest rank)."""
    if not samples:
        raise ValueError("a percentile of no samples")
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], and is {share}")
    ranked = sorted(samples)
    return ranked[math.ceil(share * len(ranked)) - 1]


def machine() -> str:
    """Processor, cores, memory and kernel of this machine, without its name."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Linux {platform.release()}"


def commit(root: Path) -> str:
    """Short commit of the working tree, with + where it has changes."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    return done.stdout.strip() or "unknown"
