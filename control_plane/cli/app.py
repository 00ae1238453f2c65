"""The commands of `headrace`; each loads its own module only when it runs, so that help answers at once."""

# Typer passes parameters by name; their order is that of the help text.
# ruff: noqa: PLR0917

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from control_plane.cli.capacity_app import capacity
from control_plane.cli.cluster_app import cluster
from control_plane.cli.history_app import offline, skew, training_set
from control_plane.cli.inspection_app import explain, storage
from control_plane.cli.lineage_app import lineage
from control_plane.cli.options import Data, Endpoint, Output, Token, session_of
from control_plane.cli.output import Format, print_error
from control_plane.cli.session import Session
from headrace.errors import HeadraceError

EXIT_FAILED: Final = 1
EXIT_UNEXPECTED: Final = 2
_DEBUG_VARIABLE: Final = "HEADRACE_DEBUG"

app = typer.Typer(
    help="Headrace: features for models, online. Start with 'headrace init', 'headrace up' and 'headrace apply'.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
service = typer.Typer(help="What services cost.", no_args_is_help=True)
GROUPS: Final = {
    "offline": offline,
    "training-set": training_set,
    "skew": skew,
    "service": service,
    "cluster": cluster,
    "capacity": capacity,
    "lineage": lineage,
}
for name, group in GROUPS.items():
    app.add_typer(group, name=name)


def main() -> None:
    """Runs a command and turns what it raises into an exit code: 0 done, 1 refused or failed, 2 usage or unexpected."""
    session = Session(os.environ)
    try:
        app(obj=session)
    except HeadraceError as error:
        print_error(error, session.form, sys.stderr)
        sys.exit(EXIT_FAILED)
    except Exception as error:
        if os.environ.get(_DEBUG_VARIABLE):
            raise
        sys.stderr.write(f"unexpected error: {type(error).__name__}: {error}; {_DEBUG_VARIABLE}=1 shows where\n")
        sys.exit(EXIT_UNEXPECTED)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version  # lazy: only this option needs it

        try:
            typer.echo(f"headrace {version('headrace')}")
        except PackageNotFoundError:
            typer.echo("headrace from its source tree")
        raise typer.Exit


Kind = Annotated[str, typer.Argument(help="source, entity, view, on_demand_view, service or model.")]
Definitions = Annotated[Path, typer.Argument(help="Definition file (.py, .yaml) or a folder of them.")]
HERE: Final = Path(".")


@app.callback()
def root(
    context: typer.Context,
    tls_ca: Annotated[
        Path | None,
        typer.Option(envvar="HEADRACE_TLS_CA", help="PEM file of the servers' authority; they are plain without it."),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(envvar="HEADRACE_TLS_CERT", help="PEM file of the certificate to show to them.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="HEADRACE_TLS_KEY", help="PEM file of that certificate's key.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Headrace: features for models, online. Start with 'headrace init', 'headrace up' and 'headrace apply'."""
    session = session_of(context)
    session.tls_ca, session.tls_certificate, session.tls_key = tls_ca, tls_cert, tls_key


@app.command()
def up(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(help="Port of the control plane; else 6570 or the next free one.")] = None,
    feature_port: Annotated[
        int | None, typer.Option(help="Port of the feature server; else 6571 or the next free one.")
    ] = None,
    tokens: Annotated[Path | None, typer.Option(help="Token file; without it, loopback callers need none.")] = None,
    registry_token: Annotated[
        Path | None, typer.Option(help="File that holds the token by which the feature server reads the registry.")
    ] = None,
    import_root: Annotated[
        list[Path] | None, typer.Option(help="Folder below which servers may import files; repeatable.")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Also run the historical service, over files below the import roots.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline/--no-offline", help="Feed the offline store in the data folder.")
    ] = True,
    offline_token: Annotated[
        Path | None,
        typer.Option(help="With --tokens: file of the token by which rows go offline, else they do not."),
    ] = None,
    served_log_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Part of the reads that goes offline too, for 'headrace skew run'.")
    ] = 0.0,
    function_module: Annotated[
        list[str] | None, typer.Option(help="Module that functions of views may be imported from; repeatable.")
    ] = None,
    data: Data = None,
    output: Output = Format.TABLE,
) -> None:
    """Run a whole platform; Ctrl-C stops all of it."""
    from control_plane.cli.up import UpOptions, run  # lazy

    options = UpOptions(
        port,
        feature_port,
        tokens,
        registry_token,
        tuple(import_root or ()),
        history=history,
        offline=offline,
        offline_token=offline_token,
        served_log_share=served_log_share,
        function_modules=tuple(function_module or ()),
    )
    raise typer.Exit(run(session_of(context), options))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder.")],
) -> None:
    """Write a starter project that runs."""
    from control_plane.cli.starter import write_starter  # lazy

    for path in write_starter(folder):
        typer.echo(f"wrote {path}")


@app.command(name="function")
def show_function(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", help="Function at the top of a module.")],
    output: Output = Format.TABLE,
) -> None:
    """Print the digest of a function's source, which a YAML definition pins it by."""
    from control_plane.cli.function_commands import show_function  # lazy

    show_function(session_of(context), path)


@app.command()
def plan(
    context: typer.Context,
    definitions: Definitions = HERE,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Show what applying definitions would change."""
    from control_plane.cli.definition_commands import plan  # lazy

    plan(session_of(context), definitions)


@app.command()
def apply(
    context: typer.Context,
    definitions: Definitions = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Show the changes and make them, all or none."""
    from control_plane.cli.definition_commands import apply, plan  # lazy

    (plan if dry_run else apply)(session_of(context), definitions)


@app.command()
def get(
    context: typer.Context,
    kind: Kind,
    name: Annotated[str, typer.Argument(help="team.domain.name, with @vN for a version.")],
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Show one definition in a line."""
    from control_plane.cli.definition_commands import get  # lazy

    get(session_of(context), kind, name)


@app.command(name="list")
def list_(
    context: typer.Context,
    kind: Kind,
    prefix: Annotated[str, typer.Option(help="Only names that start with this.")] = "",
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """List the definitions of a kind."""
    from control_plane.cli.definition_commands import list_definitions  # lazy

    list_definitions(session_of(context), kind, prefix)


@app.command()
def describe(
    context: typer.Context,
    kind: Kind,
    name: Annotated[str, typer.Argument(help="team.domain.name, with @vN for a version.")],
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Show one definition in full."""
    from control_plane.cli.definition_commands import describe  # lazy

    describe(session_of(context), kind, name)


@app.command()
def retire(
    context: typer.Context,
    kind: Kind,
    name: Annotated[str, typer.Argument(help="Version to retire, team.domain.name@vN.")],
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Take one version out of service."""
    from control_plane.cli.definition_commands import retire  # lazy

    retire(session_of(context), kind, name)


@app.command()
def write(
    context: typer.Context,
    view: Annotated[str, typer.Argument(help="Feature view, team.domain.name or with @vN.")],
    file: Annotated[Path, typer.Argument(help="Rows: .parquet, .arrow, .csv or .jsonl.")],
    durability: Annotated[str, typer.Option(help="When to acknowledge: memory, log or fsync.")] = "log",
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Write the rows of a file into a view.

    The file has a column per join key, event_time with a zone, and a column per feature.
    """
    from control_plane.cli.data_commands import write  # lazy

    write(session_of(context), view, file, durability)


@app.command()
def read(
    context: typer.Context,
    service: Annotated[str | None, typer.Argument(help="Feature service, team.domain.name or with @vN.")] = None,
    entity: Annotated[
        list[str] | None, typer.Option("--entity", help="Keys: user_id=1,2,3 or as JSON user_id=[1,null]; repeatable.")
    ] = None,
    feature: Annotated[
        list[str] | None, typer.Option("--feature", help="view@vN:feature instead of a service; repeatable.")
    ] = None,
    request: Annotated[
        list[str] | None,
        typer.Option("--request", help="Request data: distance_km=12.5,30 or as JSON; repeatable."),
    ] = None,
    expired: Annotated[bool, typer.Option("--expired", help="Also show values past their time to live.")] = False,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Read features of entities in one call."""
    from control_plane.cli.data_commands import read  # lazy

    read(session_of(context), service, entity or [], feature or [], requests=request or [], expired=expired)


app.command()(explain)
app.command()(storage)


@app.command()
def materialize(
    context: typer.Context,
    view: Annotated[str, typer.Argument(help="Feature view, team.domain.name or with @vN.")],
    origin: Annotated[
        str | None,
        typer.Option("--from", help="File, source of kind file, or 'offline' for its history; else its own source."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="With --from offline: first event time, ISO 8601 with a zone; else what is new.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="With --from offline: event time to stop before.")] = None,
    spark_master: Annotated[
        str | None,
        typer.Option(help="With --from offline: make the rows of windows on Spark, local[n] or spark://host:port."),
    ] = None,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
    data: Data = None,
    token: Token = None,
) -> None:
    """Bring the rows of a source, or of the offline store, online."""
    if origin == "offline":
        from control_plane.cli.offline_commands import materialize_offline  # lazy

        raise typer.Exit(materialize_offline(session_of(context), view, since, until, spark_master))
    if since is not None or until is not None or spark_master is not None:
        raise typer.BadParameter("--since, --until and --spark-master go with --from offline")
    from control_plane.cli.data_commands import materialize  # lazy

    materialize(session_of(context), view, origin)


@service.command()
def layout(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SERVICE", help="Feature service, team.domain.name or with @vN.")],
    entities: Annotated[int, typer.Option(help="Entities whose rows are measured.", min=20, max=100_000)] = 2_000,
    apply: Annotated[bool, typer.Option("--apply", help="Move rows where it pays.")] = False,
    every: Annotated[bool, typer.Option("--all", help="With --apply, move every candidate's rows.")] = False,
    output: Output = Format.TABLE,
    data: Data = None,
) -> None:
    """Measure what packing views that are always read together into one row would change.

    Reads the store of the data folder beside the running server, and changes nothing. With --apply the server must be
    stopped: rows of views that are fetched together then lie under one key, and the store is measured before and after.
    """
    from control_plane.cli.layout_commands import layout  # lazy

    if every and not apply:
        raise typer.BadParameter("--all goes with --apply")
    layout(session_of(context), name, entities, apply=apply, every=every)


@app.command()
def demo(
    context: typer.Context,
    plant: Annotated[str | None, typer.Option("--plant", hidden=True)] = None,
) -> None:
    """Replay a year of real flights and prove every value.

    Each served value is compared with what plain pandas computes.
    """
    from control_plane.cli.demo.planted import Planted  # lazy: Arrow
    from control_plane.cli.demo.run import run  # lazy: pandas

    raise typer.Exit(run(session_of(context), None if plant is None else Planted(plant)))


if __name__ == "__main__":
    main()
