"""What `headrace lineage observe` reports, and what stops it."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from control_plane.cli import run_commands
from control_plane.cli.output import Format
from control_plane.cli.session import Session
from control_plane.domain.lineage.lineage import Lineage
from control_plane.domain.lineage.mirror import Mirror
from control_plane.store.lineage_store import SqlLineageStore
from control_plane.store.registry_store import SqlRegistryStore
from headrace.lineage.values import Run, RunData, RunState
from headrace.serving.principal import LOCAL
from tests.unit.control_plane.clock import Clock

RUNS = [
    Run(f"{number}b8b1c1e-2b5f-4b52-9d2a-1d3f6b1e7a10", "training_set", RunState.SUCCEEDED, 1_000, 2_000)
    for number in range(4)
]


class LineageClient:
    """Asks a lineage without a server in between."""

    def __init__(self, lineage: Lineage) -> None:
        self._lineage = lineage

    def record_run(self, run: Run) -> bool:
        return self._lineage.record_run(LOCAL, run)


class HereSession(Session):
    """A session whose lineage is given."""

    client: LineageClient

    @contextmanager
    def lineage(self) -> Iterator[LineageClient]:  # type: ignore[override]
        yield self.client


def document(run: Run) -> dict[str, Any]:
    """A run as the offline store tells it."""
    return {
        "run_id": run.run_id,
        "job": run.job,
        "is_done": True,
        "start_time_us": run.start_time_us,
        "end_time_us": run.end_time_us,
        "inputs": [[data.name, data.version] for data in run.inputs],
        "outputs": [[data.name, data.version] for data in run.outputs],
        "git_sha": run.git_sha,
        "kernel_version": run.kernel_version,
        "digests": dict(run.digests),
    }


def test_a_run_that_is_refused_stops_none_of_the_others(
    engine: Engine, store: SqlRegistryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SqlLineageStore(engine)
    lineage = Lineage(log, store, Mirror(log), Clock())
    for run in RUNS[:2]:
        lineage.record_run(LOCAL, run)
    other = replace(RUNS[1], outputs=(RunData("training_set:week"),))
    unknown = replace(RUNS[2], inputs=(RunData("shop.users.gone@v1"),))
    told = {"runs": [document(run) for run in (RUNS[0], other, unknown, RUNS[3])]}
    monkeypatch.setattr(run_commands, "run_job", lambda *_, **__: told)
    session = HereSession({}, form=Format.JSON, out=io.StringIO())
    session.client = LineageClient(lineage)
    run_commands.observe(session)
    assert isinstance(session.out, io.StringIO)
    first, second, third, last = (one["lineage"] for one in json.loads(session.out.getvalue())["runs"])
    assert (first, last) == ("known", "new")
    assert second.startswith("refused: run 1b8b1c1e") and "known with other data" in second
    assert third.startswith("refused: ") and "shop.users.gone@v1" in third
