"""The commands over a ring and a whole cluster: `headrace cluster`."""

# Typer passes parameters by name; their order is that of the help text.
# ruff: noqa: PLR0917

from typing import Annotated

import typer

from control_plane.cli.options import Data, Endpoint, Output, Token, session_of
from control_plane.cli.output import Format

_SETTINGS = {"help_option_names": ["-h", "--help"]}
cluster = typer.Typer(
    help="A cluster on this machine, and the ring of feature servers.", no_args_is_help=True, context_settings=_SETTINGS
)


@cluster.command()
def up(
    context: typer.Context,
    servers: Annotated[int, typer.Option(help="Feature servers of the ring.")] = 3,
    replicas: Annotated[int, typer.Option(help="Copies of each shard.")] = 2,
    shards: Annotated[int, typer.Option(help="Shards of the ring, a power of two.")] = 64,
    brokers: Annotated[int, typer.Option(help="Kafka brokers, 1 or 3.")] = 1,
    port: Annotated[int | None, typer.Option(help="Port of the control plane; else 6570 or the next free one.")] = None,
    feature_port: Annotated[
        int | None, typer.Option(help="Port of the first feature server, the others follow; else from 6600 on.")
    ] = None,
    kafka_port: Annotated[
        int | None, typer.Option(help="Port of the first broker, the others follow; else any free one.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Also keep every event in the offline store.")] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Replay flights as a live stream, in a folder that goes at the end.")
    ] = False,
    speed: Annotated[
        float | None, typer.Option(help="With --demo: flight seconds a second, 1 to 10,000; else 300.")
    ] = None,
    plant: Annotated[bool, typer.Option("--plant", hidden=True)] = False,
    data: Data = None,
    output: Output = Format.TABLE,
) -> None:
    """Run Kafka, a control plane, a ring of feature servers and the stream pipeline; Ctrl-C stops all of it."""
    from control_plane.cli.cluster.up import ClusterOptions, run  # lazy

    if speed is not None and not demo:
        raise typer.BadParameter("--speed goes with --demo")
    options = ClusterOptions(servers, replicas, shards, brokers, port, feature_port, kafka_port, offline)
    if not demo:
        raise typer.Exit(run(session_of(context), options, None))
    from control_plane.cli.cluster.demo import SPEED, LiveDemo  # lazy: pandas

    session = session_of(context)
    live = LiveDemo(session, SPEED if speed is None else speed, brokers, is_planted=plant)
    raise typer.Exit(run(session, options, live))


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
