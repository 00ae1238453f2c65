"""The command over what was served."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from control_plane.cli.amounts import parse_time_us
from control_plane.cli.output import Format, print_document, print_table
from control_plane.cli.session import Session
from control_plane.cli.worker import run_job

Document = dict[str, Any]  # Any: JSON values


@dataclass(frozen=True, slots=True)
class Reference:
    """What drift is told against: a training set, or answers served between two times."""

    training_set: str | None = None
    since: str | None = None
    until: str | None = None


def run(
    session: Session,
    since: str | None,
    until: str | None,
    features: Sequence[str],
    *,
    fail_on: Sequence[str],
    reference: Reference = Reference(),
) -> int:
    """Prints the report of a skew run; its exit code."""
    arguments = {
        "since_us": _time_us(since, "--since"),
        "until_us": _time_us(until, "--until"),
        "features": list(features),
        "fail_on": list(fail_on),
        "reference": reference.training_set,
        "reference_since_us": _time_us(reference.since, "--reference-since"),
        "reference_until_us": _time_us(reference.until, "--reference-until"),
    }
    found = run_job(session, "skew_run", arguments, needs_registry=True)
    report: Document = found["report"]
    if session.form is not Format.TABLE:
        print_document(report, session.form, session.out)
    else:
        _print(session, report)
    return int(found["exit_code"])


def _time_us(text: str | None, option: str) -> int | None:
    return parse_time_us(text, option) if text else None


def _print(session: Session, report: Document) -> None:
    has_drift = "reference" in report
    header = ("feature", "rows", "mismatches", "unavailable", "causes", *(("drift",) if has_drift else ()), "verdict")
    rows = [
        (
            one["feature"],
            one["rows"],
            one["mismatches"],
            one["unavailable"],
            " ".join(f"{cause}={count}" for cause, count in one["causes"].items()) or "-",
            *((one.get("drift", {}).get("state", "-"),) if has_drift else ()),
            one["verdict"],
        )
        for one in report["features"]
    ]
    print_table(header, rows, session.out)
    session.out.write(f"{report['rows']} served values derived again, {report['mismatches']} differ\n")
    if has_drift:
        _print_drift(session, report)
    if not report["served_rows"]:
        session.out.write("note: no server has logged what it served in this time; see docs/historical.md\n")
    for feature, count in report["skipped"].items():
        session.out.write(f"note: {count} values of {feature} were left out, as its view cannot be derived yet\n")


def _print_drift(session: Session, report: Document) -> None:
    judged = [one for one in report["features"] if "drift" in one]
    drifted = [one for one in judged if one["drift"]["state"] == "drifted"]
    session.out.write(f"{len(drifted)} of {len(judged)} features drifted from {report['reference']}\n")
    for one in drifted:
        test = min((test for test in one["drift"]["tests"] if test["fired"]), key=lambda test: test["p"])
        bound = max(test["threshold"] or 0.0, test["floor"])
        name = f"{test['statistic']} of {test['part']}" if test["part"] else test["statistic"]
        session.out.write(
            f"drift: {one['feature']} of {report['owners'][one['feature']]}: {name} is {test['value']:.4g}, told from "
            f"{bound:.4g} on; {test['live_rows']:.0f} independent values against {test['reference_rows']:.0f}\n"
        )
    for feature in report["without_reference"]:
        session.out.write(f"note: {feature} is not in the reference, so that its drift is unknown\n")
