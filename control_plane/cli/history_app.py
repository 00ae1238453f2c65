"""The commands over history: `headrace offline`, `headrace training-set`, `headrace skew`."""

# Typer passes parameters by name; their order is that of the help text.
# ruff: noqa: PLR0917

from typing import Annotated

import typer

from control_plane.cli.options import Data, Endpoint, Lake, Output, Token, session_of
from control_plane.cli.output import Format

_SETTINGS = {"help_option_names": ["-h", "--help"]}
offline = typer.Typer(help="Features of the past, for training.", no_args_is_help=True, context_settings=_SETTINGS)
training_set = typer.Typer(
    help="Frozen training sets, each with the proof of what it holds.", no_args_is_help=True, context_settings=_SETTINGS
)
skew = typer.Typer(
    help="Whether models are served what training saw.", no_args_is_help=True, context_settings=_SETTINGS
)

Entities = Annotated[
    list[str],
    typer.Option(
        "--entities", help="Entity rows: join keys, a time, any other column. Parquet (repeatable) or one .arrow file."
    ),
]
Service = Annotated[str, typer.Option("--service", help="Feature service, team.domain.name or with @vN.")]
TimeColumn = Annotated[
    str, typer.Option("--time-column", help="Column of the entity rows that says as of when, with a time zone.")
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        help="Use only what had been written by then, such as 2026-01-31T00:00Z; else all that is there now.",
    ),
]
MemoryLimit = Annotated[
    str | None, typer.Option("--memory-limit", help="Memory of the join, such as 512MiB or 2GiB; more goes to disk.")
]
Master = Annotated[str, typer.Option("--master", help="Master of Spark: local[n] or spark://host:port.")]
Name = Annotated[str, typer.Argument(help="Training set, lower snake case.")]


@offline.command(name="get-historical")
def get_historical(
    context: typer.Context,
    entities: Entities,
    service: Service,
    out: Annotated[str, typer.Option("--out", help="Parquet file to write; it appears when it is complete.")],
    time_column: TimeColumn = "event_time",
    as_of: AsOf = None,
    memory_limit: MemoryLimit = None,
    engine: Annotated[
        str,
        typer.Option(
            help="local: a process here; service: the historical service; spark: --out is a folder, for the run's own."
        ),
    ] = "local",
    master: Master = "local[2]",
    lake: Lake = None,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Write the features that each entity row could have seen at its time.

    Every row of the entities gets the newest values that were known at its time, and a status column per feature.
    """
    from control_plane.cli.history_commands import JoinOptions, get_historical  # lazy

    options = JoinOptions(entities, service, time_column, as_of, memory_limit)
    get_historical(session_of(context), options, out, engine, master)


@offline.command(name="window-history")
def window_history(
    context: typer.Context,
    view: Annotated[str, typer.Argument(help="Feature view, team.domain.name or with @vN.")],
    first: Annotated[str, typer.Option("--from", help="First time, such as 2026-01-31T00:00Z.")],
    last: Annotated[str, typer.Option("--to", help="Last time.")],
    every: Annotated[str, typer.Option("--every", help="Step between times, such as 1h or 7d.")],
    out: Annotated[str, typer.Option("--out", help="Folder in which the run makes its own.")],
    as_of: AsOf = None,
    memory_limit: MemoryLimit = None,
    master: Master = "local[2]",
    lake: Lake = None,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Write a view's features for every entity of its history at many times, on Spark."""
    from control_plane.cli.history_commands import WindowOptions, window_history  # lazy

    options = WindowOptions(view, first, last, every, as_of, memory_limit, master)
    window_history(session_of(context), options, out)


@offline.command()
def sweep(
    context: typer.Context,
    older_than: Annotated[str, typer.Option(help="Age from which a file that nothing names is removed.")] = "3d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files.")] = False,
    lake: Lake = None,
    output: Output = Format.TABLE,
    data: Data = None,
) -> None:
    """Remove data files that refused or killed writers left behind."""
    from control_plane.cli.history_commands import sweep  # lazy

    sweep(session_of(context), older_than, dry_run)


@training_set.command()
def create(
    context: typer.Context,
    name: Name,
    entities: Entities,
    service: Service,
    out: Annotated[
        str | None, typer.Option("--out", help="Parquet file of the result; else a place in the lake's warehouse.")
    ] = None,
    time_column: TimeColumn = "event_time",
    as_of: AsOf = None,
    memory_limit: MemoryLimit = None,
    lake: Lake = None,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Join and freeze: the result, its digest, and the snapshots that it was made of.

    A name is given once and means the same for ever. The entity rows are copied, so that a rebuild needs no other file.
    """
    from control_plane.cli.history_commands import JoinOptions  # lazy
    from control_plane.cli.training_commands import create  # lazy

    create(session_of(context), name, JoinOptions(entities, service, time_column, as_of, memory_limit), out)


@training_set.command(name="list")
def list_(context: typer.Context, lake: Lake = None, output: Output = Format.TABLE, data: Data = None) -> None:
    """List the training sets."""
    from control_plane.cli.training_commands import list_sets  # lazy

    list_sets(session_of(context))


@training_set.command()
def show(
    context: typer.Context, name: Name, lake: Lake = None, output: Output = Format.TABLE, data: Data = None
) -> None:
    """Show one training set in full: features, versions, snapshots, digest."""
    from control_plane.cli.training_commands import show  # lazy

    show(session_of(context), name)


@training_set.command()
def verify(
    context: typer.Context, name: Name, lake: Lake = None, output: Output = Format.TABLE, data: Data = None
) -> None:
    """Read the result again and compare it with its digest; exit 0 when it is the same, else 1."""
    from control_plane.cli.training_commands import verify  # lazy

    raise typer.Exit(verify(session_of(context), name))


@training_set.command()
def rebuild(
    context: typer.Context,
    name: Name,
    out: Annotated[
        str | None, typer.Option("--out", help="Parquet file to write; else the result itself is put back in place.")
    ] = None,
    memory_limit: MemoryLimit = None,
    lake: Lake = None,
    output: Output = Format.TABLE,
    data: Data = None,
) -> None:
    """Compute the set again from its pinned snapshots; other values than before are refused, and nothing is written."""
    from control_plane.cli.training_commands import rebuild  # lazy

    rebuild(session_of(context), name, out, memory_limit)


@training_set.command()
def diff(
    context: typer.Context,
    first: Annotated[str, typer.Argument(help="Training set.")],
    second: Annotated[str, typer.Argument(help="Training set to compare it with.")],
    lake: Lake = None,
    output: Output = Format.TABLE,
    data: Data = None,
) -> None:
    """Say what differs between two sets, in which rows, and why."""
    from control_plane.cli.training_commands import diff  # lazy

    diff(session_of(context), first, second)


@skew.command()
def run(
    context: typer.Context,
    since: Annotated[str | None, typer.Option(help="Only answers served from then on, such as 2026-01-31Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Only answers served before then.")] = None,
    feature: Annotated[
        list[str] | None, typer.Option("--feature", help="Only view@vN:feature; repeatable. All without it.")
    ] = None,
    fail_on: Annotated[
        list[str] | None, typer.Option("--fail-on", help="parity or drift: exit 3 where one is found; repeatable.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Training set that served values should be distributed as.")
    ] = None,
    reference_since: Annotated[
        str | None, typer.Option(help="Else: answers served from then on, such as 2026-01-01Z.")
    ] = None,
    reference_until: Annotated[str | None, typer.Option(help="And before then.")] = None,
    lake: Lake = None,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Derive every logged answer again at its time, name the cause of each that differs, and tell drift."""
    from control_plane.cli.skew_commands import Reference, run  # lazy

    against = Reference(reference, reference_since, reference_until)
    raise typer.Exit(run(session_of(context), since, until, feature or [], fail_on=fail_on or [], reference=against))
