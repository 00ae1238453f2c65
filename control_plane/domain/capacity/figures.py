"""Recorded figures of load tests: what one core did, on which machine, at which commit."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from headrace.errors import FailedPrecondition

_CORES: Final = re.compile(r"(\d+) cores")
MICROSECONDS: Final = 1_000_000
READ_FIGURE: Final = "headrace_cpu_us_1x200"  # one entity, 200 features


@dataclass(frozen=True, slots=True)
class PerCore:
    """How much of something one core does in a second. `note` says what the figure leaves out."""

    rate: float
    figure: str
    file: str
    commit: str
    note: str = ""
    features: int = 0  # of one request, where it counts requests

    @property
    def origin(self) -> str:
        """Where the figure stands."""
        return f"{self.file} {self.figure}@{self.commit}"


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that a plan is made of."""

    requests: PerCore
    rows: PerCore
    events: PerCore
    memory_factor: float  # memory of a row in the row table, to its packed bytes
    memory_origin: str
    cached_share: float  # part of the rows that the recorded latencies had in memory
    cached_origin: str


class Results:
    """A folder of results."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Mapping[str, Any] | None] = {}  # Any: JSON values

    def measured(self) -> Measured:
        """Raises FailedPrecondition where a figure that the plan needs was never recorded."""
        memory, online = self._figure("online.json", "memory_per_row_vs_packed"), self._file("online.json")
        shapes = self._file("shapes.json")
        if memory is None or online is None or shapes is None or "cache_share" not in shapes.get("scale", {}):
            raise self._missing(
                "online.json memory_per_row_vs_packed and shapes.json cache_share", "online and loadtest.peers.shapes"
            )
        return Measured(
            self._requests(),
            self._rows(),
            self._events(),
            memory,
            "online.json memory_per_row_vs_packed",
            float(shapes["scale"]["cache_share"]),
            "shapes.json scale.cache_share",
        )

    def _requests(self) -> PerCore:
        used_us = self._figure("online.json", READ_FIGURE)
        if used_us is None:
            raise self._missing(f"online.json {READ_FIGURE}", "online")
        found = self._per_core(MICROSECONDS / used_us, READ_FIGURE, "online.json", "CPU of the server")
        return replace(found, features=int(READ_FIGURE.rpartition("x")[2]))

    def _rows(self) -> PerCore:
        rate, told = self._figure("online.json", "headrace_write_existing_rows"), self._file("online.json")
        cores = _CORES.search(str(told.get("machine", ""))) if told is not None else None
        if rate is None or cores is None:
            raise self._missing("online.json headrace_write_existing_rows", "online")
        note = f"all {cores[1]} cores of the machine, the client's included"
        return self._per_core(rate / int(cores[1]), "headrace_write_existing_rows", "online.json", note)

    def _events(self) -> PerCore:
        rate = self._figure("stream.json", "stream_events_per_s_per_core_arrow")
        if rate is not None:
            return self._per_core(rate, "stream_events_per_s_per_core_arrow", "stream.json", "worker and server")
        rate = self._figure("windows.json", "window_events_per_s")
        if rate is None:
            raise self._missing("stream.json stream_events_per_s_per_core_arrow", "stream")
        note = (
            "the window kernel alone: a lower bound of cores, until python -m loadtest.peers.stream has recorded the "
            "pipeline"
        )
        return self._per_core(rate, "window_events_per_s", "windows.json", note)

    def _per_core(self, rate: float, figure: str, file: str, note: str) -> PerCore:
        told = self._file(file)
        return PerCore(rate, figure, file, str(told.get("commit", "?")) if told is not None else "?", note)

    def _figure(self, file: str, name: str) -> float | None:
        told = self._file(file)
        found = [one["value"] for one in told["figures"] if one.get("id") == name] if told is not None else []
        return float(found[0]) if found and found[0] else None

    def _file(self, name: str) -> Mapping[str, Any] | None:
        if name not in self._read:
            self._read[name] = self._parsed(self._folder / name)
        return self._read[name]

    def _parsed(self, path: Path) -> Mapping[str, Any] | None:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._broken(path) from error
        if not isinstance(told, dict) or not isinstance(told.get("figures"), list):
            raise self._broken(path)
        return told

    def _broken(self, path: Path) -> FailedPrecondition:
        return FailedPrecondition(
            f"{path} is no result of a load test; name the folder of results with --results",
            reason="BAD_RESULTS",
            field="--results",
            metadata={"file": str(path)},
        )

    def _missing(self, what: str, module: str) -> FailedPrecondition:
        return FailedPrecondition(
            f"{self._folder} has no {what}; run python -m loadtest.peers.{module}, or name the folder of results with "
            "--results",
            reason="FIGURE_MISSING",
            field="--results",
            metadata={"figure": what},
        )
