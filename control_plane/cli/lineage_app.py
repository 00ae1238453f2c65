"""The commands over lineage: `headrace lineage`."""

# Typer passes parameters by name; their order is that of the help text.
# ruff: noqa: PLR0917

from typing import Annotated

import typer

from control_plane.cli.lineage_choices import Affected, Planned
from control_plane.cli.options import Data, Endpoint, Lake, Output, Token, session_of
from control_plane.cli.output import Format

_SETTINGS = {"help_option_names": ["-h", "--help"]}
lineage = typer.Typer(
    help="What is made of what, and what a change reaches.", no_args_is_help=True, context_settings=_SETTINGS
)


@lineage.command()
def impact(
    context: typer.Context,
    node: Annotated[
        str,
        typer.Argument(
            help="team.domain.name, with @vN or @vN:feature, or dataset:URI; without @vN the newest version."
        ),
    ],
    column: Annotated[str, typer.Option("--column", help="Column of the source.")] = "",
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="What held at this time, such as 2026-01-31T12:00Z; else now.")
    ] = None,
    change: Annotated[Planned | None, typer.Option("--change", help="What is to happen to it.")] = None,
    kind: Annotated[
        list[Affected] | None, typer.Option("--kind", help="List these alone; totals count all. Repeatable.")
    ] = None,
    fail_on: Annotated[
        list[Affected] | None, typer.Option("--fail-on", help="Exit with 1 where one of these is reached; repeatable.")
    ] = None,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """List all that a node reaches: features, services and models with owner and path, and totals by hop."""
    from control_plane.cli.lineage_commands import ImpactOptions, impact  # lazy

    options = ImpactOptions(node, column, as_of, change, tuple(kind or ()), tuple(fail_on or ()))
    raise typer.Exit(impact(session_of(context), options))


@lineage.command()
def diff(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="Node as for impact, such as a model whose answers changed.")],
    start: Annotated[str, typer.Option("--from", help="Time to compare with, such as 2026-01-30T00:00Z.")],
    end: Annotated[str | None, typer.Option("--to", help="Time that is compared; else now.")] = None,
    column: Annotated[str, typer.Option("--column", help="Column of the source.")] = "",
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """List what changed above a node between two times: edges, schemas, code, data, owners and freshness limits."""
    from control_plane.cli.lineage_commands import diff  # lazy

    diff(session_of(context), node, column, start, end)


@lineage.command()
def requirements(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Model version, team.domain.name@vN.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Also look whether each is still there; exit with 1 where one is not.")
    ] = False,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    lake: Lake = None,
    token: Token = None,
) -> None:
    """List what a model was made of: sources, data and their versions, transforms, runs and training sets."""
    from control_plane.cli.lineage_commands import requirements  # lazy

    raise typer.Exit(requirements(session_of(context), model, verify=verify))


@lineage.command()
def observe(
    context: typer.Context,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    lake: Lake = None,
    token: Token = None,
) -> None:
    """Report the runs of the offline store, with what they read and the training sets that they made. Repeatable."""
    from control_plane.cli.run_commands import observe  # lazy

    observe(session_of(context))


@lineage.command()
def record(
    context: typer.Context,
    job: Annotated[str, typer.Option("--job", help="Name of the job.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="What it read: training_set:NAME, view@v1, dataset:URI; #VERSION after it."),
    ] = None,
    outputs: Annotated[
        list[str] | None, typer.Option("--output-node", help="What it wrote, such as a model version.")
    ] = None,
    start: Annotated[str | None, typer.Option("--start", help="When it began; else when it ended.")] = None,
    end: Annotated[str | None, typer.Option("--end", help="When it ended; else now.")] = None,
    git_sha: Annotated[str, typer.Option("--git-sha", help="Commit of its code.")] = "",
    run_id: Annotated[str | None, typer.Option("--run-id", help="UUID of the run; else a new one.")] = None,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Report one run of a job of yours, such as the training of a model."""
    from control_plane.cli.run_commands import ReportedRun, record  # lazy

    reported = ReportedRun(job, tuple(inputs or ()), tuple(outputs or ()), start, end, git_sha, run_id)
    record(session_of(context), reported)
