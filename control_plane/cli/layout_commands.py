"""Command on the layout of a service's rows: headrace service layout."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from control_plane.cli.endpoints import data_folder
from control_plane.cli.output import Format, print_document, print_table
from control_plane.cli.session import Session
from headrace.errors import BY_CODE, HeadraceError, InternalError

MODULE: Final = "feature_server.layout_report"
STORE_FOLDER: Final = "feature_server"  # of a platform, in its data folder
LIMIT_S: Final = 600.0  # a sample of 2,000 entities takes seconds; a store of millions of keys is walked first
# Field of the report, its name for people, its unit.
FIGURES: Final = (
    ("row_count", "rows", ""),
    ("row_bytes", "row bytes", "B"),
    ("memory_bytes", "memory", "B"),
    ("disk_bytes", "disk", "B"),
    ("hit_us", "read of cached rows", "us"),
    ("miss_us", "fetch from disk blocks", "us"),
    ("write_us", "write of one view", "us"),
    ("write_bytes", "bytes of that write", "B"),
)


def layout(session: Session, service: str, entities: int, *, apply: bool = False, every: bool = False) -> None:
    """Prints what packing would change, per entity, as measured on rows of the store; what it did change, if asked."""
    options = ["--entities", str(entities), *(["--apply"] if apply else []), *(["--all"] if every else [])]
    report = _report(data_folder(session.environment, session.data) / STORE_FOLDER, service, options)
    if session.form is not Format.TABLE:
        print_document(report, session.form, session.out)
        return
    for candidate in report["candidates"]:
        _print_candidate(session, candidate)
    for one in report["apart"]:
        session.out.write(f"{one['view']} stays apart: {one['why']}\n")
    if not report["candidates"]:
        session.out.write(f"{report['service']}: nothing to pack\n")
    if "applied" in report:
        _print_applied(session, report["applied"])


def _print_applied(session: Session, applied: dict[str, Any]) -> None:
    for entity in applied["kept_apart"]:
        session.out.write(
            f"{entity}: rows stay apart, as by the counts of the server or by a trial moving them does not pay\n"
        )
    if "before" not in applied:
        return
    before, after = applied["before"], applied["after"]
    rows = [_change("store", "table files", before["disk_bytes"], after["disk_bytes"], "B")]
    for entity, fetch_us in before["fetch_us"].items():
        rows.append(_change(entity, "fetch of its rows", fetch_us, after["fetch_us"][entity], "us"))
    print_table(("of", "measured", "before", "after", "change"), rows, session.out)
    session.out.write(f"{applied['rows_moved']:,} rows moved\n")


def _change(of: str, name: str, old: float, new: float, unit: str) -> tuple[str, str, str, str, str]:
    return of, name, _amount(old, unit), _amount(new, unit), f"{new / old - 1:+.0%}" if old else ""


def _print_candidate(session: Session, candidate: dict[str, Any]) -> None:
    session.out.write(f"{candidate['entity']}: {len(candidate['views'])} views always read together\n")
    for view in candidate["views"]:
        session.out.write(f"  {view}\n")
    session.out.write(
        f"read by {', '.join(candidate['services'])}; per entity, measured on {candidate['entities_with_every_view']} "
        f"entities ({candidate['entities_sampled']} sampled)\n"
    )
    rows = []
    for field, name, unit in FIGURES:
        before, after = candidate["apart"][field], candidate["packed"][field]
        rows.append((name, _amount(before, unit), _amount(after, unit), f"{after / before - 1:+.0%}"))
    print_table(("per entity", "apart", "packed", "change"), rows, session.out)
    session.out.write(f"proposal: {_proposal(candidate['fetches_per_write_to_pay'])}\n")
    session.out.write(f"counted by the server: {_counted(candidate)}\n\n")


def _proposal(fetches: float | None) -> str:
    if fetches is None:
        return "keep them apart, as a packed row is not fetched faster"
    return f"pack them where more than {fetches:.1f} fetches from disk come with each write of a view, else do not"


def _counted(candidate: dict[str, Any]) -> str:
    reads = ", ".join(f"{count:,} rows read by {name}" for name, count in candidate["rows_read"].items())
    ratio = candidate["fetches_per_write"]
    per_write = "no write" if ratio is None else f"{ratio:.2f} fetches per write"
    fetched, written = candidate["rows_fetched"], candidate["rows_written"]
    return f"{reads}; {fetched:,} fetches of an entity, {written:,} writes: {per_write}"


def _amount(value: float, unit: str) -> str:
    return f"{value:,.2f} {unit}" if unit == "us" else f"{value:,.0f} {unit}".rstrip()


def _report(folder: Path, service: str, options: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", MODULE, "--data", str(folder), "--service", service, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode != 0:
        raise _refusal(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _refusal(said: str) -> HeadraceError:
    try:
        fields: dict[str, Any] = json.loads(said)
    except ValueError:
        last = said.strip().splitlines()[-1:] or ["nothing"]
        return InternalError(f"the measurement ended early and said: {last[0]}", reason="LAYOUT_REPORT")
    named = {name: fields[name] for name in ("reason", "field", "metadata")}
    return BY_CODE.get(fields["code"], InternalError)(fields["message"], **named)
