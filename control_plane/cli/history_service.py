"""A historical join by the historical service, followed to its end; Ctrl-C cancels the job."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from control_plane.cli.session import Session
from control_plane.cli.stages import stages
from headrace.client import HistoricalJob

WAIT_LIMIT_S: Final = 24 * 3600.0
NO_SNAPSHOT: Final = -1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

Document = dict[str, Any]  # Any: JSON values


def run_on_service(session: Session, arguments: Mapping[str, Any]) -> Document:  # Any: as above
    """Result of a job, in the form of a local run."""
    cutoff_us = arguments["cutoff_us"]
    with session.history() as client, stages(session) as advance:
        job = client.start(
            arguments["service"],
            arguments["entities"],
            arguments["output"],
            time_column=arguments["time_column"],
            cutoff_time=_EPOCH + cutoff_us * _MICROSECOND if cutoff_us else None,
            memory_limit_bytes=arguments["memory_limit_bytes"],
        )
        try:
            done = client.wait(
                job.name, WAIT_LIMIT_S, lambda now: advance(now.stage or "queued", now.done_count, now.total_count)
            )
        except KeyboardInterrupt:
            client.cancel(job.name)
            raise
    return _document(done)


def _document(job: HistoricalJob) -> Document:
    assert job.cutoff_time is not None, "a job that succeeded has a result"
    return {
        "job": job.name,
        "feature_service": job.feature_service,
        "output": job.output,
        "row_count": job.row_count,
        "cutoff_us": (job.cutoff_time - _EPOCH) // _MICROSECOND,
        "digest": job.digest,
        "snapshots": dict(job.snapshots),
        "empty_views": [view for view, snapshot in job.snapshots if snapshot == NO_SNAPSHOT],
    }
