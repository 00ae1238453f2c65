"""The commands over the ring: `headrace cluster`."""

# Typer passes parameters by name; their order is that of the help text.
# ruff: noqa: PLR0917

from typing import Annotated

import typer

from control_plane.cli.options import Data, Endpoint, Output, Token, session_of
from control_plane.cli.output import Format

_SETTINGS = {"help_option_names": ["-h", "--help"]}
cluster = typer.Typer(help="The ring of feature servers.", no_args_is_help=True, context_settings=_SETTINGS)


@cluster.command()
def status(
    context: typer.Context,
    shards: Annotated[bool, typer.Option("--shards", help="Also a line per shard.")] = False,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Show the servers of the ring, their shards and the epoch.

    Exit code 1 where a shard has fewer copies on live servers than it is to have.
    """
    from control_plane.cli.cluster_commands import status  # lazy

    raise typer.Exit(status(session_of(context), shards=shards))


@cluster.command()
def drain(
    context: typer.Context,
    server: Annotated[str, typer.Argument(help="Id of the server, the start of it, or its address.")],
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Move every shard off a server, so that it can be stopped for good."""
    from control_plane.cli.cluster_commands import drain  # lazy

    raise typer.Exit(drain(session_of(context), server))
