"""Commands on training sets."""

from typing import Any

from control_plane.cli.amounts import parse_bytes, time_text
from control_plane.cli.history_commands import JoinOptions, place
from control_plane.cli.output import Format, print_document, print_table
from control_plane.cli.session import Session
from control_plane.cli.worker import run_job

Document = dict[str, Any]  # Any: JSON values

EXIT_SAME = 0
EXIT_DIFFERS = 1


def create(session: Session, name: str, options: JoinOptions, out: str | None) -> None:
    """Makes a set and prints what it holds."""
    arguments = options.arguments() | {"name": name, "output": place(out) if out else ""}
    made = run_job(session, "training_set_create", arguments, needs_registry=True)
    if session.form is not Format.TABLE:
        print_document(made, session.form, session.out)
        return
    session.out.write(
        f"training set {name}: {made['row_count']} rows, {made['feature_count']} features of "
        f"{made['feature_service']}, as known at {time_text(made['cutoff_us'])}\n"
        f"result {made['result']}\ndigest {made['digest']}\n"
    )


def list_sets(session: Session) -> None:
    """Prints every set as a line."""
    found = run_job(session, "training_set_list", {}, needs_registry=False)
    if session.form is not Format.TABLE:
        print_document(found, session.form, session.out)
        return
    header = ("name", "service", "rows", "features", "created", "as_of", "digest")
    rows = [
        (
            one["name"],
            one["feature_service"],
            one["row_count"],
            one["feature_count"],
            time_text(one["create_time_us"]),
            time_text(one["cutoff_us"]),
            one["digest"][:12],
        )
        for one in found["training_sets"]
    ]
    print_table(header, rows, session.out)


def show(session: Session, name: str) -> None:
    """Prints one set in full."""
    found = run_job(session, "training_set_show", {"name": name}, needs_registry=False)
    if session.form is not Format.TABLE:
        print_document(found, session.form, session.out)
        return
    fields = ("name", "feature_service", "row_count", "digest", "result", "entities", "entity_digest", "run_id")
    rows: list[tuple[str, object]] = [(field, found[field]) for field in fields]
    rows += [("created", time_text(found["create_time_us"])), ("as_of", time_text(found["cutoff_us"]))]
    print_table(("field", "value"), rows, session.out)
    features = [(f["output"], f["type"], f["feature_view"], f["feature"], f["snapshot_id"]) for f in found["features"]]
    print_table(("output", "type", "view", "feature", "snapshot"), features, session.out)


def verify(session: Session, name: str) -> int:
    """Prints the verdict; its exit code."""
    found = run_job(session, "training_set_verify", {"name": name}, needs_registry=False)
    if session.form is not Format.TABLE:
        print_document(found, session.form, session.out)
    elif found["same"]:
        session.out.write(f"same: {found['row_count']} rows, digest {found['digest']}\n")
    else:
        columns = ", ".join(found["changed_columns"]) or "the order of the rows"
        session.out.write(
            f"DIFFERS: {found['row_count']} rows of {found['expected_row_count']}, changed: {columns}\n"
            f"'headrace training-set rebuild {name}' puts the frozen values back\n"
        )
    return EXIT_SAME if found["same"] else EXIT_DIFFERS


def rebuild(session: Session, name: str, out: str | None, memory_limit: str | None) -> None:
    """Computes a set again."""
    arguments = {
        "name": name,
        "output": place(out) if out else "",
        "memory_limit_bytes": parse_bytes(memory_limit, "--memory-limit") if memory_limit else 0,
    }
    found = run_job(session, "training_set_rebuild", arguments, needs_registry=False)
    if session.form is not Format.TABLE:
        print_document(found, session.form, session.out)
    else:
        session.out.write(f"rebuilt {name} with the same digest {found['digest']}: {found['output']}\n")


def diff(session: Session, first: str, second: str) -> None:
    """Prints what differs between two sets."""
    found = run_job(session, "training_set_diff", {"first": first, "second": second}, needs_registry=False)
    if session.form is not Format.TABLE:
        print_document(found, session.form, session.out)
        return
    if found["same"]:
        session.out.write(f"{first} and {second} hold the same values, made of the same inputs\n")
        return
    rows = [(one["what"], one["first"], one["second"], one["cause"]) for one in found["differences"]]
    print_table(("what", first, second, "cause"), rows, session.out)
    changed = [
        (one["output"], one["row_count"], one["status_count"], ",".join(map(str, one["first_rows"])))
        for one in found["changed_rows"]
    ]
    if changed:
        print_table(("feature", "rows", "statuses", "first rows"), changed, session.out)
