"""Table `runs`: what every job read, wrote and became."""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField, StringType, TimestamptzType

from batch.offline.catalogue import OWN_NAMESPACE, Catalogue
from headrace.errors import Aborted, HeadraceError, NotFound

IDENTIFIER: Final = (*OWN_NAMESPACE, "runs")
COMMIT_TRIES_MAX: Final = 16
DETAIL_LENGTH_MAX: Final = 1_000
RUNNING: Final = "RUNNING"
SUCCEEDED: Final = "SUCCEEDED"
FAILED: Final = "FAILED"

_TEXTS: Final = ("run_id", "kind", "state", "inputs", "snapshots", "kernel_version", "git_sha", "detail")
_TIME: Final = pa.timestamp("us", tz="UTC")
_ARROW: Final = pa.schema([
    *(pa.field(name, pa.string(), nullable=False) for name in _TEXTS),
    pa.field("start_time", _TIME, nullable=False),
    pa.field("end_time", _TIME),
])  # fmt: skip
_ICEBERG: Final = Schema(
    *(NestedField(number, name, StringType(), required=True) for number, name in enumerate(_TEXTS, start=1)),
    NestedField(len(_TEXTS) + 1, "start_time", TimestamptzType(), required=True),
    NestedField(len(_TEXTS) + 2, "end_time", TimestamptzType(), required=False),
)


@dataclass(slots=True)
class Run:
    """One run of a job while it goes on; the job notes here what it reads and writes."""

    run_id: str
    kind: str
    inputs: Mapping[str, str]
    start_time_us: int
    snapshots: dict[str, int] = field(default_factory=dict)  # table to snapshot, read or written


@dataclass(frozen=True, slots=True)
class Provenance:
    """What code runs; the git sha says where it came from, and identifies nothing."""

    kernel_version: str
    git_sha: str = ""


class Runs:
    """Writes a row when a run begins and one when it ends; the newer one counts."""

    def __init__(self, catalogue: Catalogue, provenance: Provenance, clock_us: Callable[[], int]) -> None:
        self._catalogue = catalogue
        self._provenance = provenance
        self._clock_us = clock_us

    @contextmanager
    def run(self, kind: str, inputs: Mapping[str, str], run_id: str = "") -> Iterator[Run]:
        """The frame of every job: RUNNING inside, then SUCCEEDED or FAILED with the error, which goes on its way."""
        run = Run(run_id or str(uuid.uuid4()), kind, dict(inputs), self._clock_us())
        self._write(run, RUNNING)
        try:
            yield run
        except BaseException as error:
            self._write(run, FAILED, _detail(error))
            raise
        self._write(run, SUCCEEDED)

    def list(self) -> Sequence[Mapping[str, Any]]:  # Any: text, time or None
        """The newest row of every run, in the order in which they began. A killed run stays RUNNING."""
        try:
            table = self._catalogue.load(IDENTIFIER)
        except NotFound:
            return []
        rows = table.scan().to_arrow().to_pylist()
        newest: dict[str, Mapping[str, Any]] = {}
        for row in sorted(rows, key=lambda row: row["end_time"] is not None):
            documents = {name: json.loads(row[name]) for name in ("inputs", "snapshots")}
            newest[row["run_id"]] = {**row, **documents}
        return sorted(newest.values(), key=lambda row: (row["start_time"], row["run_id"]))

    def _write(self, run: Run, state: str, detail: str = "") -> None:
        row = {
            "run_id": run.run_id,
            "kind": run.kind,
            "state": state,
            "inputs": json.dumps(run.inputs, sort_keys=True),
            "snapshots": json.dumps(run.snapshots, sort_keys=True),
            "kernel_version": self._provenance.kernel_version,
            "git_sha": self._provenance.git_sha,
            "detail": detail[:DETAIL_LENGTH_MAX],
            "start_time": run.start_time_us,
            "end_time": None if state == RUNNING else self._clock_us(),
        }
        rows = pa.Table.from_pylist([row], _ARROW)
        for _ in range(COMMIT_TRIES_MAX):
            try:
                self._catalogue.table(IDENTIFIER, _ICEBERG).append(rows)
            except CommitFailedException:
                continue
            return
        raise Aborted("the table of runs is busy; try again", reason="TABLE_BUSY")


def _detail(error: BaseException) -> str:
    return f"{error.reason}: {error.message}" if isinstance(error, HeadraceError) else type(error).__name__
