"""The commands on how large a deployment has to be: `headrace capacity`."""

# Typer passes parameters by name; their order is that of the help text.
# ruff: noqa: PLR0917

from pathlib import Path
from typing import Annotated

import typer

from control_plane.cli.options import Output, session_of
from control_plane.cli.output import Format

_SETTINGS = {"help_option_names": ["-h", "--help"]}
capacity = typer.Typer(help="How large a deployment has to be.", no_args_is_help=True, context_settings=_SETTINGS)


@capacity.callback()
def _group() -> None:
    """How large a deployment has to be."""


@capacity.command()
def plan(
    context: typer.Context,
    events_per_s: Annotated[float, typer.Option(help="Events of all streams.")] = 10e6,
    feature_writes_per_s: Annotated[float, typer.Option(help="Feature values written, streams and batch.")] = 1e9,
    requests_per_s: Annotated[float, typer.Option(help="Online reads.")] = 1e6,
    features: Annotated[int, typer.Option(help="Features of one read.")] = 200,
    features_per_row: Annotated[int, typer.Option(help="Features that one write of an entity changes.")] = 20,
    history: Annotated[str, typer.Option(help="Offline store: 100PB, 2TiB.")] = "100PB",
    online: Annotated[str, typer.Option(help="Rows online, one copy.")] = "100TB",
    replicas: Annotated[int, typer.Option(help="Copies of each row.")] = 2,
    cores: Annotated[int, typer.Option(help="Cores of a node.")] = 64,
    memory: Annotated[str, typer.Option(help="Memory of a node.")] = "512GiB",
    disk: Annotated[str, typer.Option(help="Disk of a node.")] = "16TB",
    network_gbits: Annotated[float, typer.Option(help="Network of a node, gigabits a second.")] = 50.0,
    results: Annotated[
        Path | None, typer.Option(help="Folder of recorded figures; else loadtest/results of the checkout.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Compute cores, nodes, memory, disk and network of a load from recorded figures of one core.

    A ring of that many servers is simulated, and nodes are added for the fullest of them.
    """
    from control_plane.cli.capacity_commands import Asked, plan  # lazy

    asked = Asked(
        events_per_s, feature_writes_per_s, requests_per_s, features, features_per_row, history, online, replicas,
        cores, memory, disk, network_gbits,
    )  # fmt: skip
    plan(session_of(context), asked, results)
