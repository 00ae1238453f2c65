"""Runs a job of `batch` in a process of its own, with a progress bar and its errors as ours."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from control_plane.cli.session import Session
from control_plane.cli.stages import stages
from headrace.errors import BY_CODE, HeadraceError, InternalError, Unavailable

MODULE: Final = "batch.jobs.worker"
STOP_LIMIT_S: Final = 10.0

Document = dict[str, Any]  # Any: JSON values


def run_job(session: Session, command: str, arguments: Mapping[str, object], *, needs_registry: bool) -> Document:
    """Result of a command; raises what the job raised. The job ends with this process, whatever ends it."""
    order = {
        "command": command,
        "lake": str(session.lake_folder()),
        "registry": session.endpoints().control if needs_registry else "",
        "token": session.token,
        "arguments": dict(arguments),
    }
    with subprocess.Popen(
        [sys.executable, "-m", MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # a Ctrl-C of the terminal reaches us alone, and we let the job take away what it has begun
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            return _follow(session, process)
        except BrokenPipeError:
            return _follow(session, process)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _follow(session: Session, process: "subprocess.Popen[str]") -> Document:
    assert process.stdout is not None
    with stages(session) as advance:
        for line in process.stdout:
            message = json.loads(line)
            if "result" in message:
                result: Document = message["result"]
                return result
            if "error" in message:
                raise error_of(message["error"])
            advance(*message["progress"])
    code = process.wait()
    raise Unavailable(
        f"the job ended with exit {code} and said nothing; the machine may be out of memory: lower --memory-limit",
        reason="JOB_ENDED",
        metadata={"exit": str(code)},
    )


def error_of(document: Mapping[str, Any]) -> HeadraceError:  # Any: JSON values
    """The error of its JSON form."""
    kind = BY_CODE.get(document.get("code", ""), InternalError)
    return kind(
        document["message"],
        reason=document["reason"],
        field=document.get("field", ""),
        metadata=document.get("metadata"),
    )
