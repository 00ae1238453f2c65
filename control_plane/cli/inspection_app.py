"""The commands on what a feature server holds: why a value is what it is, and what its disk is used for."""

# Typer passes parameters by name; their order is that of the help text.
# ruff: noqa: PLR0917

from typing import Annotated

import typer

from control_plane.cli.options import Data, Endpoint, Lake, Output, Token, session_of
from control_plane.cli.output import Format


def explain(
    context: typer.Context,
    feature: Annotated[str, typer.Argument(help="view:feature or view@vN:feature; on-demand views too.")],
    entity: Annotated[
        list[str], typer.Option("--entity", help="Key of one entity: 7 or user_id=7; once for each join key.")
    ],
    at: Annotated[
        str | None,
        typer.Option("--at", help="Also the value that history has for this time, such as 2026-01-31T12:00Z."),
    ] = None,
    request: Annotated[
        list[str] | None, typer.Option("--request", help="Request data of an on-demand feature; repeatable.")
    ] = None,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    lake: Lake = None,
    token: Token = None,
) -> None:
    """Say why one value of one entity is what it is: its row, its tiles, its inputs, what made it stale."""
    from control_plane.cli.explain_commands import explain  # lazy

    explain(session_of(context), feature, entity, request or [], at)


def storage(
    context: typer.Context,
    shard: Annotated[
        list[int] | None, typer.Option("--shard", help="Only this shard; repeatable. All without.")
    ] = None,
    reclaim: Annotated[
        bool, typer.Option("--reclaim", help="First take away the rows of versions that are retired for a minute.")
    ] = False,
    by_shard: Annotated[bool, typer.Option("--by-shard", help="A line per shard and view, not per view.")] = False,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Measure what rows take on disk, per view version and owner: expired, erased, retired, and waiting to go offline.

    The server walks over its rows within a bound of I/O, at most 64 MiB a second: a large store takes its time.
    """
    from control_plane.cli.storage_commands import storage  # lazy

    storage(session_of(context), shard or [], by_shard=by_shard, reclaim=reclaim)
