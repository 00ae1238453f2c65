"""The command over what was served."""

from collections.abc import Sequence
from typing import Any

from control_plane.cli.amounts import parse_time_us
from control_plane.cli.output import Format, print_document, print_table
from control_plane.cli.session import Session
from control_plane.cli.worker import run_job

Document = dict[str, Any]  # Any: JSON values


def run(session: Session, since: str | None, until: str | None, features: Sequence[str], fail_on: Sequence[str]) -> int:
    """Prints the report of a skew run; its exit code."""
    arguments = {
        "since_us": parse_time_us(since, "--since") if since else None,
        "until_us": parse_time_us(until, "--until") if until else None,
        "features": list(features),
        "fail_on": list(fail_on),
    }
    found = run_job(session, "skew_run", arguments, needs_registry=True)
    report: Document = found["report"]
    if session.form is not Format.TABLE:
        print_document(report, session.form, session.out)
        return int(found["exit_code"])
    rows = [
        (
            one["feature"],
            one["rows"],
            one["mismatches"],
            one["unavailable"],
            " ".join(f"{cause}={count}" for cause, count in one["causes"].items()) or "-",
            one["verdict"],
        )
        for one in report["features"]
    ]
    print_table(("feature", "rows", "mismatches", "unavailable", "causes", "verdict"), rows, session.out)
    session.out.write(f"{report['rows']} served values derived again, {report['mismatches']} differ\n")
    if not report["served_rows"]:
        session.out.write("note: no server has logged what it served in this time; see docs/historical.md\n")
    for feature, count in report["skipped"].items():
        session.out.write(f"note: {count} values of {feature} were left out, as its view cannot be derived yet\n")
    return int(found["exit_code"])
