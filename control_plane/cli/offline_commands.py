"""Commands on the offline store of a platform; the work is that of a batch job in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control_plane.cli.output import Format, print_document
from control_plane.cli.session import Session
from headrace.errors import FailedPrecondition


def materialize_offline(
    session: Session, view: str, since: str | None, until: str | None, master: str | None = None
) -> int:
    """Brings the history of a view online; progress and refusals of the job go to stderr. Returns its exit code."""
    endpoints = session.endpoints()
    if not endpoints.lake:
        raise FailedPrecondition(
            "the platform keeps no offline store; start 'headrace up' without --no-offline, and name it by --data",
            reason="NO_OFFLINE_STORE",
        )
    arguments = [view, "--data", endpoints.lake, "--registry", endpoints.control, "--features", endpoints.features]
    options = (("--since", since), ("--until", until), ("--spark-master", master))
    arguments += [part for name, text in options if text for part in (name, text)]
    with _token_file(session.token) as token:
        command = [sys.executable, "-m", "batch.materialize", *arguments, *token]
        job = subprocess.run(command, stdout=subprocess.PIPE, stderr=session.err, text=True, check=False)
    if job.returncode != 0:
        return job.returncode
    done = json.loads(job.stdout.splitlines()[-1])
    if session.form is not Format.TABLE:
        print_document(done, session.form, session.out)
        return 0
    session.out.write(
        f"brought {done['row_count']} rows of {done['feature_view']} online at {done['rows_per_second']} rows/s, "
        f"{done['stale_count']} of them older than what is served\n"
    )
    return 0


@contextmanager
def _token_file(token: str | None) -> Iterator[list[str]]:
    """The token in a file that only its owner reads, as a command line is read by everybody."""
    if token is None:
        yield []
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "token")
        path.touch(mode=0o600)
        with os.fdopen(os.open(path, os.O_WRONLY), "w") as file:
            file.write(token)
        yield ["--token", str(path)]
