"""Commands on the offline store: historical features, and the sweep of files that nothing names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from control_plane.cli.amounts import parse_age_s, parse_bytes, parse_time_us, time_text
from control_plane.cli.output import Format, print_document, print_table
from control_plane.cli.session import Session
from control_plane.cli.worker import run_job
from headrace.errors import InvalidArgument

TIMES_MAX: Final = 100_000  # as batch.historical.grid has it, which the command line does not load
ENGINES = ("local", "service", "spark")


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """What a join is asked for, as people type it."""

    entities: list[str]
    service: str
    time_column: str
    as_of: str | None
    memory_limit: str | None

    def arguments(self) -> dict[str, Any]:  # Any: JSON values
        """The same as a job takes it."""
        return {
            "entities": [place(uri) for uri in self.entities],
            "service": self.service,
            "time_column": self.time_column,
            "cutoff_us": parse_time_us(self.as_of, "--as-of") if self.as_of else 0,
            "memory_limit_bytes": parse_bytes(self.memory_limit, "--memory-limit") if self.memory_limit else 0,
        }


def get_historical(session: Session, options: JoinOptions, out: str, engine: str, master: str) -> None:
    """Writes the historical features of entity rows."""
    arguments = options.arguments() | {"output": place(out)}
    if engine == "local":
        result = run_job(session, "get_historical", arguments, needs_registry=True)
    elif engine == "spark":
        words = arguments | {"master": master}
        result = run_job(session, "get_historical_spark", words, needs_registry=True)
    elif engine == "service":
        from control_plane.cli.history_service import run_on_service  # lazy: grpc

        result = run_on_service(session, arguments)
    else:
        raise InvalidArgument(
            f"--engine {engine!r} is not one of {', '.join(ENGINES)}", reason="ENGINE", field="--engine"
        )
    if session.form is not Format.TABLE:
        print_document(result, session.form, session.out)
        return
    session.out.write(
        f"wrote {result['row_count']} rows to {result['output']} with the features of "
        f"{result['feature_service']}, as known at {time_text(result['cutoff_us'])}\n"
    )
    for view in result["empty_views"]:
        session.out.write(f"note: {view} has no history yet, so its features are MISSING\n")
    session.out.write(f"digest {result['digest']}\n")


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """What a history of windows is asked for, as people type it."""

    view: str
    first: str
    last: str
    every: str
    as_of: str | None
    memory_limit: str | None
    master: str

    def arguments(self) -> dict[str, Any]:  # Any: JSON values
        """The same as a job takes it."""
        first_us, last_us = parse_time_us(self.first, "--from"), parse_time_us(self.last, "--to")
        step_us = round(parse_age_s(self.every, "--every") * 1_000_000)
        if step_us <= 0 or last_us < first_us or (last_us - first_us) // step_us >= TIMES_MAX:
            raise InvalidArgument(
                f"--from {self.first} --to {self.last} --every {self.every} names no time, or more than {TIMES_MAX}",
                reason="OUT_OF_RANGE",
                field="--every",
            )
        return {
            "view": self.view,
            "times_us": list(range(first_us, last_us + 1, step_us)),
            "cutoff_us": parse_time_us(self.as_of, "--as-of") if self.as_of else 0,
            "memory_limit_bytes": parse_bytes(self.memory_limit, "--memory-limit") if self.memory_limit else 0,
            "master": self.master,
        }


def window_history(session: Session, options: WindowOptions, out: str) -> None:
    """Writes the features of a view for every entity of its history at many times."""
    arguments = options.arguments() | {"output": place(out)}
    result = run_job(session, "window_history_spark", arguments, needs_registry=True)
    if session.form is not Format.TABLE:
        print_document(result, session.form, session.out)
        return
    session.out.write(f"wrote {result['row_count']} rows of {result['feature_view']} to {result['output']}\n")
    session.out.write(f"digest {result['digest']}\n")


def sweep(session: Session, older_than: str, dry_run: bool) -> None:
    """Removes or lists files of the lake that no snapshot names."""
    arguments = {"age_s": parse_age_s(older_than, "--older-than"), "dry_run": dry_run}
    result = run_job(session, "sweep", arguments, needs_registry=False)
    if session.form is not Format.TABLE:
        print_document(result, session.form, session.out)
        return
    rows = [(one["table"], one["file_count"], one["byte_count"]) for one in result["tables"]]
    print_table(("table", "files", "bytes"), rows, session.out)
    session.out.write(("would remove" if dry_run else "removed") + f" {result['file_count']} files\n")


def place(uri: str) -> str:
    """A local file by its whole path, as the job may run elsewhere; an address as it is."""
    return uri if "://" in uri else str(Path(uri).absolute())
