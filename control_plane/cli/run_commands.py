"""What `headrace lineage observe` and `record` report: runs of jobs, ours and those of others."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from control_plane.cli.amounts import parse_time_us
from control_plane.cli.output import Format, print_document, print_table
from control_plane.cli.session import Session
from control_plane.cli.worker import run_job
from headrace.errors import AlreadyExists, InvalidArgument
from headrace.lineage.values import Run, RunData, RunState


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """A run as a person types it."""

    job: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    start: str | None = None
    end: str | None = None
    git_sha: str = ""
    run_id: str | None = None


def observe(session: Session) -> None:
    """Reports every run of the offline store; those that lineage knows stay as they are."""
    found = run_job(session, "lineage_runs", {}, needs_registry=False)["runs"]
    rows = []
    with session.lineage() as client:
        for document in found:
            run = _run(document)
            try:
                state = "new" if client.record_run(run) else "known"
            except (InvalidArgument, AlreadyExists) as error:  # unknown data, or known otherwise; the others go on
                state = f"refused: {error.message}"
            rows.append((run.run_id, run.job, run.state.name.lower(), state))
    if session.form is Format.TABLE:
        print_table(("run", "job", "state", "lineage"), rows, session.out)
    else:
        names = ("run_id", "job", "state", "lineage")
        print_document({"runs": [dict(zip(names, row, strict=True)) for row in rows]}, session.form, session.out)


def record(session: Session, reported: ReportedRun) -> None:
    """Reports one run that has succeeded."""
    end_us = time.time_ns() // 1_000 if reported.end is None else parse_time_us(reported.end, "--end")
    run = Run(
        run_id=reported.run_id or str(uuid.uuid4()),
        job=reported.job,
        state=RunState.SUCCEEDED,
        start_time_us=end_us if reported.start is None else parse_time_us(reported.start, "--start"),
        end_time_us=end_us,
        inputs=_data(reported.inputs),
        outputs=_data(reported.outputs),
        git_sha=reported.git_sha,
    )
    with session.lineage() as client:
        is_new = client.record_run(run)
    if session.form is Format.TABLE:
        session.out.write(f"run {run.run_id} of {run.job} {'is recorded' if is_new else 'was known'}\n")
    else:
        print_document({"run_id": run.run_id, "known": not is_new}, session.form, session.out)


def _data(texts: Sequence[str]) -> tuple[RunData, ...]:
    return tuple(RunData(*_parts(text)) for text in texts)


def _parts(text: str) -> tuple[str, str]:
    name, _, version = text.partition("#")
    return name, version


def _run(document: dict[str, Any]) -> Run:  # Any: JSON values
    return Run(
        run_id=document["run_id"],
        job=document["job"],
        state=RunState.SUCCEEDED if document["is_done"] else RunState.FAILED,
        start_time_us=document["start_time_us"],
        end_time_us=document["end_time_us"],
        inputs=tuple(RunData(*one) for one in document["inputs"]),
        outputs=tuple(RunData(*one) for one in document["outputs"]),
        git_sha=document["git_sha"],
        kernel_version=document["kernel_version"],
        digests=document["digests"],
    )
